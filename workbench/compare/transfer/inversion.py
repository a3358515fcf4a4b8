"""From a loss to the amount that reaches it: a ladder's curve read backwards, with everything that limits it.

A ladder is a few amounts (bytes of text, FLOPs, seconds, money) with the loss that each reached, lower being better.
Its curve is the running minimum of the losses, joined by PCHIP (Fritsch and Butland 1984, by scipy) over the logarithm
of the amount. The least amount that reaches a loss is the curve's first crossing of it. Done again on every bootstrap
draw (rungs and target drawn on the same items), it gives the interval; a draw that leaves the ladder is censored.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.interpolate import PchipInterpolator
from scipy.optimize import elementwise

from workbench.compare.transfer.figure import Reading, Status

FEWEST_RUNGS = 3
_DECADE = math.log(10)
_COVERAGE = 0.975
_FITTED_DRAWS = 200
"""Draws on which the functional forms are fitted: a fit takes a millisecond."""
_LINE_RUNGS = 3
"""Rungs at the end of a ladder that the straight line follows: earlier ones say how steep the curve used to be."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What a ladder reaches with at most each amount."""

    positions: Floats
    """Logarithms of the amounts, increasing, shape (rungs,)."""
    losses: Floats
    """Shape (rungs,), never increasing."""
    draws: Floats
    """Bootstrap draws of them, shape (rungs, draws), never increasing along the rungs."""
    converged: tuple[bool, ...]

    def settled(self, position: float) -> bool:
        """Whether the rungs on both sides of a position had converged."""
        right = int(np.clip(np.searchsorted(self.positions, position), 1, len(self.positions) - 1))
        return self.converged[right - 1] and self.converged[right]


def curve(
    amounts: Sequence[float],
    losses: Sequence[float],
    draws: Sequence[Floats],
    converged: Sequence[bool],
    frontier: bool = False,
) -> Curve | None:
    """The curve of a ladder; None with fewer than three different amounts.

    A rung that is worse than a cheaper one did not reach more than that one: the curve stays level up to it. On a
    frontier of models of any size it is left out instead, being only the wrong size for its cost; the largest amount
    is kept, because no more than that was tried.

    Args:
        amounts: positive, in any order; of several rungs at one amount the best counts.
        draws: one array (draws,) a rung.
        converged: one a rung.
        frontier: whether the rungs are of any size.
    """
    order: list[int] = []
    for at in sorted(range(len(amounts)), key=lambda at: (amounts[at], losses[at])):
        if not order or amounts[at] > amounts[order[-1]]:
            order.append(at)
    if len(order) < FEWEST_RUNGS:
        return None
    if frontier:
        best = np.minimum.accumulate([losses[at] for at in order])
        order = [at for place, at in enumerate(order) if place in (0, len(order) - 1) or best[place] < best[place - 1]]
    return Curve(
        np.log([amounts[at] for at in order]),
        np.minimum.accumulate([losses[at] for at in order]),
        np.minimum.accumulate(np.stack([draws[at] for at in order])),
        tuple(converged[at] for at in order),
    )


def invert(ladder: Curve, loss: float, draws: Floats, converged: bool, extrapolate: bool = True) -> Reading:
    """The least amount with which the ladder reaches a loss.

    Args:
        loss: what is to be reached.
        draws: bootstrap draws of it, shape (draws,), in the order of the ladder's.
        converged: whether the training that reached it had.
        extrapolate: whether to look up to a decade beyond the last rung.
    """
    first, last = float(ladder.positions[0]), float(ladder.positions[-1])
    place = float(_crossings(ladder.positions, ladder.losses[:, None], np.array([loss]))[0])
    places = _crossings(ladder.positions, ladder.draws, draws)
    low, high = _interval(places)
    if place == -math.inf:
        settled = converged and ladder.converged[0]
        return Reading(None, None, _amount(max(first, high)), Status.LEFT_CENSORED, None, settled)
    if place < math.inf:
        settled = converged and ladder.settled(place)
        return Reading(_amount(place), _amount(low), _amount(high), Status.INTERPOLATED, 1.0, settled)
    if extrapolate and (beyond := _extrapolated(ladder, loss, places, draws)):
        settled = converged and all(ladder.converged)
        factor = math.exp(beyond.place - last)
        ends = _amount(beyond.low), _amount(beyond.high)
        return Reading(_amount(beyond.place), *ends, Status.EXTRAPOLATED, factor, settled)
    return Reading(None, _amount(min(last, low)), None, Status.RIGHT_CENSORED, None, converged and ladder.converged[-1])


def level(ladder: Curve, position: float) -> tuple[float, Floats]:
    """The loss that the ladder reaches at a position between its ends, and the draws of it, shape (draws,)."""
    both = np.column_stack([ladder.losses, ladder.draws])
    found = PchipInterpolator(ladder.positions, both)(position)
    return float(found[0]), found[1:]


