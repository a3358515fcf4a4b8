"""The protocol of a tracker, the one that does nothing, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from workbench.recipe.resolved import Resolved
from workbench.runs.run import Run


class Tracker(Protocol):
    """Takes what a run records. Its methods do not raise."""

    def log(self, row: dict[str, Any]) -> None:
        """One metrics row of a step."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The final numbers; the run is over."""


class NullTracker:
    """Shows nothing."""

    def log(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Nothing."""


def tracker_for(run: Run, resolved: Resolved, say: Callable[[str], None]) -> Tracker:
    """The tracker that the recipe asks for."""
    if resolved.recipe.tracking.wandb is None:
        return NullTracker()
    from workbench.tracking.wandb import WandbTracker  # wandb takes a second to import; most runs do without

    return WandbTracker(run, resolved, resolved.recipe.tracking.wandb, say)
