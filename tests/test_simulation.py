"""Studies whose truth is known: how often intervals hold it, how often a verdict is false, how often one is found.

A regime says what makes runs differ. Chances are counted over at least 2,000 contrasts, three of one study each, so
that their own error is half a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from workbench.compare.contrasts import TaskScores
from workbench.compare.families import holm, word
from workbench.compare.outcomes import Contrast
from workbench.compare.power import Design, power_of, smallest_difference
from workbench.compare.statistics import Array

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Regime:
    """Standard deviations of what an arm's value of an item is made of, beside the item's difficulty."""

    clusters: int = 150
    size: int = 1
    """Items a cluster."""
    item_sd: float = 0.0
    """What an item is to an arm, whatever its seed."""
    cluster_sd: float = 0.0
    """The same of a cluster."""
    noise_sd: float = 0.0
    """Item by seed."""
    seed_sd: float = 0.0
    binary: bool = False
    """Right or wrong, with these as differences of the chance to be right."""

    def run(self, rng: np.random.Generator, seeds: int, hard: Array, effect: float = 0.0, wild: float = 1.0) -> Array:
        """(seeds, items) of one arm, its seeds `wild` times as far apart."""
        number = self.clusters * self.size
        items = self.item_sd * rng.normal(size=number)
        items += np.repeat(self.cluster_sd * rng.normal(size=self.clusters), self.size)
        shifts = wild * self.seed_sd * rng.normal(size=(seeds, 1))
        if self.binary:
            chance = np.clip(0.5 + 0.15 * hard + items + shifts + effect, 0.0, 1.0)
            return (rng.random((seeds, number)) < chance).astype(float)
        return np.asarray(hard + items + shifts + effect + self.noise_sd * rng.normal(size=(seeds, number)))

    def study(
        self, rng: np.random.Generator, seeds: Sequence[int], effects: Sequence[float] = (), wild: float = 1.0
    ) -> TaskScores:
        """An arm for each number of seeds, called by its place; the first is the `wild` one."""
        hard = rng.normal(size=self.clusters * self.size)
        shifts = [*effects, *[0.0] * (len(seeds) - len(effects))]
        values = {
            str(at): self.run(rng, number, hard, shifts[at], wild if at == 0 else 1.0)
            for at, number in enumerate(seeds)
        }
        names = [f"{at // self.size:04d}" for at in range(len(hard))]
        return TaskScores(values, np.ones(len(hard)), names, resamples=500)


REGIMES = {
    "item noise": Regime(item_sd=1.0, noise_sd=0.3, seed_sd=0.02),
    "seeds": Regime(item_sd=0.3, noise_sd=0.3, seed_sd=0.3),
    "item-by-seed noise": Regime(item_sd=0.4, noise_sd=1.0, seed_sd=0.03),
    "clustered": Regime(clusters=60, size=4, item_sd=0.3, cluster_sd=0.5, noise_sd=0.5, seed_sd=0.05),
    "yes and no": Regime(clusters=200, item_sd=0.1, seed_sd=0.03, binary=True),
}


PURE_NOISE = Regime(noise_sd=1.0)


def contrasts(study: TaskScores, arms: int) -> list[Contrast]:
    """Of disjoint pairs of arms."""
    return [study.contrast(str(at), str(at + 1)) for at in range(0, arms, 2)]


def coverage(regime: Regime, seeds: Sequence[int], studies: int) -> float:
    """Share of 95 % intervals that hold the true difference, which is none."""
    rng = np.random.default_rng(20_261_122)
    made = (found for _ in range(studies) for found in contrasts(regime.study(rng, seeds), len(seeds)))
    return float(np.mean([found.low <= 0 <= found.high for found in made]))


@pytest.mark.parametrize("name", REGIMES)
def test_ninety_five_of_a_hundred_intervals_hold_the_truth(name: str) -> None:
    assert 0.93 <= coverage(REGIMES[name], [3] * 6, 700) <= 0.97


def test_two_arms_alone_are_covered_where_seeds_dominate() -> None:
    """Four degrees of freedom."""
    assert 0.93 <= coverage(REGIMES["seeds"], [3, 3], 1_000) <= 0.97


def test_two_arms_alone_are_covered_too_well_where_nothing_but_item_by_seed_noise_is_there() -> None:
    """A variance between seeds is never estimated below zero, so that it is too large where there is none."""
    assert 0.95 <= coverage(PURE_NOISE, [3, 3], 1_000) <= 0.98


def test_arms_of_one_seed_are_covered_where_others_say_how_far_seeds_scatter() -> None:
    assert 0.93 <= coverage(REGIMES["seeds"], [3, 3, 1, 1, 3, 3], 400) <= 0.97


def test_one_seed_each_says_nothing_of_the_method_where_seeds_dominate() -> None:
    """The interval is that of these two runs: why such verdicts are marked suggestive."""
    assert coverage(REGIMES["seeds"], [1] * 6, 200) < 0.3


def test_an_arm_whose_seeds_scatter_three_times_as_far_is_mostly_covered() -> None:
    """A variance pooled over ten arms alone would cover it in 75 of 100 cases."""
    rng = np.random.default_rng(20_261_122)
    made = [REGIMES["seeds"].study(rng, [4] * 10, wild=3.0).contrast("0", "1") for _ in range(500)]
    assert np.mean([found.low <= 0 <= found.high for found in made]) > 0.85


def is_false(said: str, effect: float) -> bool:
    return (said == "better" and effect <= 0) or (said == "worse" and effect >= 0)


@pytest.mark.parametrize("effects", [[0.0] * 10, [0.3, -0.3, 0.6, 1.0, *[0.0] * 6]])
def test_a_study_of_ten_arms_seldom_ends_in_any_false_verdict(effects: list[float]) -> None:
    """Ten declared contrasts against a reference, 5 % by Holm at most; 1,000 studies of all regimes know it to 0.7."""
    rng = np.random.default_rng(20_261_122)
    false = []
    for regime in REGIMES.values():
        for _ in range(200):
            study = regime.study(rng, [3] * 11, [0.0, *effects])
            made = [study.contrast(str(at), "0") for at in range(1, 11)]
            adjusted = holm([one.p for one in made])
            words = [word(one, p, 0.0, True) for one, p in zip(made, adjusted, strict=True)]
            false.append(any(is_false(said, effect) for said, effect in zip(words, effects, strict=True)))
    assert np.mean(false) <= 0.06


@pytest.mark.parametrize(
    ("name", "seeds"), [("item noise", 3), ("seeds", 3), ("seeds", 5), ("item-by-seed noise", 3), ("clustered", 3)]
)
def test_differences_are_found_as_often_as_predicted(name: str, seeds: int) -> None:
    """A difference of which four of five should be found."""
    regime = REGIMES[name]
    design = Design(
        num_items=regime.clusters * regime.size,
        num_clusters=regime.clusters,
        cluster_variance=2 * (regime.item_sd**2 / regime.size + regime.cluster_sd**2),
        noise_variance=regime.noise_sd**2 / regime.size,
        run_variance=regime.seed_sd**2,
        num_seeds=seeds,
        seeded_arms=2,
        study_arms=6,
    )
    difference = smallest_difference(design)
    rng = np.random.default_rng(20_261_122)
    found = [
        word(one, one.p, 0.0, True) == "better"
        for _ in range(700)
        for one in contrasts(regime.study(rng, [seeds] * 6, [difference, 0.0] * 3), 6)
    ]
    assert np.mean(found) == pytest.approx(power_of(difference, design), abs=0.03)
