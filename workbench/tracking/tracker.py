"""The protocol of a tracker, and how what one has taken is noted in the run's directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from workbench import files
from workbench.errors import Problem, TrackingError, UserError
from workbench.tracking.record import Closing, Opening, Point

_SECONDS_BETWEEN_NOTES = 1.0


class Tracker(Protocol):
    """Shows runs, one after the other. Its methods may raise, hang or be slow: nothing but the process that calls them
    depends on it."""

    def start(self, opening: Opening) -> int:
        """Begin to show a run, or go on where it is there already; returns the last step that it holds (0: none)."""

    def log(self, point: Point) -> None:
        """One point; steps rise."""

    def finish(self, closing: Closing | None) -> None:
        """The run is over; None: it was interrupted, and will go on."""

    @property
    def address(self) -> str | None:
        """Where the run can be looked at."""


class Worded:
    """A tracker whose library's errors are told in words: they are no defects of ours."""

    def __init__(self, make: Callable[[], Tracker], name: str) -> None:
        self._name = name
        with self._told():
            self._tracker = make()

    @property
    def address(self) -> str | None:
        """As the tracker's."""
        return self._tracker.address

    def start(self, opening: Opening) -> int:
        """As the tracker's.

        Raises:
            TrackingError: its library failed; so of the other methods.
        """
        with self._told():
            return self._tracker.start(opening)

    def log(self, point: Point) -> None:
        """As the tracker's."""
        with self._told():
            self._tracker.log(point)

    def finish(self, closing: Closing | None) -> None:
        """As the tracker's."""
        with self._told():
            self._tracker.finish(closing)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # whatever a library raises
            reason = next(iter(str(error).strip().splitlines()), "")
            found = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
            advice = "once that is mended, `workbench publish` sends everything"
            raise TrackingError(Problem(self._name, found, advice)) from error


@dataclass(frozen=True)
class Taken:
    """How far a tracker has come with a run."""

    state: Literal["following", "closing", "complete", "interrupted", "failed"]
    step: int = 0
    """The last one that it took."""
    address: str | None = None
    problem: str | None = None
    """Why it failed."""


def read(path: Path) -> Taken | None:
    """What was noted; None where nothing is."""
    return Taken(**files.read_json(path)) if path.exists() else None


class Notes:
    """Writes down how far a tracker has come; where to is `Run.tracked`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = Taken("following")
        self._written = 0.0

    def step(self, step: int) -> None:
        """A point was taken."""
        self._taken = replace(self._taken, step=step)
        if time.monotonic() - self._written > _SECONDS_BETWEEN_NOTES:
            self._write()

    def state(self, state: Literal["following", "closing", "complete", "interrupted"], address: str | None) -> None:
        """Another part of the work began, or it is done."""
        self._taken = replace(self._taken, state=state, address=address)
        self._write()

    def failed(self, problem: str) -> None:
        """It takes nothing more."""
        self._taken = replace(self._taken, state="failed", problem=problem)
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        files.write_json(self._path, asdict(self._taken))
