"""Intervals of scores, resamples and p-values. Arrays in, numbers out.

A metric is sum(value * weight) / sum(weight) over items; items of one cluster (a document, a person) are resampled
together. Bootstrap intervals are bias-corrected and accelerated (Efron 1987) over clusters. Resamples are shared by
all columns that are passed together: what they give is linear in the sums, so that the draws of a difference are the
difference of the draws, and any number of pairs costs one matrix product.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Array = npt.NDArray[np.float64]

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


def _by_cluster(values: Sequence[float], weights: Sequence[float], clusters: Sequence[str]) -> tuple[Array, Array]:
    """Per cluster: the sum of value * weight, and the sum of weights."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    weighted = np.asarray(weights, dtype=float)
    sums = np.bincount(index, weights=np.asarray(values, dtype=float) * weighted, minlength=len(names))
    return sums.astype(float), np.bincount(index, weights=weighted, minlength=len(names)).astype(float)


def _bootstrapped(sums: Array, sizes: Array, value: float, items: int) -> Estimate:
    if len(sums) < 2 or np.allclose(sums / sizes, value, rtol=0, atol=1e-15):
        return Estimate(value, value, value, items, len(sums))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (sums, sizes),
            lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(_SEED),
            batch=500,
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    if not (np.isfinite(low) and np.isfinite(high)):
        low = high = value
    return Estimate(value, low, high, items, len(sums))


_CELLS = 2_000_000
"""Entries of a matrix of resamples that stands in memory at one time (16 MB)."""


def resampled_ratios(sums: Array, sizes: Array, resamples: int) -> Array:
    """Bootstrap draws of sums / sizes, clusters drawn with replacement, the same ones for every column.

    Args:
        sums: (clusters, columns), per cluster the sum of value * weight.
        sizes: (clusters,), the sum of weights.

    Returns:
        (resamples, columns)
    """
    rng = np.random.default_rng(_SEED)
    clusters = len(sizes)
    parts = []
    for rows in _batches(resamples, clusters):
        drawn = rng.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(float)
        parts.append(counts @ sums / (counts @ sizes)[:, None])
    return np.concatenate(parts)