def error_budget(ladder: Curve, amount: float, error: float = 0.001) -> float | None:
    """By what fraction the amount moves when the loss is wrong by `error`: exp(error / |dL/dlog D|) - 1.

    None where the curve is so flat that it moves by more than a decade, or the amount lies beyond the rungs.
    """
    position = math.log(amount)
    if not ladder.positions[0] <= position <= ladder.positions[-1]:
        return None
    slope = -float(PchipInterpolator(ladder.positions, ladder.losses)(position, 1))
    return math.expm1(error / slope) if slope * _DECADE > error else None


def _crossings(positions: Floats, losses: Floats, targets: Floats) -> Floats:
    """Where each curve first comes down to its target; -inf if it starts there, inf if it never does.

    Args:
        positions: (rungs,).
        losses: (rungs, curves), never increasing.
        targets: (curves,).
    """
    reached = losses <= targets
    found = np.where(reached[0], -np.inf, np.inf)
    inside = np.flatnonzero(reached[-1] & ~reached[0])
    if len(inside) == 0:
        return found
    right = reached[:, inside].argmax(axis=0)
    cubic = PchipInterpolator(positions, losses[:, inside]).c[:, right - 1, np.arange(len(inside))]
    width = positions[right] - positions[right - 1]
    root = elementwise.find_root(
        lambda step, a, b, c, d: ((a * step + b) * step + c) * step + d,
        (np.zeros_like(width), width),
        args=(*cubic[:3], cubic[3] - targets[inside]),
    )
    # A target equal to a rung's loss may come out a rounding error above zero there: then the rung is the answer.
    found[inside] = positions[right - 1] + np.where(root.success, root.x, width)
    return found


def _interval(places: Floats) -> tuple[float, float]:
    """The 95 % percentile interval; infinite on a side where more than 2.5 % of the draws left the ladder."""
    low = -np.quantile(-places, _COVERAGE, method="inverted_cdf")
    return float(low), float(np.quantile(places, _COVERAGE, method="inverted_cdf"))


def _amount(place: float) -> float | None:
    return math.exp(place) if math.isfinite(place) else None


@dataclass(frozen=True)
class _Beyond:
    """Positions beyond the last rung."""

    place: float
    low: float
    high: float


def _extrapolated(ladder: Curve, loss: float, places: Floats, draws: Floats) -> _Beyond | None:
    """The geometric mean of two functional forms, and an interval that covers both and their draws.

    Both go on from the last rung's own loss, so that what it missed lies beyond it. None where either form points
    further than a decade, or nowhere.
    """
    ends = []
    forms = (_power_law_with_floor, _straight_line)
    for form in forms:
        here = _within_a_decade(ladder.positions, form(ladder.positions, ladder.losses, loss))
        if here == math.inf:
            return None
        drawn = places[:_FITTED_DRAWS].copy()
        for at in np.flatnonzero(drawn == np.inf):
            there = form(ladder.positions, ladder.draws[:, at], float(draws[at]))
            drawn[at] = _within_a_decade(ladder.positions, there)
        low, high = _interval(drawn)
        ends.append(_Beyond(here, min(low, here), max(high, here)))
    place = sum(end.place for end in ends) / len(forms)
    return _Beyond(place, min(end.low for end in ends), max(end.high for end in ends))


def _within_a_decade(positions: Floats, place: float) -> float:
    return place if place <= positions[-1] + _DECADE else math.inf


def _power_law_with_floor(positions: Floats, losses: Floats, target: float) -> float:
    """Where E + A * amount^-b, fitted to all rungs, then moved onto the last one, comes down to the target."""

    def form(steps: Floats, floor: float, height: float, exponent: float) -> Floats:
        return floor + height * np.exp(-exponent * steps)

    if min(losses[-1], target) <= 0:
        return math.inf
    start = (losses[-1] / 2, losses[0] - losses[-1] / 2, 0.3)
    with warnings.catch_warnings():
        # Its covariance is not used: the draws give the interval.
        warnings.simplefilter("ignore", optimize.OptimizeWarning)
        try:
            (_, height, exponent), _ = optimize.curve_fit(
                form, positions - positions[0], losses, start, bounds=(0, np.inf)
            )
        except RuntimeError:
            return math.inf
    left = height * math.exp(-exponent * (positions[-1] - positions[0]))
    above_floor = target - (losses[-1] - left)
    if above_floor <= 0 or left == 0 or exponent == 0:
        return math.inf
    return float(positions[-1] + math.log(left / above_floor) / exponent)


def _straight_line(positions: Floats, losses: Floats, target: float) -> float:
    """Where a line in log-log, as steep as the last rungs and through the very last, comes down to the target."""
    if min(losses[-1], target) <= 0:
        return math.inf
    slope = stats.linregress(positions[-_LINE_RUNGS:], np.log(losses[-_LINE_RUNGS:])).slope
    return float(positions[-1] + math.log(target / losses[-1]) / slope) if slope < 0 else math.inf
