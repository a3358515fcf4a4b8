"""Scores and contrasts of a task against scipy, statsmodels, a published example and cases whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from workbench.compare import power, statistics
from workbench.compare.contrasts import TaskScores
from workbench.compare.statistics import Array


def names(number: int) -> list[str]:
    """One cluster an item, in sorted order."""
    return [f"{at:05d}" for at in range(number)]


def task(values: Mapping[str, Any], **more: Any) -> TaskScores:
    """Items of one weight, each on its own."""
    rows = {arm: np.atleast_2d(np.asarray(found, dtype=float)) for arm, found in values.items()}
    size = next(iter(rows.values())).shape[1]
    return TaskScores(rows, **{"weights": np.ones(size), "clusters": names(size), **more})


def runs(rng: np.random.Generator, seeds: int, items: Array, seed_sd: float, noise_sd: float) -> Array:
    """(seeds, items) of one arm."""
    return items + seed_sd * rng.normal(size=(seeds, 1)) + noise_sd * rng.normal(size=(seeds, len(items)))


# --- one run each ----------------------------------------------------------------------------------------------------


def test_students_sleep_data() -> None:
    """t = -4.0621 with 9 degrees of freedom and the interval -2.4599 to -0.7001 (Student 1908; R's `sleep`).

    No difference is negative and one is zero, so that 4 of the 1,024 flips of signs are as large.
    """
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = task({"first": first, "second": second}).contrast("first", "second")
    assert found.difference / found.standard_error == pytest.approx(-4.0621, abs=5e-5)
    assert found.degrees_of_freedom == pytest.approx(9)
    assert found.p == 4 / 1024
    assert found.p_method == "sign-flip"
    skewed = stats.bootstrap(
        (np.subtract(first, second),), np.mean, n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low == pytest.approx(min(-2.4599, skewed.low), abs=0.06)
    assert found.high == pytest.approx(max(-0.7001, skewed.high), abs=5e-5)


def test_one_run_each_has_the_wider_of_scipys_bootstrap_and_t_intervals() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.normal(size=120)
    differences = 0.1 + 0.3 * rng.lognormal(size=120)
    found = task({"ours": theirs + differences, "theirs": theirs}).contrast("ours", "theirs")
    by_t = stats.ttest_1samp(differences, 0.0).confidence_interval()
    drawn = stats.bootstrap((differences,), np.mean, n_resamples=20_000, rng=np.random.default_rng(3))
    skewed = drawn.confidence_interval
    assert skewed.low > by_t.low and skewed.high > by_t.high
    assert found.difference == pytest.approx(differences.mean())
    assert found.low == pytest.approx(by_t.low)
    assert found.high == pytest.approx(skewed.high, abs=0.03 * (skewed.high - skewed.low))
    assert found.low < found.low90 < found.difference < found.high90 < found.high
    assert found.single_seed


def test_right_and_wrong_answers_of_one_run_each_are_mcnemars() -> None:
    """16 items only one arm got right and 6 only the other: mid-p 0.0347, exact 0.0525 (Fagerland et al. 2013)."""
    ours, theirs = [1.0] * 16 + [0.0] * 6 + [1.0] * 59 + [0.0] * 80, [0.0] * 16 + [1.0] * 6 + [1.0] * 59 + [0.0] * 80
    found = task({"ours": ours, "theirs": theirs}).contrast("ours", "theirs")
    assert found.p_method == "mcnemar-mid-p"
    assert (found.p, found.p_exact) == pytest.approx((0.0347, 0.0525), abs=5e-5)
    assert found.difference == pytest.approx(10 / 161)


@pytest.mark.parametrize(
    "more", [{"clusters": [f"c{at // 2}" for at in range(160)]}, {"weights": np.repeat([1.0, 2.0], 80)}]
)
def test_mcnemars_test_is_kept_to_items_that_stand_alone_and_count_alike(more: dict[str, Any]) -> None:
    ours, theirs = np.random.default_rng(4).integers(0, 2, size=(2, 160))
    found = task({"ours": ours, "theirs": theirs}, **more).contrast("ours", "theirs")
    assert (found.p_method, found.p_exact) == ("sign-flip", None)


def test_clusters_are_resampled_and_flipped_whole() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(40), 6)
    theirs = rng.normal(size=240)
    ours = theirs + 0.2 + 0.5 * rng.normal(size=40)[groups] + 0.1 * rng.normal(size=240)
    together = task({"ours": ours, "theirs": theirs}, clusters=[f"d{at:02d}" for at in groups])
    found = together.contrast("ours", "theirs")
    fit = OLS(ours - theirs, np.ones(240)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert found.standard_error == pytest.approx(float(fit.bse[0]))
    assert (found.num_items, found.num_clusters) == (240, 40)
    assert found.degrees_of_freedom == pytest.approx(39)
    apart = task({"ours": ours, "theirs": theirs}).contrast("ours", "theirs")
    assert apart.standard_error < 0.5 * found.standard_error  # taken apart they would claim too much
    assert apart.p < found.p


def test_pairing_takes_the_items_difficulty_out() -> None:
    rng = np.random.default_rng(6)
    hard = rng.normal(scale=5.0, size=100)
    scores = task({"ours": hard + 0.5 + 0.1 * rng.normal(size=100), "theirs": hard})
    found, alone = scores.contrast("ours", "theirs"), scores.score("ours").estimate
    assert found.low > 0
    assert found.high - found.low < 0.05 * (alone.high - alone.low)


def test_a_weighted_difference_is_the_difference_of_the_weighted_means() -> None:
    rng = np.random.default_rng(7)
    ours, theirs = rng.random((3, 40)), rng.random((2, 40))
    weights = rng.integers(1, 900, size=40).astype(float)
    scores = task({"ours": ours, "theirs": theirs}, weights=weights)
    expected = np.average(ours, axis=1, weights=weights).mean() - np.average(theirs, axis=1, weights=weights).mean()
    assert scores.contrast("ours", "theirs").difference == pytest.approx(expected)
    assert scores.score("ours").per_seed == pytest.approx(np.average(ours, axis=1, weights=weights).tolist())


# --- several seeds ---------------------------------------------------------------------------------------------------


def test_seeds_that_scatter_widen_the_interval_and_raise_p() -> None:
    """Items alone would prove a difference between two arms that three seeds each cannot tell apart."""
    rng = np.random.default_rng(8)
    hard = rng.normal(size=300)
    ours = hard + np.array([[0.4], [0.0], [-0.1]]) + 0.05 * rng.normal(size=(3, 300))
    theirs = hard + np.array([[0.2], [-0.3], [-0.2]]) + 0.05 * rng.normal(size=(3, 300))
    found = task({"ours": ours, "theirs": theirs}).contrast("ours", "theirs")
    assert found.difference > 20 * math.sqrt(found.items_variance)
    assert found.low < 0 < found.high
    assert found.p_method == "t"
    classic = stats.ttest_ind(ours.mean(axis=1), theirs.mean(axis=1))  # where items add nothing it is Student's
    assert found.p == pytest.approx(classic.pvalue, rel=0.02)
    assert found.degrees_of_freedom == pytest.approx(4, rel=0.02)
    assert (found.low, found.high) == pytest.approx(tuple(classic.confidence_interval()), rel=0.03)
    assert not found.single_seed


def test_item_by_seed_noise_is_counted_once() -> None:
    """The plain product bootstrap would give three times this variance."""
    rng = np.random.default_rng(9)
    arms = {f"arm {at}": rng.normal(size=(5, 400)) for at in range(20)}
    found = task(arms, resamples=2_000).contrast("arm 0", "arm 1")
    assert found.standard_error**2 == pytest.approx(2 / 5 / 400, rel=0.2)
    assert found.design.noise_variance == pytest.approx(1.0, rel=0.05)
    assert found.design.items_variance == pytest.approx(found.items_variance)
    assert found.design.seeds_variance == pytest.approx(found.seeds_variance)


def test_draws_hold_the_items_and_the_seeds_variance() -> None:
    rng = np.random.default_rng(10)
    arms = {f"arm {at}": runs(rng, 4, rng.normal(size=200), 0.1, 0.5) for at in range(6)}
    scores = task(arms)
    draws = scores.draws("arm 0")
    assert draws.shape == (10_000,)
    found = scores.contrast("arm 0", "arm 1")
    assert np.var(draws - scores.draws("arm 1")) == pytest.approx(found.items_variance + found.seeds_variance, rel=0.05)
    assert found.seeds_variance == pytest.approx(2 * 0.1**2 / 4, rel=0.4)
    assert draws.mean() == pytest.approx(scores.score("arm 0").estimate.value, abs=3 * draws.std() / 100)


def test_one_seed_is_as_unsure_as_the_other_arms_seeds_scatter() -> None:
    rng = np.random.default_rng(11)
    arms = {f"arm {at}": runs(rng, 4, np.zeros(200), 0.3, 0.1) for at in range(4)}
    lonely = {"one": runs(rng, 1, np.zeros(200), 0.3, 0.1), "other": runs(rng, 1, np.zeros(200), 0.3, 0.1)}
    found = task({**arms, **lonely}).contrast("one", "other")
    alone = task(lonely).contrast("one", "other")
    assert found.single_seed
    assert found.seeds_variance == pytest.approx(2 * 0.3**2, rel=0.6)
    assert found.high - found.low > 10 * (alone.high - alone.low)
    assert task({**arms, **lonely}).score("one").seed_sd is None


def test_an_arm_that_no_seed_changes_adds_no_variance_of_seeds() -> None:
    rng = np.random.default_rng(12)
    arms = {"base": np.zeros((1, 200)), "few-shot": 0.1 * rng.normal(size=(1, 200))}
    arms |= {"lora": runs(rng, 3, np.zeros(200), 0.3, 0.1)}
    scores = task(arms, fixed=frozenset({"base", "few-shot"}))
    against_base = scores.contrast("lora", "base")
    variance = scores.score("lora").seed_sd
    assert variance is not None
    assert against_base.seeds_variance == pytest.approx(variance**2 / 3)
    assert not against_base.single_seed
    between_fixed = scores.contrast("few-shot", "base")
    assert between_fixed.seeds_variance == 0
    assert not between_fixed.single_seed


def test_an_arm_that_scatters_much_more_keeps_its_own_variance() -> None:
    rng = np.random.default_rng(13)
    arms = {f"arm {at}": runs(rng, 5, np.zeros(200), 0.1, 0.1) for at in range(8)}
    arms["wild"] = runs(rng, 5, np.zeros(200), 1.5, 0.1)
    scores = task(arms)
    wild, calm = scores.contrast("wild", "arm 0"), scores.contrast("arm 1", "arm 0")
    own = scores.score("wild").seed_sd
    assert own is not None
    assert wild.seeds_variance == pytest.approx(own**2 / 5 + calm.seeds_variance / 2)
    assert wild.degrees_of_freedom < 6
    assert calm.degrees_of_freedom > 30


# --- what is certain, and what is not --------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_runs_of_graded_items_differ_by_exactly_nothing(seeds: int) -> None:
    rng = np.random.default_rng(14)
    values = rng.random((seeds, 30))
    found = task({"once": values, "again": values, "third": rng.random((3, 30))}).contrast("once", "again")
    assert (found.difference, found.low, found.high, found.low90, found.high90) == (0.0, 0.0, 0.0, 0.0, 0.0)
    assert found.p == 1


def test_equal_right_and_wrong_answers_prove_as_much_as_there_are_items() -> None:
    """None of n seen to differ: Wilson's bound z^2 / (n + z^2)."""
    values = np.array([[1.0, 0.0, 1.0, 1.0, 0.0]])
    few = task({"once": values, "again": values}).contrast("once", "again")
    assert (few.difference, few.p) == (0.0, 1.0)
    assert (-few.low, few.high) == pytest.approx([1.959964**2 / (5 + 1.959964**2)] * 2)
    many = task({"once": np.tile(values, 200), "again": np.tile(values, 200)}).contrast("once", "again")
    assert many.high == pytest.approx(1.959964**2 / (1000 + 1.959964**2))
    assert few.high90 < few.high
    assert power.smallest_difference(few.design) > 0.4
    assert 50 < (power.items_needed(0.02, many.design) or 0) < 1000 < (power.items_needed(0.02, few.design) or 0)


@pytest.mark.parametrize("seeds", [1, 3])
def test_all_right_against_all_wrong_is_not_certain(seeds: int) -> None:
    found = task({"right": np.ones((seeds, 40)), "wrong": np.zeros((seeds, 40))}).contrast("right", "wrong")
    assert (found.difference, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(40 / (40 + 1.959964**2))
    assert found.p < 0.001


def test_the_same_difference_everywhere_is_not_certain() -> None:
    values = np.random.default_rng(15).random(20)
    found = task({"ours": values + 0.25, "theirs": values}).contrast("ours", "theirs")
    assert (found.difference, found.high) == pytest.approx((0.25, 0.25))
    assert found.low == pytest.approx(0.25 * 20 / (20 + 1.959964**2))


def test_one_item_that_differs_does_not_exclude_zero() -> None:
    found = task({"ours": [1.0] + [0.0] * 199, "theirs": [0.0] * 200}).contrast("ours", "theirs")
    assert found.difference == pytest.approx(0.005)
    assert found.low <= 0
    assert found.p == pytest.approx(0.5)  # the mid-p of one of one


def test_one_cluster_alone_proves_nothing() -> None:
    """Two pieces of one document, both better: how another document would have come out is not known."""
    scores = task({"ours": [[0.8, 0.9]] * 3, "theirs": [[1.0, 1.0]] * 3}, clusters=["document"] * 2)
    found = scores.contrast("ours", "theirs")
    assert (found.low, found.high, found.low90, found.high90) == (-math.inf, math.inf, -math.inf, math.inf)
    assert found.p == 1
    alone = scores.score("ours").estimate
    assert (alone.low, alone.high) == (0.0, math.inf), "of a metric that is never negative"


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.088), (1.0, 0.912, 1.0)])
def test_scores_of_all_wrong_and_all_right_have_wilsons_interval(value: float, low: float, high: float) -> None:
    found = task({"arm": np.full((1, 40), value)}).score("arm").estimate
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-3)


