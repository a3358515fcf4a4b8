"""What a comparison asks: of a study file, or of runs that somebody names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MARGINS = (("bits_per_byte", 0.01),)
_MARGIN = 0.02


@dataclass(frozen=True)
class Question:
    """Which arms, on what, against which, and what may differ."""

    name: str
    kind: str
    """study or comparison."""
    question: str
    suite: str
    vary: Sequence[str]
    reference: str
    contrasts: Sequence[tuple[str, str]]
    """The declared ones, (arm, against)."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """Task -> the smallest difference that matters."""
    ladder: Sequence[str] = ()
    """Arms that train from scratch on growing amounts."""
    ladder_task: str | None = None
    families: Mapping[str, str] = field(default_factory=dict)
    """Arm -> the family that a grid made it of."""
    missing: Sequence[Mapping[str, Any]] = ()
    """Runs that are not there: arm, seed, state, reason."""
    allow_confounds: bool = False

    def margin(self, task: str, metric: str) -> float:
        """The smallest difference on a task that matters, in the metric's unit."""
        return margin(self.margins, task, metric)


def margin(declared: Mapping[str, float], task: str, metric: str) -> float:
    """The smallest difference that matters: as declared, else 2 points of a share or 0.01 bits per byte."""
    usual = next((value for name, value in _MARGINS if metric.endswith(name)), _MARGIN)
    return declared.get(task, usual)
