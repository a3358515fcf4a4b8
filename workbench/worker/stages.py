"""The stages of a run, in order; each is skipped where its result is there already, so that the same command finishes a
run that was stopped anywhere."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import Problem, RunError
from workbench.progress import Progress
from workbench.recipe import resolve
from workbench.runs.run import Run
from workbench.tracking.tracker import tracker_for
from workbench.worker import contamination, scoring, training
from workbench.worker.finishing import finish
from workbench.worker.setup import set_up, settle, write_manifest


def go(run: Run, suite_name: str | None, folder: Path) -> None:
    """Do what is left of a run.

    Args:
        suite_name: score on this suite instead of the recipe's.
        folder: where that suite is looked for.
    """
    with Progress() as progress:
        _go(run, suite_name, folder, progress)


def _go(run: Run, suite_name: str | None, folder: Path, progress: Progress) -> None:
    resolved = run.resolved()
    threads = settle(run, resolved)
    suite = resolve.find_suite(suite_name, folder, "--suite") if suite_name else resolved.suite
    bench = set_up(run, resolved, suite, progress)
    write_manifest(bench, threads)
    if resolved.trains and suite_name and not run.is_finished():
        raise RunError(Problem(run.name, "is not finished yet", "workbench train with its recipe finishes it"))
    tracker = tracker_for(run, resolved, progress.say)
    if resolved.trains and resolved.recipe.evaluation.base and resolved.recipe.base.init == "pretrained":
        scoring.score_base(bench)
    if resolved.trains and not run.proof.exists():
        training.train(bench, tracker)
    contamination.check(bench)
    scoring.score(bench)
    tracker.finish(finish(run))
