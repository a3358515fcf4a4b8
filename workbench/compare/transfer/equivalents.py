"""What an adapter is worth in training from scratch: in data, compute, time and money.

By the definitions of effective data transferred (Hernandez et al. 2021, arXiv 2102.01293): D_E is the least data with
which a model of the base's own architecture, from random weights, reaches the arm's loss; D_T = D_E - D_F with D_F the
arm's own data; the multiplier is D_E / D_F. Compute, time and money are read off the frontier of rungs of any size.
All losses are on one task and the rungs trained on the data of one distribution: which, is part of the claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.compare.transfer.figure import Figure, Reading, Status, Unit, not_known
from workbench.compare.transfer.inversion import (
    FEWEST_RUNGS,
    Curve,
    Floats,
    curve,
    error_budget,
    invert,
    level,
)


@dataclass(frozen=True)
class Trained:
    """One arm with what it took and what it reached."""

    arm: str
    data: float
    """What it has seen, each text counted once, in the unit of the whole comparison."""
    training_flops: float
    device_seconds: float
    usd: float | None
    value: float
    """Its loss on the task: lower is better."""
    draws: Floats
    """Bootstrap draws of it, shape (draws,); all arms on the same item resamples."""
    converged: bool


@dataclass(frozen=True)
class Rung(Trained):
    """One arm trained from random weights."""

    own_size: bool
    """Whether its architecture and size are the base's own: only such rungs count for data."""


@dataclass(frozen=True)
class Target(Trained):
    """One arm that started from the base."""

    base: str
    series: str | None = None
    """Arms that differ in their data only share it: where the multiplier falls below 1 is found along it."""


@dataclass(frozen=True)
class Pretraining:
    """What the base itself cost to train."""

    flops: float
    factor: float
    """How far off that may be, either way; 1 where it is exact."""


@dataclass(frozen=True)
class Equivalents:
    """What one arm is worth from scratch."""

    arm: str
    data_equivalent: Figure
    data_transferred: Figure
    multiplier: Figure
    compute_equivalent: Figure
    time_equivalent: Figure
    money_equivalent: Figure
    leverage: Figure
    """Compute from scratch over the arm's own training compute."""
    leverage_with_base: Figure
    """The same with the base's pretraining counted in."""
    adapters_to_pay_off: Figure
    """How many adapters make pretraining and adapting cheaper than as many trainings from scratch."""
    error_budget: float | None
    """By what fraction the data-equivalent moves for 0.001 of loss."""


@dataclass(frozen=True)
class Transfer:
    """Every arm's equivalents, and a crossover for every series."""

    arms: list[Equivalents]
    crossover: dict[str, Figure]


def transfer(
    rungs: Sequence[Rung],
    targets: Sequence[Target],
    data_unit: Unit = Unit.TEXT_BYTES,
    pretraining: Pretraining | None = None,
) -> Transfer:
    """The figures of arms of one base against a ladder from scratch.

    Args:
        data_unit: what `data` counts, text bytes or examples.
        pretraining: the base's; None where it is not known.

    Raises:
        ValueError: the targets rest on several bases (the ladder is the twin of one), or the draws differ in number.
    """
    if len({target.base for target in targets}) > 1:
        raise ValueError("a ladder is of one base's size: give the arms of one base at a time")
    ladders = _Ladders(
        _ladder([rung for rung in rungs if rung.own_size], lambda rung: rung.data, "of the base's own size", False),
        _ladder(rungs, lambda rung: rung.training_flops, "with known FLOPs", True),
        _ladder(rungs, lambda rung: rung.device_seconds, "with a measured time", True),
        _ladder(rungs, lambda rung: rung.usd, "with a price", True),
    )
    arms = [_equivalents(target, ladders, data_unit, pretraining) for target in targets]
    return Transfer(arms, _crossovers(ladders.data, targets, data_unit))


@dataclass(frozen=True)
class _Ladder:
    """The curve over one kind of amount, or why there is none."""

    curve: Curve | None
    reason: str

    def read(self, target: Target) -> Reading:
        """The least amount that reaches what the target reached."""
        if self.curve is None:
            return not_known(self.reason)
        return invert(self.curve, target.value, target.draws, target.converged)


@dataclass(frozen=True)
class _Ladders:
    """One over each kind of amount."""

    data: _Ladder
    compute: _Ladder
    time: _Ladder
    money: _Ladder


def _ladder(rungs: Sequence[Rung], amount: Callable[[Rung], float | None], which: str, frontier: bool) -> _Ladder:
    known = [(rung, found) for rung in rungs if (found := amount(rung)) is not None and found > 0]
    made = curve(
        [found for _, found in known],
        [rung.value for rung, _ in known],
        [rung.draws for rung, _ in known],
        [rung.converged for rung, _ in known],
        frontier,
    )
    number = len({found for _, found in known})
    rungs_in_words = f"{number} different rung{'s' * (number != 1)} {which}"
    return _Ladder(made, f"{rungs_in_words}, and {FEWEST_RUNGS} are needed (5 are advised, over 1.5 decades)")


