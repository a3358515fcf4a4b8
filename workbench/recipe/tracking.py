"""The sections of a recipe that say where a run is shown. No logic, as in the rest of the schema."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workbench.recipe.section import Section


class Wandb(Section):
    """Weights & Biases."""

    project: str
    """Project the run appears in."""
    entity: str | None = None
    """User or team; None: the account's default."""
    group: str | None = None
    """Group in the project's table; None: the recipe's name."""
    tags: list[str] = Field(default_factory=list)
    """Tags of the run."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online where a key is set up and HF_HUB_OFFLINE is not, else offline (send it later with `wandb sync`)."""


class Tracking(Section):
    """Where the run is shown beside its own directory. A tracker that fails never ends a run."""

    wandb: Wandb | None = None
    """Log to Weights & Biases."""
