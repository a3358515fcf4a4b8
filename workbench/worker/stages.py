"""The stages of a run, in order; each is skipped where its result is there already, so that the same command finishes a
run that was stopped anywhere."""

from __future__ import annotations

from pathlib import Path

from workbench import collective, place
from workbench.errors import LostError, Problem, RunError
from workbench.progress import Progress, silent
from workbench.recipe import resolve
from workbench.recipe.resolved import Resolved
from workbench.recipe.tracking import Tracking
from workbench.runs.run import Run
from workbench.tracking.followers import Followers
from workbench.worker import contamination, continuing, scoring, training
from workbench.worker.finishing import finish
from workbench.worker.joining import join
from workbench.worker.setup import set_up, settle, write_manifest


def go(run: Run, suite_name: str | None, folder: Path) -> None:
    """Do what is left of a run.

    Args:
        suite_name: score on this suite instead of the recipe's.
        folder: where that suite is looked for.
    """
    resolved = run.resolved()
    threads = settle(run, resolved)
    try:
        join(resolved)
        with Progress() if place.here().is_main else silent() as progress:
            _go(run, resolved, threads, suite_name, folder, progress)
        collective.stop()
    except RuntimeError as error:
        if not collective.is_lost(error):
            raise
        raise LostError("another process of this run is gone; the same command goes on") from error


def _go(run: Run, resolved: Resolved, threads: int, suite_name: str | None, folder: Path, progress: Progress) -> None:
    is_main = place.here().is_main
    suite = resolve.find_suite(suite_name, folder, "--suite") if suite_name else resolved.suite
    if not (run.adapter.exists() or run.is_finished()):
        collective.from_main(lambda: continuing.refuse_other_contents(run, resolved))
    bench = set_up(run, resolved, suite, progress)
    if is_main:
        write_manifest(bench, threads)
    if resolved.trains and suite_name and not run.is_finished():
        raise RunError(Problem(run.name, "is not finished yet", "workbench train with its recipe finishes it"))
    with Followers(run, resolved.recipe.tracking if is_main else Tracking(), progress.say) as followers:
        if resolved.trains and resolved.recipe.evaluation.base and resolved.recipe.base.init == "pretrained":
            scoring.score_base(bench)
        if resolved.trains and collective.from_main(lambda: not run.proof.exists()):
            training.train(bench, followers)
        collective.from_main(lambda: contamination.check(bench))
        scoring.score(bench)
        if is_main:
            finish(run)
            followers.finish()
