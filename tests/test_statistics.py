"""Intervals and tests of plain arrays against scipy, statsmodels, published examples and formulas by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar

from workbench.compare import statistics


def names(number: int) -> list[str]:
    """One cluster an item, in sorted order."""
    return [f"{at:05d}" for at in range(number)]


def plainly(sample: np.ndarray[Any, Any]) -> tuple[float, float]:
    """scipy's BCa interval of a mean, as its documentation calls it."""
    rng = np.random.default_rng(statistics._SEED)
    found = stats.bootstrap((sample,), np.mean, n_resamples=statistics.RESAMPLES, method="BCa", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def test_an_unclustered_mean_has_scipys_interval() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=80)
    found = statistics.mean(values.tolist(), [1.0] * 80, names(80))
    low, high = plainly(values)
    assert found.value == pytest.approx(values.mean())
    # the resamples are drawn in another shape: equal up to the bootstrap's own noise, far below the interval's width
    assert found.low == pytest.approx(low, abs=0.03 * (high - low))
    assert found.high == pytest.approx(high, abs=0.03 * (high - low))
    assert (found.items, found.clusters) == (80, 80)
    assert low < values.mean() < high


def test_clusters_are_resampled_whole() -> None:
    """The half width is 1.96 of the clustered standard error sqrt(sum_c (sum_{i in c} e_i)^2) / n."""
    rng = np.random.default_rng(4)
    groups, size = 150, 6
    values = np.repeat(rng.normal(size=groups), size) + 0.2 * rng.normal(size=groups * size)
    clusters = [f"document {at // size}" for at in range(groups * size)]
    found = statistics.mean(values.tolist(), [1.0] * len(values), clusters)
    residuals = (values - values.mean()).reshape(groups, size).sum(axis=1)
    clustered = math.sqrt(float((residuals**2).sum())) / len(values)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * clustered, rel=0.06)
    assert (found.items, found.clusters) == (groups * size, groups)
    apart = statistics.mean(values.tolist(), [1.0] * len(values), names(len(values)))
    assert (found.high - found.low) > 2 * (apart.high - apart.low)  # taken apart they would claim too much


def test_bits_per_byte_is_a_ratio_of_sums() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(50, 2000, size=90).astype(float)
    bits = sizes * (1.0 + 0.3 * rng.random(90))
    found = statistics.mean((bits / sizes).tolist(), sizes.tolist(), names(90))
    assert found.value == pytest.approx(bits.sum() / sizes.sum())

    def ratio(above: Any, below: Any, axis: int = -1) -> Any:
        return above.sum(axis=axis) / below.sum(axis=axis)

    interval = stats.bootstrap((bits, sizes), ratio, paired=True, rng=np.random.default_rng(9)).confidence_interval
    assert found.low == pytest.approx(interval.low, abs=0.05 * (interval.high - interval.low))
    assert found.high == pytest.approx(interval.high, abs=0.05 * (interval.high - interval.low))


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.088), (1.0, 0.912, 1.0)])
def test_all_wrong_and_all_right_have_wilsons_interval(value: float, low: float, high: float) -> None:
    """0 of 40: the upper end is z^2 / (n + z^2)."""
    found = statistics.mean([value] * 40, [1.0] * 40, names(40))
    edge = 1.959964**2 / (40 + 1.959964**2)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-3)
    assert found.high - found.low == pytest.approx(edge, rel=1e-4)