def test_a_score_of_one_run_is_the_one_its_own_results_show() -> None:
    """`statistics.mean` is what the run itself was scored with; its bootstrap draws its own resamples."""
    values = np.random.default_rng(16).gamma(2.0, size=150)
    found = task({"arm": values}).score("arm")
    alone = statistics.mean(values.tolist(), [1.0] * 150, names(150))
    assert found.estimate.value == alone.value
    width = alone.high - alone.low
    assert found.estimate.low == pytest.approx(alone.low, abs=0.06 * width)
    assert found.estimate.high == pytest.approx(alone.high, abs=0.06 * width)
    assert found.items_se == pytest.approx(stats.sem(values))


def test_a_score_of_right_and_wrong_answers_stays_between_0_and_1() -> None:
    found = task({"arm": [[1.0] * 39 + [0.0], [1.0] * 40]}).score("arm").estimate
    assert found.high == 1.0
    assert found.low < found.value < 1


# --- the same every time ---------------------------------------------------------------------------------------------


def test_the_order_of_items_and_of_arms_changes_nothing() -> None:
    rng = np.random.default_rng(17)
    values = {arm: rng.random((3, 60)) for arm in ("one", "two", "three")}
    weights = rng.integers(1, 99, 60).astype(float)
    clusters = np.array([f"c{at % 17}" for at in range(60)])
    order = rng.permutation(60)
    found = TaskScores(values, weights, clusters.tolist()).contrast("one", "two")
    turned = {arm: values[arm][:, order] for arm in ("three", "two", "one")}
    again = TaskScores(turned, weights[order], clusters[order].tolist()).contrast("one", "two")
    assert (again.difference, again.low, again.high, again.p) == pytest.approx(
        (found.difference, found.low, found.high, found.p), rel=1e-9
    )


def test_turning_a_contrast_round_turns_its_signs() -> None:
    rng = np.random.default_rng(18)
    scores = task({"one": rng.random((3, 80)), "two": rng.random((2, 80))})
    there, back = scores.contrast("one", "two"), scores.contrast("two", "one")
    assert (there.difference, there.low, there.high, there.low90, there.high90) == pytest.approx(
        (-back.difference, -back.high, -back.low, -back.high90, -back.low90)
    )
    assert there.p == back.p


@pytest.mark.parametrize("rows", [np.ones((1, 9)), np.full((1, 10), np.nan), np.ones(10)])
def test_rows_that_do_not_fit_are_refused(rows: Array) -> None:
    with pytest.raises(ValueError, match="arm: "):
        TaskScores({"arm": rows}, np.ones(10), names(10))
