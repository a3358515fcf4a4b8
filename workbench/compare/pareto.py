"""Which arms are worth their cost: an arm leaves the front only when another is proved to dominate it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

SINGLE_RUN_RATIO = 1.5
"""How far two costs must lie apart when one of them was measured once: the same run on the same machine takes some ten
per cent more or less, and a changed software stack alone has moved it by 1.7 times, so one timing says little."""

COST_MARGIN = 1.05
"""A measured cost counts as not worse when it is proved to lie less than 5 % above the other: no two timings are ever
equal, and without a margin nothing could be shown to take as long as something else."""

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cost:
    """A cost for which a front is made."""

    name: str
    """Its key in an arm's costs."""
    label: str
    unit: str
    measured: bool
    """Whether it is clocked; if not, it is counted exactly (and may still differ by the rows that a seed reaches)."""


COSTS = (
    Cost("trainable_parameters", "trainable parameters", "parameters", measured=False),
    Cost("adapter_bytes", "size of the adapter", "bytes", measured=False),
    Cost("training_flops", "training compute", "FLOPs", measured=False),
    Cost("device_seconds", "device time", "s", measured=True),
    Cost("joules", "energy", "J", measured=True),
    Cost("usd", "money", "$", measured=True),
    Cost("peak_memory_bytes", "peak memory", "bytes", measured=True),
)


@dataclass(frozen=True)
class Point:
    """One arm and what it costs."""

    arm: str
    cost: float
    """The mean over seeds; not negative."""
    per_seed: Sequence[float] | None = None
    """One measurement a seed; None where the cost is exact."""


@dataclass(frozen=True)
class Front:
    """The arms that nothing is proved to dominate, cheapest first, and for each other arm one that dominates it."""

    front: list[str]
    off: dict[str, str]


def front(
    points: Sequence[Point],
    proved_better: Callable[[str, str], bool],
    proved_not_worse: Callable[[str, str], bool],
) -> Front:
    """The front of quality against one cost.

    An arm is off it when another one is proved not worse in both and proved better in at least one. Arms that dominate
    each other within the margins cannot all go: the dearest is looked at first and only an arm that is still on the
    front pushes another off it, so the cheapest of them stays and a front is never empty.

    Args:
        points: one an arm.
        proved_better, proved_not_worse: of two arms' names, whether the first one's quality is proved to be so.
    """
    staying = sorted(points, key=lambda point: point.cost)
    off: dict[str, str] = {}
    for point in reversed(staying.copy()):
        for other in staying:
            if other is not point and _dominates(other, point, proved_better, proved_not_worse):
                off[point.arm] = other.arm
                staying.remove(point)
                break
    return Front([point.arm for point in staying], off)


def proved_cheaper(one: Point, other: Point) -> bool:
    """Whether the first costs less: exact costs by their order, measured ones by the whole of the 95 % interval."""
    return _highest_log_ratio(one, other) < 0


def proved_not_dearer(one: Point, other: Point) -> bool:
    """Whether the first costs no more: exact costs by their order, measured ones up to `COST_MARGIN`."""
    measured = one.per_seed is not None or other.per_seed is not None
    return _highest_log_ratio(one, other) <= (math.log(COST_MARGIN) if measured else 0)


def _dominates(
    one: Point,
    other: Point,
    proved_better: Callable[[str, str], bool],
    proved_not_worse: Callable[[str, str], bool],
) -> bool:
    better = proved_better(one.arm, other.arm)
    if not (better or proved_not_worse(one.arm, other.arm)):
        return False
    return proved_cheaper(one, other) or (better and proved_not_dearer(one, other))


def _highest_log_ratio(one: Point, other: Point) -> float:
    """The upper end of the 95 % interval of log(cost of one / cost of other).

    Welch's interval (1947) of a difference of means, on logs because timings scatter by a factor; an exact cost has no
    variance of its own.
    """
    if one.cost <= 0 or other.cost <= 0:
        # Nothing spent is less than anything spent, however that was measured.
        return 0.0 if one.cost == other.cost else math.copysign(math.inf, one.cost - other.cost)
    means, variances, freedoms = [], [], []
    for point in (one, other):
        logs = np.log(np.asarray([point.cost] if point.per_seed is None else point.per_seed, dtype=float))
        means.append(float(logs.mean()))
        if len(logs) > 1:
            variances.append(float(logs.var(ddof=1)) / len(logs))
            freedoms.append(len(logs) - 1)
        elif point.per_seed is not None:
            return math.log(one.cost / other.cost) + math.log(SINGLE_RUN_RATIO)
    difference, variance = means[0] - means[1], sum(variances)
    if variance == 0:
        return difference
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in zip(variances, freedoms, strict=True))
    return difference + float(stats.t.ppf((1 + _CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