def test_wilson_counts_clusters_not_items() -> None:
    few = statistics.mean([0.0] * 40, [1.0] * 40, [str(at // 10) for at in range(40)])
    assert few.high == pytest.approx(1.959964**2 / (4 + 1.959964**2), rel=1e-4)


def test_scores_that_are_all_equal_give_an_interval_of_no_width() -> None:
    found = statistics.mean([0.3] * 12, [2.0] * 12, names(12))
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))


def test_the_same_scores_give_the_same_interval_every_time() -> None:
    values = np.random.default_rng(9).random(50).tolist()
    assert statistics.mean(values, [1.0] * 50, names(50)) == statistics.mean(values, [1.0] * 50, names(50))


def test_the_order_of_items_changes_no_mean() -> None:
    rng = np.random.default_rng(8)
    size = 60
    values, weights = rng.random(size), rng.integers(1, 99, size).astype(float)
    clusters = np.array([f"c{at % 17}" for at in range(size)])
    order = rng.permutation(size)
    alone = statistics.mean(values.tolist(), weights.tolist(), clusters.tolist())
    again = statistics.mean(values[order].tolist(), weights[order].tolist(), clusters[order].tolist())
    assert (again.value, again.low, again.high) == pytest.approx((alone.value, alone.low, alone.high), rel=1e-9)


# --- resamples shared by all columns ---------------------------------------------------------------------------------


def test_bca_ends_of_skewed_ratios_are_scipys() -> None:
    rng = np.random.default_rng(10)
    sizes = rng.integers(1, 9, size=70).astype(float)
    sums = sizes * rng.lognormal(sigma=1.2, size=70)
    draws = statistics.resampled_ratios(sums[:, None], sizes, 40_000)[:, 0]
    low, high = statistics.bca_ends(draws, sums, sizes, np.array([0.025, 0.975]))

    def ratio(above: Any, below: Any, axis: int = -1) -> Any:
        return above.sum(axis=axis) / below.sum(axis=axis)

    found = stats.bootstrap((sums, sizes), ratio, paired=True, n_resamples=40_000, rng=np.random.default_rng(11))
    oracle = found.confidence_interval
    width = oracle.high - oracle.low
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.02 * width)
    plain = np.quantile(draws, [0.025, 0.975])
    assert high - plain[1] > 0.04 * width  # the correction for skewness is not lost in that tolerance


def test_the_draws_of_a_difference_are_the_difference_of_the_draws() -> None:
    rng = np.random.default_rng(12)
    sums, sizes = rng.normal(size=(40, 2)), rng.integers(1, 5, size=40).astype(float)
    both = statistics.resampled_ratios(sums, sizes, 500)
    apart = statistics.resampled_ratios((sums[:, 0] - sums[:, 1])[:, None], sizes, 500)
    assert both[:, 0] - both[:, 1] == pytest.approx(apart[:, 0], abs=1e-12)


def test_resamples_of_many_clusters_are_made_in_pieces_of_one_size() -> None:
    clusters = 2 * statistics._CELLS // 1_000
    values = np.random.default_rng(13).normal(size=(clusters, 1))
    draws = statistics.resampled_ratios(values, np.ones(clusters), 1_201)
    assert draws.shape == (1_201, 1)
    assert draws.std() == pytest.approx(values.std() / math.sqrt(clusters), rel=0.1)
    assert len(set(draws[:, 0])) == 1_201
    flipped = statistics.sign_flipped_sums(values, 1_201)
    assert flipped.shape == (1_201, 1)
    assert flipped[0, 0] == pytest.approx(values.sum())
    assert len(set(flipped[:, 0])) == 1_201


def sign_flip(values: Any, resamples: int) -> float:
    found = np.asarray(values, dtype=float)
    return statistics.sign_flip_p(statistics.sign_flipped_sums(found[:, None], resamples)[:, 0], np.abs(found).sum())


def test_fishers_permutation_of_darwins_maize() -> None:
    """Heights of 15 pairs in eighths of an inch; 1,726 of 32,768 flips are as large (Fisher 1935, section 21)."""
    maize = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sign_flip(maize, 2**15) == 1726 / 32768
    assert sign_flip(maize, 10_000) == pytest.approx(1726 / 32768, abs=0.01)


