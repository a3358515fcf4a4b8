"""`python -m workbench.tracking KIND JOB`: show runs in a tracker. Standard input is held open by whoever works on the
run, and ends with that; without it the runs have ended.

JOB is what `launch.showing.arguments` makes.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench import bench
from workbench.errors import Problem, RunError, UserError
from workbench.progress import Progress
from workbench.recipe.trackers import NAMES
from workbench.recipe.tracking import Mlflow, Tensorboard, Trackio, Wandb
from workbench.runs.run import Run
from workbench.tracking.following import follow, show_study
from workbench.tracking.record import Placement
from workbench.tracking.tracker import Notes, Tracker, Worded

_LOOK_SECONDS = 1.0
_LOCK_PATIENCE_SECONDS = 10.0
_LONGEST_CLOSING_SECONDS = 3600.0
"""After the run has ended: nobody waits for this process, and it is not to stay for ever."""


def main() -> int:
    """Show what the job says, and note how far that went."""
    kind, job = sys.argv[1], json.loads(sys.argv[2])
    live = bool(job["live"])
    if live:  # the run is asked to stop, not we: we tell how it ended
        for number in bench.ASKING:
            signal.signal(number, signal.SIG_IGN)

    def work() -> None:
        tracker = Worded(lambda: make(kind, job["settings"], live, Path(job["root"])), NAMES[kind])
        runs = [(Run(Path(one["path"])), Placement(one["study"], one["arm"])) for one in job["runs"]]
        if live:
            _show(kind, *runs[0], tracker, live)
            return
        with Progress() as progress:
            for run, place in progress.over(runs, NAMES[kind]):
                _show(kind, run, place, tracker, live)
        if job["study"]:
            show_study(Path(job["study"]), tracker)

    return bench.ended(work)


def make(kind: str, settings: dict[str, Any], live: bool, root: Path) -> Tracker:
    """A tracker by its field in the recipe.

    Args:
        root: where runs are kept; trackers on this machine keep their files beside them.

    Raises:
        RunError: its package is not installed.
    """
    try:
        match kind:
            case "wandb":
                from workbench.tracking.wandb import WandbTracker

                return WandbTracker(Wandb.model_validate(settings), live)
            case "trackio":
                from workbench.tracking.trackio import TrackioTracker

                return TrackioTracker(Trackio.model_validate(settings), root)
            case "tensorboard":
                from workbench.tracking.tensorboard import TensorboardTracker

                return TensorboardTracker(Tensorboard.model_validate(settings), root)
            case "mlflow":
                from workbench.tracking.mlflow import MlflowTracker

                return MlflowTracker(Mlflow.model_validate(settings), root)
    except ModuleNotFoundError as missing:
        advice = "pip install 'workbench[trackers]'"
        raise RunError(Problem(f"tracking.{kind}", f"the package {missing.name} is not installed", advice)) from None
    raise AssertionError(kind)


def _show(kind: str, run: Run, place: Placement, tracker: Tracker, live: bool) -> None:
    """Show one run, and note how far that went.

    Raises:
        RunError: another process shows it.
    """
    run.tracked(kind).parent.mkdir(exist_ok=True)
    notes = Notes(run.tracked(kind))
    with _alone(run, kind):
        try:
            follow(run, place, tracker, _worker_is_gone if live else lambda: True, notes)
        except UserError as error:
            notes.failed(error.problems[0].found)
            raise


@contextmanager
def _alone(run: Run, kind: str) -> Iterator[None]:
    """Let no other process show this run in this tracker at the same time. One that follows a worker which is gone
    ends soon."""
    until = time.monotonic() + _LOCK_PATIENCE_SECONDS
    with run.tracked(kind).with_suffix(".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    found = f"another process shows it in {NAMES[kind]}"
                    raise RunError(Problem(run.name, found, "wait until it has ended")) from None
                time.sleep(_LOOK_SECONDS)
        yield


def _worker_is_gone() -> bool:
    """Wait a moment, and say whether standard input has ended: its other end is the worker's, and goes with it."""
    readable, _, _ = select.select([0], [], [], _LOOK_SECONDS)
    if not readable or os.read(0, 1):
        return False
    give_up = threading.Timer(_LONGEST_CLOSING_SECONDS, os._exit, [1])
    give_up.daemon = True
    give_up.start()
    return True


if __name__ == "__main__":
    sys.exit(main())
