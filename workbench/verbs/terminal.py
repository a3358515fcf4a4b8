"""How verbs write to the terminal: one console, short names of runs, intervals."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from workbench.runs import create
from workbench.runs.run import Run

NO_ANSWER = "Slurm does not answer; states are those of the directories alone"
"""Said under a table of runs that may hold jobs."""
_IDENTITY = re.compile(f"{create.NAME_ENDING.pattern}$")
_WIDTH_OF_A_PIPE = 200
_COLOURS = {"finished": "green", "running": "cyan", "queued": "blue", "preempted": "magenta", "failed": "red",
            "damaged": "red", "stopped": "yellow"}  # fmt: skip


def console() -> Console:
    """A console that wraps nothing by itself; a pipe or a log file is wide."""
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
    return Console(highlight=False, soft_wrap=True, width=width)


def state(word: str) -> str:
    """A run's state in its colour, as rich's markup."""
    return f"[{_COLOURS[word]}]{word}[/]" if word in _COLOURS else word


def elsewhere(root: Path) -> str:
    """The option that names a root, for a command that is to be pasted here; nothing where it is the usual one."""
    return "" if root.resolve() == Path("runs").resolve() else f" --runs {shlex.quote(str(root))}"


def labels(runs: Sequence[Run]) -> list[str]:
    """Names without the identity where that leaves them apart, with the seed where that does, else whole."""
    for shorten in (r"", r" \1"):
        short = [_IDENTITY.sub(shorten, run.name) for run in runs]
        if len(set(short)) == len(runs):
            return short
    return [run.name for run in runs]


def interval(low: float, high: float, sign: str = "") -> str:
    """`[low, high]` with four digits, fit for rich's markup."""
    return rf"\[{low:{sign}.4f}, {high:{sign}.4f}]"
