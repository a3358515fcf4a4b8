"""Every error a user can meet, and the exit statuses.

::

    WorkbenchError            exit 1   something of ours went wrong
    +-- UserError             exit 2   the user can mend it; one or more Problems
    |   +-- RecipeError                recipe, study or suite file, or a --set
    |   +-- DataError                  rows, files, cards
    |   +-- BaseError                  a base that cannot be loaded or is not what it was
    |   |   `-- ShapeError               a config.json that cannot be counted without building the model
    |   +-- MethodError                targets, adapters, proofs
    |   +-- TrainingError              a loss that is not finite, a step that failed
    |   +-- RunError                   run directories: missing, locked, unwritable
    |   +-- TrackingError              a tracker's library that failed
    |   `-- EvaluationError            suites and items
    +-- StoppedError              exit 75  stopped from outside; the same command continues
    +-- LostError                 exit 76  another process of the same run is gone
    `-- ComparisonRefusedError     exit 3   the runs cannot be compared (or no verdict where one was demanded)

    KeyboardInterrupt             exit 130 Ctrl-C
    `-- StopSignal                exit 75  the same from a scheduler, at a moment where nothing is kept aside
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitStatus(IntEnum):
    """What the process says when it ends."""

    DONE = 0
    """Done, or it was already finished."""
    INTERNAL = 1
    """A defect of ours: a traceback is shown, please report it."""
    USER = 2
    """Something to mend in the recipe, the data, the machine or the command line."""
    REFUSED = 3
    """A comparison was refused, or was inconclusive where a verdict was demanded."""
    PREEMPTED = 75
    """Stopped from outside and resumable: the same command continues."""
    LOST = 76
    """Of one process among several: another one is gone. Never of a whole run, which ends as that one did."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C: the same command continues."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, what was found there, what to do about it."""

    where: str
    found: str
    do: str = ""

    def __str__(self) -> str:
        advice = f"\n    {self.do}" if self.do else ""
        return f"{self.where}: {self.found}{advice}"


class WorkbenchError(Exception):
    """The root: everything that is raised on purpose."""

    exit_status = ExitStatus.INTERNAL


class UserError(WorkbenchError):
    """One or more problems that the user can mend, all listed at once, and each once."""

    exit_status = ExitStatus.USER

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        found = (problems,) if isinstance(problems, Problem) else problems
        self.problems: tuple[Problem, ...] = tuple(dict.fromkeys(found))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(UserError):
    """A recipe, study or suite file (or a --set) that cannot be accepted."""


class DataError(UserError):
    """Rows, data files or dataset cards."""


class BaseError(UserError):
    """A base that cannot be loaded, or that is not what it was."""


class ShapeError(BaseError):
    """A config.json of a type that the planner does not know, or without a number that it needs."""


class MethodError(UserError):
    """Targets that match nothing, adapters that do not fit, proofs that fail."""


class TrainingError(UserError):
    """A step that cannot be taken: a loss that is not finite, memory that is not there."""


class RunError(UserError):
    """A run directory that is missing, locked, damaged or unwritable."""


class TrackingError(UserError):
    """A tracker's library that failed."""


class EvaluationError(UserError):
    """A suite or its items."""


class StoppedError(WorkbenchError):
    """Stopped from outside, with everything kept: the same command continues."""

    exit_status = ExitStatus.PREEMPTED


class StopSignal(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 at any moment of a bench process but a training step, which is finished first. No library may
    take it for a failure."""

    exit_status = ExitStatus.PREEMPTED


class LostError(WorkbenchError):
    """Another process of the same run is gone; the launcher says which and why."""

    exit_status = ExitStatus.LOST


class ComparisonRefusedError(WorkbenchError):
    """The runs cannot be compared; says why."""

    exit_status = ExitStatus.REFUSED
