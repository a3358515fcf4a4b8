"""compare: finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench import documents, files, fingerprint
from workbench.compare import verdict
from workbench.compare.fields import KNOWN, is_known
from workbench.compare.publish import publish
from workbench.compare.question import Question
from workbench.compare.scores import Scored
from workbench.errors import ComparisonRefusedError, Problem, RunError
from workbench.recipe.identity import identity_hash
from workbench.runs import create
from workbench.runs.run import Run
from workbench.verbs import judgement, terminal


def compare(
    names: Sequence[str],
    suite: str | None,
    vary: Sequence[str],
    allow_confounds: bool,
    root: Path,
    out: Path | None,
) -> None:
    """Judge the runs and print the verdict; runs of one recipe with several seeds are one arm."""
    vary = [field.strip() for one in vary for field in one.split(",")]
    _refuse_unknown(vary)
    chosen = [create.named_run(root, name) for name in names]
    suite = suite or _common_suite(chosen)
    _refuse_unscored(chosen, suite)
    arms = _arms(chosen)
    if len(arms) < 2:
        found = Problem("RUN...", f"all are {next(iter(arms))}", "name a run of another recipe to compare it with")
        raise RunError(found)
    reference = next(iter(arms))
    question = Question(
        name=" against ".join([*list(arms)[1:], reference]),
        kind="comparison",
        question=f"How do they compare with {reference}?",
        suite=suite,
        vary=vary,
        reference=reference,
        contrasts=[(name, reference) for name in list(arms)[1:]],
        allow_confounds=allow_confounds,
    )
    made = verdict.judge(question, {name: [Scored(run, suite) for run in found] for name, found in arms.items()})
    identity = fingerprint.of_value([suite, {name: [run.name for run in runs] for name, runs in arms.items()}])
    folder = out or root / "comparisons" / identity[:10]
    judgement.show(terminal.console(), made.verdict, publish(made, folder))


def _refuse_unknown(vary: Sequence[str]) -> None:
    problems = [
        Problem(f"--vary {field}", "is no field", documents.did_you_mean(field, KNOWN))
        for field in vary
        if not is_known(field)
    ]
    if problems:
        raise RunError(problems)


def _common_suite(runs: Sequence[Run]) -> str:
    common = set(runs[0].suites()).intersection(*(run.suites() for run in runs[1:]))
    if not common:
        scored = "; ".join(f"{run.name}: {', '.join(run.suites()) or 'nothing'}" for run in runs)
        raise ComparisonRefusedError(f"no suite that all of them were scored on ({scored})")
    return min(common)


def _refuse_unscored(runs: Sequence[Run], suite: str) -> None:
    problems = []
    for run in runs:
        if not run.is_finished():
            problems.append(create.unfinished(run))
        elif not run.results(suite).exists():
            advice = f"workbench eval {run.name} --suite {suite}"
            problems.append(Problem(run.name, f"was not scored on {suite}", advice))
    if problems:
        raise RunError(problems)


def _arms(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed only are one arm; called by their name, and whole where that is not enough.

    Raises:
        RunError: two of them are the same run, by copies of it in two places: one seed would count as two.
    """
    families: dict[str, list[Run]] = {}
    first: dict[str, Run] = {}
    for run in {run.path.resolve(): run for run in runs}.values():
        facts = files.read_json(run.identity_file)
        if (other := first.setdefault(identity_hash(facts), run)) is not run:
            advice = "name one of them; to see how far equal runs lie apart, train with --set repeat=1"
            raise RunError(Problem(str(run.path), f"is the same recipe and seed as {other.path}", advice))
        families.setdefault(_but_for_the_seed(facts), []).append(run)
    labels = terminal.labels([found[0] for found in families.values()])
    return dict(zip(labels, families.values(), strict=True))


def _but_for_the_seed(facts: dict[str, Any]) -> str:
    return identity_hash({key: value for key, value in facts.items() if key != "seed"})
