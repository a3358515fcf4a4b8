"""pack: everything that is needed to check or to go on with studies and runs elsewhere, in one file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from workbench import documents, fingerprint, secrecy
from workbench.compare.report import words
from workbench.errors import Problem, RunError
from workbench.packs import archive, making
from workbench.packs.inputs import normal
from workbench.packs.making import Asked
from workbench.progress import Progress
from workbench.runs import create
from workbench.runs.places import MANIFEST
from workbench.study import load as studies
from workbench.study.plan import plan
from workbench.verbs import terminal
from workbench.visible import markup

_ENDING = ".tar.gz"
_MEGABYTE = 10**6


def pack(names: Sequence[str], overrides: Sequence[str], out: Path | None, root: Path) -> None:
    """Gather, look for secrets, and write."""
    console = terminal.console()
    asked = _asked(names, overrides, root.absolute())
    target = out or root / "packs" / f"{asked.name}{_ENDING}"
    made = making.made(asked)
    members, secrets = made.layout.members, secrecy.known()
    with Progress(console) as progress:
        total = sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one in members.values())
        with _Megabytes(progress, "read", total) as read:
            digests = archive.digests(members, secrets, read)
        members[MANIFEST] = making.listed(made, digests)
        digests |= archive.digests({MANIFEST: members[MANIFEST]}, secrets, lambda _: None)
        with _Megabytes(progress, "pack", total) as read:
            archive.write(target, members, digests, read)
    size, runs = words.size(target.stat().st_size), len(made.facts["runs"])
    console.print(f"packed {markup(documents.display(target))}: {len(members)} files of {runs} runs, {size}")
    console.print(f"sha256 {fingerprint.of_file(target)}", style="dim")
    notes = [f"not finished, goes on from its newest checkpoint if any: {name}" for name in made.facts["unfinished"]]
    notes += [f"not trained yet, and not in it: {one['arm']}, seed {one['seed']}" for one in made.facts["missing"]]
    hub = made.facts["fetched_from_the_hub"]
    notes += [f"not in it, from the hub: {one['kind']} {one['repository']}@{one['commit']}" for one in hub]
    for note in notes:
        console.print(markup(note), style="dim")
    console.print(f"check it: workbench pack --check {shlex.quote(documents.display(target))}", style="dim")


def _asked(names: Sequence[str], overrides: Sequence[str], root: Path) -> Asked:
    """The studies and runs by name."""
    if not names:
        raise RunError(Problem("pack", "names nothing", "workbench pack STUDY|RUN..., or --check FILE"))
    files = [normal(studies.find(Path(name))) for name in names if studies.is_study(Path(name))]
    others = [create.named_run(root, name) for name in names if not studies.is_study(Path(name))]
    if overrides and not files:
        raise RunError(Problem(f"--set {overrides[0]}", "a run is frozen", "it is for the arms of a study"))
    made = {file: plan(studies.load(file), root, overrides) for file in files}
    return Asked(made, list(dict.fromkeys(others)), overrides)


def check(file: Path, names: Sequence[str]) -> None:
    """Say whether an archive holds what it lists, all of it and nothing else.

    Raises:
        RunError: with everything that is wrong; or there are names of what might be packed as well.
    """
    if names:
        raise RunError(Problem("--check", f"looks at {file} alone, not at {names[0]}", "leave the name away"))
    console = terminal.console()
    with Progress(console) as progress, _Megabytes(progress, "check", None) as read:
        found = archive.check(file, read)
    if found.problems:
        raise RunError(found.problems)
    listed = found.manifest["files"]
    size = words.size(sum(one["bytes"] for one in listed.values()))
    console.print(
        f"[green]whole[/green]: all {len(listed)} files of {markup(str(file))} are as listed, {size} unpacked"
    )


class _Megabytes:
    """A bar over bytes that go by."""

    def __init__(self, progress: Progress, what: str, total: int | None) -> None:
        self._bar = progress.bar(what, None if total is None else total // _MEGABYTE)
        self._bytes = 0

    def __enter__(self) -> _Megabytes:
        return self

    def __exit__(self, *stopped_by: object) -> None:
        self._bar.close()

    def __call__(self, count: int) -> None:
        before, self._bytes = self._bytes // _MEGABYTE, self._bytes + count
        self._bar.advance("MB", by=self._bytes // _MEGABYTE - before)
