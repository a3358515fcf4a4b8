"""A pack of studies and runs: what is in it, the list of it, and the proof that it can be gone on with."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import __version__, files
from workbench.compare.folder import EVIDENCE, REPORT, VERDICT
from workbench.errors import Problem, RunError, UserError
from workbench.packs import layout as layouts
from workbench.packs import run_files
from workbench.packs.archive import Digest, is_safe
from workbench.packs.inputs import Inputs, normal, own_targets
from workbench.packs.layout import INPUTS, RUNS, Layout
from workbench.packs.readme import README, readme
from workbench.recipe import inputs as fetched
from workbench.recipe import load as recipes
from workbench.recipe import pin, resolve
from workbench.recipe.resolved import Resolved
from workbench.runs import ingredients, ledger, manifest, soundness
from workbench.runs.places import MANIFEST, moved_path
from workbench.runs.planned import planned
from workbench.runs.run import Run
from workbench.study import load as studies
from workbench.study.plan import Plan, StudyRun, plan

SCHEMA = 1
"""Raised when PACK.json changes its shape."""


@dataclass(frozen=True)
class Asked:
    """What is to be packed."""

    studies: Mapping[Path, Plan]
    """By their files (absolute paths)."""
    runs: Sequence[Run]
    overrides: Sequence[str]
    """`--set` of the studies."""

    @property
    def name(self) -> str:
        """What the pack is called."""
        return next((made.loaded.name for made in self.studies.values()), "") or self.runs[0].name

    @property
    def planned(self) -> list[tuple[StudyRun, Run | None]]:
        """The runs of the studies, each with its directory where it has one."""
        return [(one, one.find(made.root)) for made in self.studies.values() for one in made.runs]

    @property
    def resolved(self) -> list[Resolved]:
        """All recipes."""
        return [one.planned.resolved for one, _ in self.planned] + [run.resolved() for run in self.runs]


@dataclass(frozen=True)
class Pack:
    """Everything of a pack but its list."""

    layout: Layout
    facts: dict[str, Any]
    """What the list says beside the files."""


def made(asked: Asked) -> Pack:
    """Lay out all that is to be packed, and prove that the runs are found again from it.

    Raises:
        UserError: something is not there, is being worked on, or would not be found again.
    """
    named = [*asked.runs, *(run for _, run in asked.planned if run is not None)]
    if not named:
        raise RunError(Problem(asked.name, "none of its runs is there", "`workbench study` trains them"))
    inputs = _inputs(asked)
    runs = run_files.with_what_they_need([*named, *map(Run, sorted(inputs.starts))])
    run_files.refuse_running(runs)
    soundness.refuse_damaged(run for run in runs if run.is_finished())
    recipes_ = {f"{INPUTS}/{run.name}.yaml": run.recipe_file for run in asked.runs}
    layout = layouts.lay_out(inputs, [run.path for run in runs], recipes_)
    for run, resolved in [(run, one.planned.resolved) for one, run in asked.planned if run is not None] + [
        (run, run.resolved()) for run in asked.runs
    ]:
        layout.add_places(files.read_json(run.resolved_file), resolved.model_dump(mode="json"))
    left_out = _add_runs(layout, asked, runs)
    targets = own_targets()
    if targets is not None and normal(targets) not in inputs.documents:
        layout.add(targets.name, targets)
    _refuse_names(layout)
    settings = _settings(asked, layout)
    _prove(asked, layout, settings)
    facts = _facts(asked, layout, runs, left_out, settings)
    layout.add(README, readme(facts).encode())
    return Pack(layout, facts)


def listed(pack: Pack, digests: dict[str, Digest]) -> bytes:
    """PACK.json: every file with hash and size, and what the pack was made of."""
    files_ = {name: {"sha256": one.sha256, "bytes": one.size} for name, one in sorted(digests.items())}
    return (json.dumps({**pack.facts, "files": files_}, indent=2, ensure_ascii=False) + "\n").encode()


def _inputs(asked: Asked) -> Inputs:
    """All inputs.

    Raises:
        RunError: with everything that is not there.
    """
    inputs = Inputs()
    problems: list[Problem] = []
    for file, study in asked.studies.items():
        inputs.documents.add(file)
        for path in {arm.path for arm in study.loaded.arms}:
            inputs.add_recipe(path)
    for resolved in asked.resolved:
        problems += inputs.add(resolved)
    for run in asked.runs:
        problems += ingredients.problems(run)
    if problems:
        raise RunError(problems)
    return inputs


def _add_runs(layout: Layout, asked: Asked, runs: Sequence[Run]) -> list[dict[str, str]]:
    """Put the runs and the studies' verdicts into the pack; what is left out of them, and why."""
    left_out = []
    for run in runs:
        chosen, dropped = run_files.packed(run)
        for path in chosen:
            layout.add(f"{RUNS}/{run.name}/{path.relative_to(run.path).as_posix()}", path)
        left_out += [{"path": f"{RUNS}/{run.name}/{name}", "why": why} for name, why in dropped.items()]
    for study in asked.studies.values():
        for path in (study.folder / name for name in (VERDICT, EVIDENCE, REPORT)):
            if path.is_file():
                layout.add(f"{RUNS}/{path.relative_to(study.root).as_posix()}", path)
    behind = "".join(files.json_line(facts) for facts in run_files.left_behind(runs))
    if behind:
        layout.add(f"{RUNS}/{ledger.LEFT_BEHIND}", behind.encode())
    return left_out


