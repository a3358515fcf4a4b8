"""Families of tests, the words of a verdict, and tiers in the place of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from workbench.compare.outcomes import Contrast

Word = Literal["better", "worse", "equivalent", "inconclusive"]

ALPHA = 0.05


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: the chance of any false finding in the family stays below what they are
    held against, however the tests depend on each other (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(order))
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """q-values, in the order given: the expected share of false findings among the findings (1995)."""
    return [float(value) for value in stats.false_discovery_control(p, method="bh")] if p else []


def word(contrast: Contrast, p_adjusted: float, margin: float, higher_is_better: bool) -> Word:
    """What may be said of an arm against another.

    A proven difference comes first, also where it is proven to be smaller than the margin: that it matters is not
    claimed by the word, and the interval stands beside it. Equivalence is two one-sided tests at 5 % (Schuirmann
    1987), the 90 % interval within the margin.

    Args:
        p_adjusted: the contrast's p, adjusted for its family.
        margin: the largest difference that does not matter, in the metric's unit.
    """
    if p_adjusted < ALPHA and (contrast.low > 0 or contrast.high < 0):
        return "better" if (contrast.low > 0) == higher_is_better else "worse"
    if -margin < contrast.low90 and contrast.high90 < margin:
        return "equivalent"
    return "inconclusive"


def tiers(arms: Sequence[str], proved_worse: Callable[[str, str], bool]) -> list[list[str]]:
    """Arms from the best value down, in groups: the first with all that are not proved worse than it, then again.

    Args:
        proved_worse: whether an arm is proved worse than the leader of a group.
    """
    groups = []
    rest = list(arms)
    while rest:
        leader = rest[0]
        groups.append([leader, *(arm for arm in rest[1:] if not proved_worse(arm, leader))])
        rest = [arm for arm in rest[1:] if proved_worse(arm, leader)]
    return groups
