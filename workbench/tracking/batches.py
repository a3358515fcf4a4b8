"""Points that go to a tracker together: one call for each step of a long run would take longer than the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from workbench.tracking.record import Point

MOST_POINTS = 50
_LONGEST_WAIT_SECONDS = 1.0


class Batches:
    """Keeps points until they are due: the next one after a second without sending, or when there are many."""

    def __init__(self, send: Callable[[Sequence[Point]], None]) -> None:
        self._send = send
        self._points: list[Point] = []
        self._sent = 0.0

    def add(self, point: Point) -> None:
        """One more."""
        self._points.append(point)
        if len(self._points) == MOST_POINTS or time.monotonic() - self._sent > _LONGEST_WAIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        points, self._points = self._points, []
        if points:
            self._send(points)
        self._sent = time.monotonic()
