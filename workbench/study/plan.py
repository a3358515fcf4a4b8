"""A study -> the runs that it needs: which are there, which failed, which are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import documents
from workbench.catalog.suites import LOWER_IS_BETTER
from workbench.compare import gate
from workbench.compare.facts import Facts, declared_facts
from workbench.compare.fields import SEED
from workbench.documents import Trail
from workbench.errors import Problem, RecipeError, UserError
from workbench.recipe import resolve
from workbench.recipe.identity import base_reference, identity_hash
from workbench.recipe.load import setting
from workbench.recipe.resolved import Resolved, ResolvedSuite
from workbench.runs import ledger
from workbench.runs.planned import Planned, planned
from workbench.runs.run import Run
from workbench.study.load import LoadedArm, LoadedStudy, loaded_recipe


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    arm: str
    seed: int
    planned: Planned

    @property
    def suite(self) -> str:
        """What its scores are filed under: the study's suite, or a variant of it."""
        assert self.planned.resolved.suite is not None, "a study sets every arm's suite"
        return self.planned.resolved.suite.name

    def find(self, root: Path) -> Run | None:
        """Its run, where there is one."""
        return self.planned.find(root)

    def state(self, root: Path) -> str:
        """finished, running, failed, stopped, not scored (finished, but not on the study's suite) or missing."""
        run = self.find(root)
        if run is None:
            return "missing"
        state = ledger.state(run)
        return "not scored" if state == "finished" and not self.planned.is_done(root) else state


@dataclass(frozen=True)
class Plan:
    """All runs of a study: the first seed of every arm, then the second, so that whole comparisons come early."""

    loaded: LoadedStudy
    suite: ResolvedSuite
    runs: list[StudyRun]
    root: Path

    @property
    def vary(self) -> list[str]:
        """The fields that may differ. Seeds may always: every arm has the same ones, or the verdict says what is
        missing."""
        return [*self.loaded.study.vary, SEED]

    @property
    def folder(self) -> Path:
        """Where the study's verdict and report are written."""
        return self.root / "studies" / self.loaded.name


def plan(loaded: LoadedStudy, root: Path, overrides: Sequence[str]) -> Plan:
    """Resolve every arm with every seed.

    Raises:
        RecipeError: with every problem of every arm.
    """
    study, document = loaded.study, loaded.document
    suite = resolve.find_suite(study.suite, loaded.folder, document.where(("suite",)))
    problems: list[Problem] = _unknown_tasks(loaded, suite)
    by_arm: dict[str, list[StudyRun]] = {}
    for arm in loaded.arms:
        try:
            by_arm[arm.name] = _runs(arm, loaded, suite, root, overrides)
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    problems += [*_doubled(by_arm, loaded), *_no_rungs(by_arm, loaded), *_no_curve(loaded, suite)]
    if problems:
        raise RecipeError(problems)
    most = max(len(runs) for runs in by_arm.values())
    runs = [found[at] for at in range(most) for found in by_arm.values() if at < len(found)]
    return Plan(loaded, suite, runs, root)


def resolved_arms(loaded: LoadedStudy, overrides: Sequence[str]) -> list[Resolved]:
    """Every arm with its names looked up, and nothing pinned or fetched.

    Raises:
        RecipeError: with every problem of every arm.
    """
    suite = resolve.find_suite(loaded.study.suite, loaded.folder, loaded.document.where(("suite",)))
    found: list[Resolved] = []
    problems: list[Problem] = []
    for arm in loaded.arms:
        try:
            found.append(_resolved(arm, loaded, suite, overrides))
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise RecipeError(problems)
    return found


def early_facts(made: Plan) -> dict[str, list[Facts]]:
    """What is known of every arm before anything runs: a confound in the recipes is found before it costs anything."""
    arms: dict[str, list[Facts]] = {}
    for one in made.runs:
        facts = declared_facts(one.planned.resolved.model_dump(mode="json"), one.planned.facts)
        arms.setdefault(one.arm, []).append(facts)
    return arms


def refuse_confounds(made: Plan) -> None:
    """Refuse a study whose arms differ in what it does not declare, before anything is started.

    Raises:
        ComparisonRefusedError: names every confound.
    """
    facts = early_facts(made)
    declare = "vary: [{}] (nothing was started)"
    gate.refuse_confounds(gate.check(facts, made.vary), facts, made.vary, declare)


