"""Progress of long work: a rich bar on a terminal, plain lines in a log or a pipe."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from workbench.visible import visible

_Item = TypeVar("_Item")
_SECONDS_BETWEEN_LINES = 10.0
_LOG = logging.getLogger("workbench")


class Progress:
    """Shows one piece of work at a time. `log` lines go to the run's log file whatever the terminal shows."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._open: Bar | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *stopped_by: object) -> None:
        """Take down a bar that an error or Ctrl-C left standing: it would be written over, and the cursor hidden."""
        if self._open is not None:
            self._open.close()

    def say(self, text: str) -> None:
        """One line for the person and the log."""
        self.console.print(visible(text), markup=False)
        _LOG.info(text)

    def over(self, items: Iterable[_Item], what: str, total: int | None = None) -> Iterator[_Item]:
        """Pass the items through, showing how many went by."""
        bar = self.bar(what, total)
        try:
            for item in items:
                yield item
                bar.advance()
        finally:
            bar.close()

    def bar(self, what: str, total: int | None, start: int = 0) -> Bar:
        """A bar that is advanced by hand; close it at the end."""
        self._open = Bar(self, what, total, start)
        return self._open


def silent() -> Progress:
    """For all processes of a run but the first: a person hears things once."""
    return Progress(Console(file=Path(os.devnull).open("w", encoding="utf-8")))


class Bar:
    """One piece of work: a live bar on a terminal, else a plain line now and then."""

    def __init__(self, progress: Progress, what: str, total: int | None, start: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, start
        self._first, self._began = start, time.monotonic()
        self._line_at = self._began
        self._note = ""
        self._live: RichProgress | None = None
        self._task: Any = None
        if progress.console.is_terminal:
            self._live = RichProgress(
                TextColumn("{task.description:<9}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=progress.console,
                transient=True,
            )
            self._live.start()
            self._task = self._live.add_task(what, total=total, completed=start, note="")

    def advance(self, note: str = "", by: int = 1) -> None:
        """Count work done, with a note such as the loss."""
        self._done += by
        self._note = note or self._note
        if self._live is not None:
            self._live.update(self._task, advance=by, note=self._note)
        elif time.monotonic() - self._line_at >= _SECONDS_BETWEEN_LINES:
            self._line_at = time.monotonic()
            self._progress.say(self._line())

    def _line(self) -> str:
        seconds = time.monotonic() - self._began
        parts = [f"{self._what} {self._done}" + (f"/{self._total}" if self._total else ""), self._note]
        rate = (self._done - self._first) / seconds if seconds else 0.0
        if self._total and rate:
            parts.append(f"{(self._total - self._done) / rate:.0f} s left")
        return "  ".join(part for part in parts if part)

    def close(self) -> None:
        """End the bar; a plain log gets a last line where others went before."""
        if self._live is not None:
            self._live.stop()
        elif self._line_at != self._began:
            self._progress.say(self._line())
