"""Power and sizes against published formulas, statsmodels, and each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from statsmodels.stats.power import TTestPower

from workbench.compare.power import (
    Design,
    items_needed,
    power_of,
    prior,
    seeds_needed,
    smallest_difference,
)

ITEMS_ONLY = Design(
    num_items=100,
    num_clusters=100,
    cluster_variance=0.36,
    noise_variance=0.0,
    run_variance=0.0,
    num_seeds=1,
    seeded_arms=0,
    study_arms=0,
)
THREE_SEEDS = replace(ITEMS_ONLY, noise_variance=0.1, run_variance=0.0025, num_seeds=3, seeded_arms=2, study_arms=6)


@pytest.mark.parametrize(
    ("num_items", "correlation", "tests", "run_sd", "seeds", "points"),
    [
        (200, 0.5, 1, 0.0, 1, 9.9), (200, 0.0, 1, 0.0, 1, 14.0), (200, 0.5, 20, 0.0, 1, 13.7),
        (200, 0.5, 1, 0.01, 1, 10.7), (200, 0.5, 1, 0.01, 5, 10.1), (500, 0.5, 1, 0.0, 1, 6.3),
        (500, 0.0, 1, 0.0, 1, 8.9), (500, 0.5, 20, 0.0, 1, 8.6), (500, 0.5, 1, 0.01, 1, 7.4),
        (500, 0.5, 1, 0.01, 5, 6.5), (1319, 0.5, 1, 0.0, 1, 3.9), (1319, 0.0, 1, 0.0, 1, 5.5),
        (1319, 0.5, 20, 0.0, 1, 5.3), (1319, 0.5, 1, 0.01, 1, 5.5), (1319, 0.5, 1, 0.01, 5, 4.2),
        (5000, 0.5, 1, 0.0, 1, 2.0), (5000, 0.0, 1, 0.0, 1, 2.8), (5000, 0.5, 20, 0.0, 1, 2.7),
        (5000, 0.5, 1, 0.01, 1, 4.4), (5000, 0.5, 1, 0.01, 5, 2.7),
    ],
)  # fmt: skip
def test_what_can_be_resolved_before_anything_is_spent(
    num_items: int, correlation: float, tests: int, run_sd: float, seeds: int, points: float
) -> None:
    """(1.96 + 0.84) sqrt(2 p (1-p) (1-rho) / n + 2 sd^2 / seeds) at p near one half, in points.

    Student's t in the place of z adds up to 0.13.
    """
    design = prior(num_items, "exact_match", seeds, correlation, run_sd)
    assert 100 * smallest_difference(design, alpha=0.05 / tests) == pytest.approx(points, abs=0.15)


def test_millers_number_of_items() -> None:
    """n = (z_{alpha/2} + z_beta)^2 (omega^2 + sigma_A^2/K_A + sigma_B^2/K_B) / delta^2 (2024, section 5)."""
    design = replace(ITEMS_ONLY, cluster_variance=1 / 9, noise_variance=1 / 6, num_seeds=10, seeded_arms=2)
    expected = (1.95996 + 0.84162) ** 2 * (1 / 9 + 1 / 6 / 10 + 1 / 6 / 10) / 0.03**2
    assert items_needed(0.03, design) == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("size", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("number", [10, 60, 2_000])
def test_power_without_seeds_is_that_of_statsmodels_paired_t_test(size: float, number: int) -> None:
    design = replace(ITEMS_ONLY, num_items=number, num_clusters=number)
    oracle = TTestPower().power(effect_size=size, nobs=number, alpha=0.025, alternative="larger")
    assert power_of(size * 0.6, design) == pytest.approx(oracle, abs=1e-6)
    assert power_of(-size * 0.6, design) == pytest.approx(oracle, abs=1e-6)


@pytest.mark.parametrize("design", [ITEMS_ONLY, THREE_SEEDS, prior(750, "bits_per_byte", 3)])
def test_the_smallest_difference_is_found_in_four_of_five_cases(design: Design) -> None:
    assert power_of(smallest_difference(design), design) == pytest.approx(0.8, abs=1e-4)
    assert power_of(smallest_difference(design, power=0.5, alpha=0.01), design, 0.01) == pytest.approx(0.5, abs=1e-4)


def test_few_seeds_are_worth_less_than_their_variance_says() -> None:
    """Five seeds of two arms give eight degrees of freedom: at the same standard error more is needed than with z."""
    few = replace(THREE_SEEDS, cluster_variance=1e-6, noise_variance=0.0, study_arms=2)
    error = math.sqrt(few.items_variance + few.seeds_variance)
    assert few.degrees_of_freedom == pytest.approx(4, rel=0.01)
    assert smallest_difference(few) > 3.7 * error
    assert smallest_difference(replace(few, study_arms=40)) < 2.9 * error


@pytest.mark.parametrize("design", [ITEMS_ONLY, THREE_SEEDS])
def test_items_needed_are_just_enough(design: Design) -> None:
    difference = 0.8 * smallest_difference(design)
    needed = items_needed(difference, design)
    assert needed is not None
    assert needed > design.num_items
    assert power_of(difference, replace(design, num_items=needed, num_clusters=needed)) >= 0.8
    assert power_of(difference, replace(design, num_items=needed - 1, num_clusters=needed - 1)) < 0.8


def test_items_come_in_clusters() -> None:
    clustered = replace(ITEMS_ONLY, num_items=400)
    alone, together = items_needed(0.1, ITEMS_ONLY), items_needed(0.1, clustered)
    assert alone is not None and together == 4 * alone


def test_seeds_needed_are_just_enough() -> None:
    difference = 0.9 * smallest_difference(THREE_SEEDS)
    needed = seeds_needed(difference, THREE_SEEDS)
    assert needed is not None
    assert needed > 3
    assert power_of(difference, replace(THREE_SEEDS, num_seeds=needed)) >= 0.8
    assert power_of(difference, replace(THREE_SEEDS, num_seeds=needed - 1)) < 0.8


def test_no_number_of_items_helps_where_seeds_scatter_too_much() -> None:
    design = replace(THREE_SEEDS, run_variance=0.04)
    assert items_needed(0.1, design) is None
    assert seeds_needed(0.3, design) is not None


def test_no_number_of_seeds_helps_where_items_are_too_few() -> None:
    assert seeds_needed(0.05, THREE_SEEDS) is None
    assert items_needed(0.15, THREE_SEEDS) is not None
    assert seeds_needed(0.5, ITEMS_ONLY) is None  # arms that no seed changes


def test_no_number_finds_a_difference_that_is_not_there() -> None:
    assert items_needed(0.0, THREE_SEEDS) is None
    assert seeds_needed(0.0, THREE_SEEDS) is None


def test_fewer_than_six_clusters_prove_nothing_by_flipping_signs() -> None:
    """Five give 32 flips, two of which are as large: p = 0.0625 at best."""
    five = replace(ITEMS_ONLY, num_items=5, num_clusters=5)
    assert power_of(100.0, five) == 0
    assert smallest_difference(five) == math.inf
    assert power_of(100.0, replace(five, num_clusters=6)) > 0.99
    assert items_needed(100.0, five) == 6


def test_one_cluster_says_nothing_of_what_more_would() -> None:
    one = replace(ITEMS_ONLY, num_clusters=1, cluster_variance=math.inf)
    assert power_of(1.0, one) == 0
    assert items_needed(1.0, one) is None
    assert smallest_difference(one) == math.inf


def test_a_difference_without_any_variance_is_found() -> None:
    certain = replace(ITEMS_ONLY, cluster_variance=0.0)
    assert (power_of(0.1, certain), power_of(0.0, certain)) == (1.0, 0.0)
    assert smallest_difference(certain) == 0


def test_a_prior_of_text_differs_from_one_of_right_and_wrong() -> None:
    right, text = prior(500, "exact_match", 3), prior(500, "bits_per_byte", 3)
    assert (right.cluster_variance, text.cluster_variance) == pytest.approx((0.25, 0.16))
    assert right.run_variance == pytest.approx(1e-4)
    assert prior(500, "exact_match", 1).study_arms == 0