def _refuse_names(layout: Layout) -> None:
    def is_text(name: str) -> bool:
        try:
            return bool(name.encode())
        except UnicodeError:
            return False

    odd = [name for name in layout.members if not (is_text(name) and is_safe(name))]
    if odd:
        raise RunError([Problem(repr(name), "cannot be the name of a file in a pack", "rename it") for name in odd])


def _settings(asked: Asked, layout: Layout) -> list[str]:
    """The study's `--set` as they are to be typed at the top of the pack, with what this machine made of fields that
    come out otherwise elsewhere: `target: auto`, a CPU's threads, bases without a revision."""
    settings = []
    for text in asked.overrides:
        key, _, value = text.partition("=")
        there = moved_path(recipes.absolute(value, Path.cwd()), layout.places)
        settings.append(f"{key}=./{there}" if there is not None else text)
    said, resolved = {text.partition("=")[0] for text in settings}, asked.resolved
    on_hub = [one for one in resolved if one.base.kind == "hub"]
    open_: dict[str, set[Any]] = {
        "target.name": {one.target.name for one in resolved},
        "target.threads": _threads(asked),
        "base.revision": {one.base.revision for one in on_hub},
    }
    is_open = {
        "target.name": any(one.recipe.target.name == "auto" for one in resolved),
        "target.threads": any(one.recipe.target.threads is None for one in resolved),
        "base.revision": any(one.recipe.base.revision is None for one in on_hub),
    }
    for key, values in open_.items():
        if is_open[key] and len(values) == 1 and not said & {key, key.partition(".")[0]}:
            settings.append(f"{key}={values.pop()}")
    return settings


def _threads(asked: Asked) -> set[int]:
    """How many threads the runs took where a CPU did their sums, for the last bits depend on them."""
    runs = [run for run in (*asked.runs, *(run for _, run in asked.planned)) if run is not None]
    hardware = [files.read_json(run.manifest)["hardware"] for run in runs if run.manifest.exists()]
    return {one["threads"] for one in hardware if one["device"] == "cpu"}


def _facts(
    asked: Asked, layout: Layout, runs: Sequence[Run], left_out: list[dict[str, str]], settings: list[str]
) -> dict[str, Any]:
    resolved = asked.resolved
    repositories = fetched.union(found for one in resolved for found in fetched.repositories(_pinned(one)))
    tasks = sorted({task.task for one in resolved for task in fetched.harness_tasks(one)})
    return {
        "schema": SCHEMA,
        "name": asked.name,
        "studies": [layout.name(file) for file in asked.studies],
        "runs": sorted(run.name for run in runs),
        "recipes": sorted(f"{INPUTS}/{run.name}.yaml" for run in asked.runs),
        "settings": settings,
        "missing": [{"arm": one.arm, "seed": one.seed} for one, run in asked.planned if run is None],
        "unfinished": sorted(run.name for run in runs if not run.is_finished()),
        "workbench": __version__,
        "versions": manifest.versions(),
        "fetched_from_the_hub": [
            {"kind": one.kind, "repository": one.name, "commit": one.revision, "files": list(one.patterns)}
            for one in repositories
        ],
        "fetched_by_lm_eval": tasks,
        "left_out": left_out,
        "rewritten": layout.rewritten,
        "places": layout.places,
    }


def _pinned(resolved: Resolved) -> Resolved:
    """The recipe with the revisions of its suite's cards made commits too."""
    if resolved.suite is None:
        return resolved
    cards = {name: pin.pin_card(card) for name, card in resolved.suite.cards.items()}
    return resolved.model_copy(update={"suite": resolved.suite.model_copy(update={"cards": cards})})


def _prove(asked: Asked, layout: Layout, settings: Sequence[str]) -> None:
    """Read the hand-written files as they lie in the pack, in a folder of links: they must come to the same runs.

    Raises:
        RunError: names the arms that would be other ones.
    """
    before = [(f"{one.arm}, seed {one.seed}", one.planned.facts) for one, _ in asked.planned]
    before += [(run.name, files.read_json(run.identity_file)) for run in asked.runs]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _stage(Path(folder), layout)
        try:
            after = list(_found_again(asked, layout, settings, Path(folder)))
        except UserError as error:
            raise RunError([*error.problems, Problem(MANIFEST, "so it would be in the pack", _BY_PATHS)]) from None
    others = [name for (name, facts), again in zip(before, after, strict=True) if facts != again]
    if others:
        raise RunError([Problem(name, "would be another run in the unpacked pack", _BY_PATHS) for name in others])


_BY_PATHS = "name what it reads by paths from the file that names it, without links to folders"


def _stage(folder: Path, layout: Layout) -> None:
    for name, content in layout.members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.symlink_to(content.absolute())


def _found_again(asked: Asked, layout: Layout, settings: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    for file in asked.studies:
        path = folder / layout.name(file)
        yield from (one.planned.facts for one in plan(studies.load(path), folder / RUNS, settings).runs)
    for run in asked.runs:
        loaded = recipes.load(folder / INPUTS / f"{run.name}.yaml", settings)
        yield planned(resolve.resolve(loaded), folder / RUNS).facts
