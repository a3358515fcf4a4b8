"""Intervals of scores and of paired differences. Arrays in, numbers out.

A metric is sum(value * weight) / sum(weight) over items; items of one cluster (a document, a person) are resampled
together. Intervals are bias-corrected and accelerated bootstraps (Efron 1987) over clusters, by scipy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 9_999
_SEED = 20_261_122


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, and how many items and clusters it rests on."""

    value: float
    low: float
    high: float
    items: int
    clusters: int

    def as_words(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean(values: Sequence[float], weights: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """The weighted mean of one run's items.

    Args:
        values, weights, clusters: one entry an item.
    """
    sums, sizes = _by_cluster(values, weights, clusters)
    value = float(sums.sum() / sizes.sum())
    if len(set(values)) == 1 and set(values) <= {0.0, 1.0}:
        # All right or all wrong: a bootstrap would claim certainty. Wilson's interval does not.
        wilson = stats.binomtest(round(value * len(sums)), len(sums)).proportion_ci(method="wilson")
        return Estimate(value, float(wilson.low), float(wilson.high), len(values), len(sums))
    return _bootstrapped(sums, sizes, value, len(values))


def paired_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    weights: Sequence[float],
    clusters: Sequence[str],
    resamples: int = RESAMPLES,
) -> Estimate:
    """The weighted mean of `ours - theirs` over the same items, one entry an item in the same order.

    A single cluster says nothing of how another would have come out: its interval is the whole line.
    """
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    sums, sizes = _by_cluster(differences, weights, clusters)
    value = float(sums.sum() / sizes.sum())
    if len(sums) == 1:
        return Estimate(value, -math.inf, math.inf, len(differences), 1)
    return _bootstrapped(sums, sizes, value, len(differences), resamples)


def _by_cluster(
    values: Sequence[float] | np.ndarray[Any, Any], weights: Sequence[float], clusters: Sequence[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Per cluster: the sum of value * weight, and the sum of weights."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    weighted = np.asarray(weights, dtype=float)
    sums = np.bincount(index, weights=np.asarray(values, dtype=float) * weighted, minlength=len(names))
    return sums, np.bincount(index, weights=weighted, minlength=len(names))


def _bootstrapped(
    sums: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any], value: float, items: int, resamples: int = RESAMPLES
) -> Estimate:
    if len(sums) < 2 or np.allclose(sums / sizes, value, rtol=0, atol=1e-15):
        return Estimate(value, value, value, items, len(sums))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (sums, sizes),
            lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            method="BCa",
            rng=np.random.default_rng(_SEED),
            batch=500,
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    if not (np.isfinite(low) and np.isfinite(high)):
        low = high = value
    return Estimate(value, low, high, items, len(sums))
