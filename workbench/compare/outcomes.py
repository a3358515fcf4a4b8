"""What comes out of holding arms against each other on one task."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from workbench.compare.power import Design
from workbench.compare.statistics import Estimate


@dataclass(frozen=True)
class ArmScore:
    """One arm's metric over its seeds."""

    estimate: Estimate
    per_seed: list[float]
    seed_sd: float | None
    """Standard deviation between its seeds that item noise does not explain; None for one seed."""
    items_se: float
    """Standard error from the choice of items alone."""


@dataclass(frozen=True)
class Contrast:
    """One arm minus another, in the metric's unit."""

    arm: str
    against: str
    difference: float
    low: float
    high: float
    low90: float
    high90: float
    standard_error: float
    degrees_of_freedom: float
    p: float
    """Two-sided."""
    p_method: str
    """What decided: "sign-flip", "mcnemar-mid-p", or "t" where seeds make it the larger one."""
    p_exact: float | None
    """McNemar's exact p beside the mid-p."""
    single_seed: bool
    """Whether an arm that seeds change has one only."""
    num_items: int
    num_clusters: int
    items_variance: float
    seeds_variance: float
    design: Design
    """The same as `workbench.compare.power` takes it."""


@dataclass(frozen=True)
class Interval:
    """Ends at 95 % and at 90 %, and what they were made from."""

    low: float
    high: float
    low90: float
    high90: float
    items_variance: float
    seeds_variance: float
    degrees: float

    def within(self, least: float, most: float) -> Interval:
        """The same with its ends inside what the metric can be."""
        low, high, low90, high90 = np.clip([self.low, self.high, self.low90, self.high90], least, most).tolist()
        return replace(self, low=low, high=high, low90=low90, high90=high90)
