"""Hand a run to a tracker, from its directory, as it grows: live, or all at once when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workbench import files
from workbench.runs import walk
from workbench.runs.run import Run
from workbench.tracking import record, study_record
from workbench.tracking.record import Placement
from workbench.tracking.tracker import Notes, Tracker


class Tail:
    """The whole lines that are new in a growing file of JSON lines. A line that is not whole yet waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Those since the last call; from the beginning where the file was cut."""
        try:
            with self._path.open("rb") as stream:
                if stream.seek(0, 2) < self._at:
                    self._at = 0
                stream.seek(self._at)
                content = stream.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        yield from (files.parse_object(line, str(self._path)) for line in whole.splitlines())


def follow(run: Run, place: Placement, tracker: Tracker, ended: Callable[[], bool], notes: Notes) -> None:
    """Tell a tracker of a run until nobody works on it any more.

    Args:
        ended: waits a moment, then says whether the run's worker is gone.
    """
    resolved = run.resolved()
    step = tracker.start(record.opening(run, resolved, place))
    notes.state("following", tracker.address)
    tail, complete = Tail(run.metrics), walk.completing(run)
    over = False
    while not over:
        over = ended()  # asked before the file is read: nothing is written after it
        for row in tail.new():
            if row["step"] > step:
                step = row["step"]
                tracker.log(record.point(complete(row)))
                notes.step(step)
    if run.is_finished():
        notes.state("closing", tracker.address)
        closing = record.closing(run, resolved)
        if closing.last.step > step:
            tracker.log(closing.last)
        tracker.finish(closing)
        notes.state("complete", tracker.address)
    else:
        tracker.finish(None)
        notes.state("interrupted", tracker.address)


def show_study(folder: Path, tracker: Tracker) -> None:
    """Tell a tracker of a judged study, as a run of its own."""
    closing = study_record.closing(folder)
    if closing.last.step > tracker.start(study_record.opening(folder)):
        tracker.log(closing.last)
    tracker.finish(closing)
