"""The fields of a study file (`recipes/studies/NAME.yaml`). No logic: only fields, their limits and what they mean."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from workbench.recipe.section import Section


class Arm(Section):
    """One recipe inside a study, over its seeds; with `grid` or `each`, a family of arms. An arm written as one word is
    short for `{recipe: word}`."""

    recipe: str
    """The recipe file, relative to the study."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Fields laid over the recipe: `{method.rank: 8}`."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Field -> values: one arm for every combination."""
    each: list[dict[str, Any]] = Field(default_factory=list)
    """Fields that change together: one arm for every entry (`[{data.fraction: 0.1, training.steps: 50}, ...]`)."""


class Study(Section):
    """Arms x seeds x one suite, what is allowed to differ, and the question; it ends in a verdict for each pair."""

    name: Annotated[str, Field(pattern=r"^[\w][\w.+=-]*$")] | None = None
    """What the study is called, also as a folder. None: the file's name."""
    question: str
    """What the study is to answer, for a reader."""
    arms: Annotated[dict[Annotated[str, Field(pattern=r"^[\w][\w.+=-]*$")], Arm], Field(min_length=1)]
    """The arms by name."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)] = Field(
        default_factory=lambda: [0, 1, 2]
    )
    """Seeds of every arm. One gives `suggestive` at most, and two tell little of how much seeds matter: take three."""
    suite: str
    """What all arms are scored on: a suite's name, or a path relative to the study."""
    vary: list[str]
    """Fields that are meant to differ between arms (`method`, `method.rank`, `base.init`, `data.fraction`), with what
    follows from them. Whatever else differs is a confound."""
    reference: str | None = None
    """The arm that the others are held against. None: the first."""
    contrasts: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = None
    """The declared contrasts, `[arm, against]` each; they share one error rate (Holm). None: every arm but those of the
    ladder against the reference. All other pairs are exploratory."""
    margins: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Task -> the smallest difference that matters, in the metric's unit. Default: 0.02 for shares of items, 0.01 for
    bits per byte."""
    ladder: list[str] = Field(default_factory=list)
    """Arms that train from scratch on growing amounts of data and compute; the other trained arms are weighed against
    the curve through them."""
    ladder_task: str | None = None
    """The task (lower is better) that the ladder is read on. None: the suite's first such task."""