def sign_flipped_sums(sums: Array, resamples: int) -> Array:
    """Column sums after the sign of every cluster was flipped or not, the same flips for every column.

    The first row flips nothing. All 2 ** clusters flips are taken once each where that is no more than `resamples`.

    Args:
        sums: (clusters, columns)

    Returns:
        (flips, columns)
    """
    clusters = len(sums)
    if 2**clusters <= resamples:
        every = (np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1
        return np.asarray((1.0 - 2.0 * every) @ sums)
    rng = np.random.default_rng(_SEED)
    flips = (
        1.0 - 2.0 * rng.integers(2, size=(rows, clusters), dtype=np.int8) for rows in _batches(resamples - 1, clusters)
    )
    return np.concatenate([sums.sum(axis=0, keepdims=True), *(signs @ sums for signs in flips)])


def _batches(resamples: int, clusters: int) -> list[int]:
    rows = max(1, _CELLS // clusters)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]


def sign_flip_p(flipped: Array, scale: float) -> float:
    """Two-sided p of a cluster sign-flip permutation test (Fisher 1935), the identity counted among the flips.

    Args:
        flipped: (flips,), the sum after each flip; the first is the one observed.
        scale: size of the terms of the sum; sums that differ by its rounding error are ties.
    """
    size = np.abs(flipped)
    return float(np.mean(size >= size[0] - 1e-10 * scale))


def mcnemar_p(only_ours: int, only_theirs: int) -> tuple[float, float]:
    """Mid-p and exact p of McNemar's test on items that one of two got right (Fagerland, Lydersen & Laake 2013)."""
    pairs = only_ours + only_theirs
    if pairs == 0:
        return 1.0, 1.0
    fewer = min(only_ours, only_theirs)
    exact = min(1.0, 2 * float(stats.binom.cdf(fewer, pairs, 0.5)))
    return 2 * float(stats.binom.cdf(fewer, pairs, 0.5)) - float(stats.binom.pmf(fewer, pairs, 0.5)), exact


def bca_ends(draws: Array, sums: Array, sizes: Array, levels: Array) -> Array:
    """Ends of a bias-corrected and accelerated bootstrap interval of sums / sizes (Efron 1987).

    The acceleration is that of the jackknife over clusters.

    Args:
        draws: (resamples,) of `resampled_ratios`.
        sums, sizes: (clusters,), not all of one ratio.
        levels: the normal probabilities of the wanted ends, such as 0.025 and 0.975.
    """
    value = sums.sum() / sizes.sum()
    tie = 1e-10 * float(np.ptp(draws))
    below = (np.mean(draws < value - tie) + np.mean(draws <= value + tie)) / 2
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    deviations = left_out.mean() - left_out
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    bias = special.ndtri(below)
    shifted = bias + special.ndtri(levels)
    return np.asarray(np.quantile(draws, special.ndtr(bias + shifted / (1 - acceleration * shifted))))


def unseen_ends(value: float, reach: float, clusters: int, levels: Array) -> Array:
    """Ends of an interval where all clusters showed the same `value`: another one may differ by `reach`.

    Wilson's bound z^2 / (clusters + z^2) on the share of clusters that do, none having been seen.
    """
    z = special.ndtri(levels)
    return np.asarray(np.clip(value + np.sign(z) * z**2 / (clusters + z**2) * reach, -reach, reach))


def ratio_variance(sums: Array, sizes: Array) -> float:
    """Variance of sum(sums) / sum(sizes) over resampled clusters (the cluster-robust sandwich); infinite for one.

    Args:
        sums: (..., clusters); variances over leading axes are added up.
        sizes: (clusters,)
    """
    clusters = len(sizes)
    if clusters < 2:
        return math.inf
    residuals = sums - sizes * (sums.sum(axis=-1, keepdims=True) / sizes.sum())
    return float((residuals**2).sum()) / float(sizes.sum()) ** 2 * clusters / (clusters - 1)


def satterthwaite(variance: float, parts: Sequence[float], degrees: Sequence[float]) -> float:
    """Degrees of freedom of a variance that was put together from several (Satterthwaite 1946).

    Args:
        parts: the estimates that it is put together from, each drawn from a chi-square.
        degrees: of each; zero for one that is assumed instead of estimated.

    Returns:
        infinity where nothing was estimated
    """
    doubt = sum(part**2 / known for part, known in zip(parts, degrees, strict=True) if known > 0)
    return variance**2 / doubt if doubt > 0 else math.inf


@dataclass(frozen=True)
class SeedSpread:
    """How the means of runs that differ in their seed scatter: of one arm, or pooled over arms."""

    mean_square: float
    """Their variance as found."""
    noise: float
    """What item-by-seed noise adds to it."""
    degrees: int
    """Of freedom; zero where nothing is known of it."""

    @property
    def variance(self) -> float:
        """Between seeds, item noise taken out (analysis of variance)."""
        return max(0.0, self.mean_square - self.noise)


def seed_spread(sums: Array, sizes: Array) -> SeedSpread:
    """Of one arm's seeds.

    Args:
        sums: (seeds, clusters)
        sizes: (clusters,)
    """
    degrees = len(sums) - 1
    if degrees == 0 or len(sizes) == 1:
        return SeedSpread(0.0, 0.0, 0)
    noise = ratio_variance(sums - sums.mean(axis=0), sizes) / degrees
    return SeedSpread(float((sums.sum(axis=1) / sizes.sum()).var(ddof=1)), noise, degrees)


def pooled(spreads: Sequence[SeedSpread]) -> SeedSpread:
    """One for all arms, weighted by degrees of freedom."""
    degrees = sum(one.degrees for one in spreads)
    weights = [one.degrees / max(degrees, 1) for one in spreads]
    return SeedSpread(
        sum(weight * one.mean_square for weight, one in zip(weights, spreads, strict=True)),
        sum(weight * one.noise for weight, one in zip(weights, spreads, strict=True)),
        degrees,
    )


def scatters_more(own: SeedSpread, others: Sequence[SeedSpread]) -> bool:
    """Whether one arm's seeds scatter more than the others' do: an F-test at 1 %."""
    rest = pooled(others)
    if own.degrees == 0 or rest.degrees == 0:
        return False
    return bool(own.mean_square > stats.f.isf(0.01, own.degrees, rest.degrees) * rest.mean_square)