def _equivalents(target: Target, ladders: _Ladders, data_unit: Unit, pretraining: Pretraining | None) -> Equivalents:
    data, flops = ladders.data.read(target), ladders.compute.read(target)
    with_base = flops if pretraining or flops.status is Status.NOT_KNOWN else not_known("the base's pretraining cost")
    base = pretraining or Pretraining(0.0, 1.0)  # not looked at: there is no reading to change
    budget = None
    if ladders.data.curve is not None and data.status is Status.INTERPOLATED and data.value is not None:
        budget = error_budget(ladders.data.curve, data.value)
    return Equivalents(
        target.arm,
        _from_scratch(data, data_unit),
        data.through(lambda amount: amount - target.data).figure(data_unit, "{} transferred"),
        _ratio(data, target.data, "data", "{} its own data"),
        _from_scratch(flops, Unit.FLOPS),
        _from_scratch(ladders.time.read(target), Unit.SECONDS),
        _from_scratch(ladders.money.read(target), Unit.USD),
        _ratio(flops, target.training_flops, "training compute", "scratch takes {} its compute"),
        _leverage_with_base(with_base, target.training_flops, base),
        _adapters_to_pay_off(with_base, target.training_flops, base),
        budget,
    )


def _from_scratch(reading: Reading, unit: Unit) -> Figure:
    return reading.figure(unit, "{} from scratch", equals="equals ")


def _ratio(reading: Reading, own: float, what: str, phrase: str) -> Figure:
    if own <= 0 and reading.status is not Status.NOT_KNOWN:
        reading = not_known(f"the arm's own {what} is zero")
    return reading.through(lambda amount: amount / own).figure(Unit.TIMES, phrase)


def _leverage_with_base(reading: Reading, own: float, base: Pretraining) -> Figure:
    def over(flops: float) -> Callable[[float], float]:
        return lambda amount: amount / (own + flops)

    found = reading.through(over(base.flops), over(base.flops * base.factor), over(base.flops / base.factor))
    return found.figure(Unit.TIMES, "scratch takes {} its compute and the base's")


def _adapters_to_pay_off(reading: Reading, own: float, base: Pretraining) -> Figure:
    """C_base / (C_E - C_FT), for C_E > C_FT: with fewer the base's pretraining has cost more than it saved."""

    def over(flops: float) -> Callable[[float], float | None]:
        return lambda amount: flops / (amount - own) if amount > own else None

    found = reading.flipped().through(over(base.flops), over(base.flops / base.factor), over(base.flops * base.factor))
    most = reading.high if reading.value is None else reading.value
    if most is None or most > own:
        return found.figure(Unit.ADAPTERS, "the base's pretraining is paid off by {}")
    proved = reading.high is not None and reading.high <= own
    words = "scratch is cheaper outright" + ("" if proved else ", though the interval reaches to the other side")
    return Figure(None, found.low, None, reading.standing, None, words + reading.caveat)


_PAYS = {
    Status.RIGHT_CENSORED: "it pays at every amount tried",
    Status.LEFT_CENSORED: "it does not pay even at the smallest amount tried",
}


def _crossovers(ladder: _Ladder, targets: Sequence[Target], unit: Unit) -> dict[str, Figure]:
    names = dict.fromkeys(target.series for target in targets if target.series is not None)
    return {
        name: _crossover(ladder, [target for target in targets if target.series == name]).figure(
            unit, "the multiplier falls below 1 at {}", why=_PAYS
        )
        for name in names
    }


def _crossover(ladder: _Ladder, series: Sequence[Target]) -> Reading:
    """The data at which the multiplier falls below 1.

    The multiplier is below 1 exactly where training from scratch on the arm's own data reaches less loss than the arm:
    the gap between the ladder at D_F and the arm is read off for each D_F and inverted at zero, which needs no D_E and
    so does not suffer when one lies beyond the ladder.
    """
    if ladder.curve is None:
        return not_known(ladder.reason)
    first, last = ladder.curve.positions[0], ladder.curve.positions[-1]
    inside = [target for target in series if target.data > 0 and first <= math.log(target.data) <= last]
    levels = [level(ladder.curve, math.log(target.data)) for target in inside]
    gaps = curve(
        [target.data for target in inside],
        [scratch - target.value for (scratch, _), target in zip(levels, inside, strict=True)],
        [draws - target.draws for (_, draws), target in zip(levels, inside, strict=True)],
        [target.converged and ladder.curve.settled(math.log(target.data)) for target in inside],
    )
    if gaps is None:
        number = len({target.data for target in inside})
        return not_known(f"{number} amounts of its own data within the ladder, and {FEWEST_RUNGS} are needed")
    return invert(gaps, 0.0, np.zeros(gaps.draws.shape[1]), True, extrapolate=False)
