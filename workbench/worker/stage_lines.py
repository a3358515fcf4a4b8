"""One line a stage: how it ended, how long it took, what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from workbench.errors import Problem, UserError
from workbench.progress import Progress

_Made = TypeVar("_Made")


class Lines:
    """Tells stages as they end."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.failed: list[str] = []
        """Stages that failed."""
        self.note = ""
        """What the stage in hand has to say; told with its end."""

    def attempt(self, name: str, act: Callable[[], _Made]) -> _Made | None:
        """One stage, and what it made; what a user can mend is told, gives None and does not end the others."""
        began, self.note = time.monotonic(), ""
        try:
            made = act()
        except UserError as error:
            self.fail(name, time.monotonic() - began, error.problems)
            return None
        self.ok(name, time.monotonic() - began, self.note)
        return made

    def ok(self, name: str, seconds: float, note: str = "") -> None:
        """A stage that ended well."""
        self._line("ok", name, seconds, note)

    def fail(self, name: str, seconds: float, problems: Sequence[Problem]) -> None:
        """A stage that did not, with what is wrong."""
        self.failed.append(name)
        self._line("failed", name, seconds, "")
        for problem in problems:
            self.progress.say("\n".join(f"        {line}" for line in str(problem).splitlines()))

    def skip(self, name: str, why: str) -> None:
        """Stages that were not tried."""
        self.progress.say(f"{'-':<7} {name:<11}          {why}")

    def _line(self, word: str, name: str, seconds: float, note: str) -> None:
        self.progress.say(f"{word:<7} {name:<11} {seconds:6.1f} s {note}".rstrip())