def _runs(
    arm: LoadedArm, loaded: LoadedStudy, suite: ResolvedSuite, root: Path, overrides: Sequence[str]
) -> list[StudyRun]:
    resolved = _resolved(arm, loaded, suite, overrides)
    first = planned(_as_base(resolved), root)
    seeds = loaded.study.seeds if _has_seeds(resolved) else [0]
    return [StudyRun(arm.name, seed, first.with_seed(seed)) for seed in seeds]


def _resolved(arm: LoadedArm, loaded: LoadedStudy, suite: ResolvedSuite, overrides: Sequence[str]) -> Resolved:
    """An arm's recipe on the study's suite."""
    where, path = loaded.document.where(("suite",)), str(Path(suite.folder) / f"{suite.name}.yaml")
    more = [setting("evaluation.suite", path, where, loaded.folder), setting("name", arm.name, where, loaded.folder)]
    return resolve.resolve(loaded_recipe(arm, more, overrides))


def _has_seeds(resolved: Resolved) -> bool:
    """Whether a seed changes anything: not of an untouched pretrained base."""
    return resolved.trains or resolved.recipe.base.init == "random"


def _as_base(resolved: Resolved) -> Resolved:
    """An arm that trains nothing is the run in which trained runs of its base have their base scored."""
    return resolved if _has_seeds(resolved) else base_reference(resolved)


def _unknown_tasks(loaded: LoadedStudy, suite: ResolvedSuite) -> list[Problem]:
    """Tasks that the study names and that the suite has not."""
    study, document = loaded.study, loaded.document
    tasks = [task.id for task in suite.suite.tasks]
    named: list[tuple[Trail, str]] = [(("margins", task), task) for task in study.margins]
    named += [(("ladder_task",), study.ladder_task)] if study.ladder_task else []
    return [
        Problem(
            document.where(trail), f"the suite {suite.name} has no task {task!r}", documents.did_you_mean(task, tasks)
        )
        for trail, task in named
        if task not in tasks
    ]


def _no_curve(loaded: LoadedStudy, suite: ResolvedSuite) -> list[Problem]:
    """A ladder without a task of which a curve can be made."""
    study, document = loaded.study, loaded.document
    fitting = [task.id for task in suite.suite.tasks if task.primary in LOWER_IS_BETTER]
    if not study.ladder or (study.ladder_task or next(iter(fitting), None)) in fitting:
        return []
    place, what = ("ladder_task", study.ladder_task) if study.ladder_task else ("ladder", f"the suite {suite.name}")
    advice = f"such tasks here: {', '.join(fitting) or 'none'}; a heldout task makes one"
    return [Problem(document.where((place,)), f"{what} is not measured in bits per byte", advice)]


def _no_rungs(by_arm: dict[str, list[StudyRun]], loaded: LoadedStudy) -> list[Problem]:
    """Arms of the ladder that do not start from random weights."""
    return [
        Problem(
            loaded.document.where(("ladder", at)),
            f"{arm} is not trained from scratch",
            "a rung has base.init: random and a method that trains",
        )
        for at, name in enumerate(loaded.study.ladder)
        for arm in loaded.expand(name)
        if arm in by_arm and not _is_from_scratch(by_arm[arm][0].planned.resolved)
    ]


def _is_from_scratch(resolved: Resolved) -> bool:
    return resolved.trains and resolved.recipe.base.init == "random"


def _doubled(by_arm: dict[str, list[StudyRun]], loaded: LoadedStudy) -> list[Problem]:
    """Arms that are the same run under two names."""
    first: dict[str, str] = {}
    problems = []
    for arm, runs in by_arm.items():
        other = first.setdefault(identity_hash({**_seedless(runs[0].planned.facts), "suite": runs[0].suite}), arm)
        if other != arm:
            where = loaded.document.where(("arms",))
            advice = "leave one out; for an A/A arm: set: {repeat: 1}"
            problems.append(Problem(where, f"{arm} and {other} come to the same run", advice))
    return problems


def _seedless(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != "seed"}
