"""A recipe with every name looked up and every default written out: what a run directory keeps as resolved.json."""

from __future__ import annotations

from typing import Literal

from workbench.catalog.cards import Card, Row
from workbench.catalog.suites import Suite
from workbench.catalog.targets import TargetRow
from workbench.recipe.schema import Recipe


class ResolvedBase(Row):
    """Where the base is."""

    kind: Literal["hub", "directory"]
    """A hub repository, or a directory on this machine."""
    location: str
    """The repository's id, or the absolute path."""
    revision: str | None
    """Commit, tag or branch of the repository."""
    row: str | None
    """Its name in the catalog (or `embedded`), where it has one."""
    licence: str
    """Licence id of the catalog, or `unknown`."""
    pretraining_flops: float | None = None
    """Operations that its own pretraining took; None where that is not published."""


class ResolvedCard(Row):
    """A dataset card and the folder its paths start from."""

    name: str
    folder: str
    card: Card


class ResolvedSuite(Row):
    """A suite, the folder its paths start from, and the cards its tasks name."""

    name: str
    """What its scores are filed under: the file's name, with `-Nshot` where the recipe says how many examples."""
    file: str | None = None
    """The file's name, without its ending, where that is another one."""
    folder: str
    suite: Suite
    cards: dict[str, ResolvedCard]


class Resolved(Row):
    """Everything that one run needs to know; reading it again gives the same."""

    recipe: Recipe
    """The recipe with every default that depends on something written out."""
    base: ResolvedBase
    data: ResolvedCard
    suite: ResolvedSuite | None
    target: TargetRow
    dtype: Literal["fp32", "fp16", "bf16"]
    """What `training.precision` became on this target."""

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.recipe.name or "run"

    @property
    def trains(self) -> bool:
        """False where the base is only scored."""
        return self.recipe.method.name != "none"