def test_flipping_signs_is_scipys_permutation_test() -> None:
    rng = np.random.default_rng(14)
    ours, theirs = rng.integers(0, 4, size=(2, 12)).astype(float)

    def difference(one: Any, other: Any, axis: int = -1) -> Any:
        return (one - other).mean(axis=axis)

    oracle = stats.permutation_test(
        (ours, theirs), difference, permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert sign_flip(ours - theirs, 5_000) == pytest.approx(oracle.pvalue)


def test_a_permutation_test_of_random_flips_is_never_certain() -> None:
    assert sign_flip(np.ones(50), 1_000) == 1 / 1_000


@pytest.mark.parametrize(
    ("only_ours", "only_theirs", "mid", "exact"),
    [(7, 1, 0.0391, 0.0703), (16, 6, 0.0347, 0.0525), (0, 0, 1.0, 1.0), (3, 3, 1.0, 1.0)],
)
def test_mcnemar_of_published_tables(only_ours: int, only_theirs: int, mid: float, exact: float) -> None:
    """The first two: Fagerland, Lydersen & Laake (2013), tables 1 and 2 (airway response; complete response)."""
    assert statistics.mcnemar_p(only_ours, only_theirs) == pytest.approx((mid, exact), abs=5e-5)
    assert statistics.mcnemar_p(only_theirs, only_ours) == statistics.mcnemar_p(only_ours, only_theirs)


def test_mcnemars_exact_p_is_statsmodels() -> None:
    """Approval of a president in two surveys (Agresti 1990, section 10.1)."""
    oracle = mcnemar([[794, 86], [150, 570]], exact=True).pvalue
    assert statistics.mcnemar_p(150, 86)[1] == pytest.approx(oracle)


def test_the_variance_of_a_mean_is_the_cluster_robust_one_of_least_squares() -> None:
    rng = np.random.default_rng(15)
    groups = rng.integers(0, 30, size=200)
    values = rng.normal(size=30)[groups] + rng.normal(size=200)
    fit = OLS(values, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    sums, sizes = np.bincount(groups, values), np.bincount(groups).astype(float)
    assert math.sqrt(statistics.ratio_variance(sums, sizes)) == pytest.approx(float(fit.bse[0]))


def test_satterthwaites_degrees_are_welchs() -> None:
    rng = np.random.default_rng(16)
    one, other = rng.normal(size=7), 4 * rng.normal(size=12)
    parts = [one.var(ddof=1) / 7, other.var(ddof=1) / 12]
    oracle = stats.ttest_ind(one, other, equal_var=False).df
    assert statistics.satterthwaite(sum(parts), parts, [6, 11]) == pytest.approx(oracle)
    assert statistics.satterthwaite(3.0, [1.0, 2.0], [8, 0]) == pytest.approx(9.0 * 8)
    assert statistics.satterthwaite(0.0, [0.0], [8]) == math.inf


def test_seeds_are_told_from_item_noise() -> None:
    """400 arms of 4 seeds whose means have standard deviation 0.2, each item with noise of its own besides."""
    rng = np.random.default_rng(17)
    spreads = [
        statistics.seed_spread(0.2 * rng.normal(size=(4, 1)) + rng.normal(size=(4, 50)), np.ones(50))
        for _ in range(400)
    ]
    together = statistics.pooled(spreads)
    assert together.degrees == 1_200
    assert together.noise == pytest.approx(1 / 50, rel=0.03)
    assert together.variance == pytest.approx(0.04, rel=0.12)
    assert statistics.seed_spread(np.ones((1, 50)), np.ones(50)).degrees == 0
    assert statistics.pooled([]).variance == 0


def test_an_arm_that_scatters_as_the_others_do_is_told_apart_once_in_a_hundred_times() -> None:
    rng = np.random.default_rng(18)
    other = statistics.SeedSpread(1.0, 0.0, 20)
    drawn = [statistics.SeedSpread(square / 2, 0.0, 2) for square in rng.chisquare(2, size=4_000)]
    estimated = [statistics.SeedSpread(square / 20, 0.0, 20) for square in rng.chisquare(20, size=4_000)]
    told = [statistics.scatters_more(one, [rest]) for one, rest in zip(drawn, estimated, strict=True)]
    assert 0.005 < np.mean(told) < 0.015
    assert statistics.scatters_more(statistics.SeedSpread(9.0, 0.0, 2), [other])
    assert not statistics.scatters_more(statistics.SeedSpread(9.0, 0.0, 0), [other])
