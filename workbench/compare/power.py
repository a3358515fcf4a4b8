"""What a paired comparison could resolve: before anything is spent, and after it came out inconclusive.

The test is that of `workbench.compare.contrasts`: a t-test whose variance is the items' plus the seeds'. With many
items and no seeds its numbers are Miller's (2024, "Adding Error Bars to Evals"):
n = (z_{alpha/2} + z_beta)^2 (omega^2 + sigma_A^2/K_A + sigma_B^2/K_B) / delta^2. In simulations what is found stays
within 3 points of what is predicted; where item-by-seed noise is all there is it falls short by up to 11, because a
variance between seeds is then overestimated.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

from scipy import special, stats

from workbench.compare.statistics import satterthwaite

POWER = 0.8
ALPHA = 0.05
CORRELATION = 0.5
RUN_SD = 0.01

ITEM_SD = {"bits_per_byte": 0.4, "answer_bits_per_byte": 1.0}
"""Metric -> an assumed standard deviation between items: documents of running text, and short answers. Any other
metric is taken for one between 0 and 1, whose standard deviation is 0.5 at most."""

MOST_CLUSTERS = 10_000_000
MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Design:
    """What decides how surely a paired difference is known."""

    num_items: int
    num_clusters: int
    cluster_variance: float
    """Between clusters, of the difference that any number of seeds would leave."""
    noise_variance: float
    """What the chance of one run adds to one cluster's value."""
    run_variance: float
    """Between the means of runs that differ in their seed only, item noise taken out."""
    num_seeds: float
    """Runs an arm; the harmonic mean where the two differ."""
    seeded_arms: int
    """How many of the two arms a seed changes: 0, 1 or 2."""
    study_arms: int
    """Arms with several seeds that the run variance is estimated from; 0: it is assumed."""

    @property
    def items_variance(self) -> float:
        """What the choice of items adds to the variance of the difference."""
        return (self.cluster_variance + self.noise_variance * self.seeded_arms / self.num_seeds) / self.num_clusters

    @property
    def seeds_variance(self) -> float:
        """What the choice of seeds adds to the variance of the difference."""
        return self.run_variance * self.seeded_arms / self.num_seeds

    @property
    def degrees_of_freedom(self) -> float:
        """Of the t-test."""
        share = self.seeded_arms / self.num_seeds
        mean_square = self.run_variance + self.noise_variance / self.num_clusters if self.run_variance else 0.0
        return satterthwaite(
            self.items_variance + self.seeds_variance,
            [self.items_variance, mean_square * share],
            [self.num_clusters - 1, self.study_arms * (self.num_seeds - 1)],
        )


def prior(
    num_items: int,
    metric: str,
    num_seeds: int,
    correlation: float = CORRELATION,
    run_sd: float = RUN_SD,
) -> Design:
    """What two arms would be known by, before either was run.

    Args:
        correlation: between the two arms' values of one item.
        run_sd: between runs of one arm that differ in their seed, in the metric's unit.
    """
    item_variance = ITEM_SD.get(metric, 0.5) ** 2
    return Design(
        num_items=num_items,
        num_clusters=num_items,
        cluster_variance=2 * item_variance * (1 - correlation),
        noise_variance=0.0,
        run_variance=run_sd**2,
        num_seeds=num_seeds,
        seeded_arms=2,
        study_arms=2 if num_seeds > 1 else 0,
    )


def power_of(difference: float, design: Design, alpha: float = ALPHA) -> float:
    """Chance that a true difference is found, with its sign, by the two-sided test at `alpha` (noncentral t).

    Zero where there are too few clusters for any sign-flip test to reach `alpha`, or nothing is known of their spread.
    """
    error = math.sqrt(design.items_variance + design.seeds_variance)
    if not _reachable(design, alpha) or math.isinf(error):
        return 0.0
    if error == 0:
        return float(difference != 0)
    degrees = design.degrees_of_freedom
    return float(stats.nct.sf(stats.t.isf(alpha / 2, degrees), degrees, abs(difference) / error))


def _reachable(design: Design, alpha: float) -> bool:
    """Whether the smallest p of a sign-flip test, 2 of 2 ** clusters flips, is below alpha."""
    return 1 - design.num_clusters <= math.log2(alpha)


def smallest_difference(design: Design, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest true difference that is found with `power`; infinite where none would be."""
    if not _reachable(design, alpha):
        return math.inf
    degrees = design.degrees_of_freedom
    shift = special.nctdtrinc(degrees, 1 - power, stats.t.isf(alpha / 2, degrees))
    return float(shift) * math.sqrt(design.items_variance + design.seeds_variance)


def items_needed(difference: float, design: Design, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Items with which a true difference would be found with `power`, the seeds as they are; None: no number would do.

    The items come in clusters of the size they have now.
    """

    def found(clusters: int) -> float:
        return power_of(difference, replace(design, num_clusters=clusters), alpha)

    clusters = bisect_left(range(MOST_CLUSTERS), power, lo=2, key=found)
    if clusters == MOST_CLUSTERS:
        return None
    return math.ceil(clusters * design.num_items / design.num_clusters)


def seeds_needed(difference: float, design: Design, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Seeds an arm with which a true difference would be found with `power`, the items as they are; None: none would.

    Two at least: from one nothing is known of the others.
    """
    study_arms = max(design.study_arms, design.seeded_arms)

    def found(seeds: int) -> float:
        return power_of(difference, replace(design, num_seeds=seeds, study_arms=study_arms), alpha)

    seeds = bisect_left(range(MOST_SEEDS), power, lo=2, key=found)
    return seeds if seeds < MOST_SEEDS and design.seeded_arms else None
