"""A figure with its interval, its status and its words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Status(StrEnum):
    """What a figure rests on. Only an interpolated one says "equals"."""

    INTERPOLATED = "interpolated"
    """Rungs lie on both sides of it."""
    EXTRAPOLATED = "extrapolated"
    """Within a decade beyond the last rung, by two functional forms."""
    RIGHT_CENSORED = "right-censored"
    """No rung reached it: a lower bound only."""
    LEFT_CENSORED = "left-censored"
    """The smallest rung is as good already: an upper bound only."""
    NOT_CONVERGED = "not converged"
    """The arm, or a rung that it rests on, was still improving when it stopped."""
    NOT_KNOWN = "not known"
    """There is nothing to make it from; the words say what is missing."""


class Unit(StrEnum):
    """What a figure counts."""

    TEXT_BYTES = "text_bytes"
    EXAMPLES = "examples"
    FLOPS = "flops"
    SECONDS = "seconds"
    USD = "usd"
    TIMES = "times"
    ADAPTERS = "adapters"


def amount(value: float, unit: Unit) -> str:
    """A number as a person reads it, to about three digits: 104 kB, 3.2e+12 FLOPs, 12 min, $0.25, 3.5 times."""
    match unit:
        case Unit.TEXT_BYTES:
            return _text_bytes(value)
        case Unit.FLOPS:
            return f"{value:.3g} FLOPs"
        case Unit.SECONDS:
            seconds = abs(value)
            step, name = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
            return f"{_digits(value / step)} {name}"
        case Unit.USD:
            return f"${value:,.2f}" if abs(value) >= 1 else f"${value:.2g}"
        case _:
            return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _text_bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{_digits(value)} TB"


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval; None where there is no number, or where a side of the interval is open."""

    value: float | None
    low: float | None
    high: float | None
    status: Status
    factor: float | None
    """How far beyond the last rung the value lies; 1 within the ladder, None without a value."""
    words: str


BEYOND = {
    Status.RIGHT_CENSORED: "no rung reached it, and beyond a decade there is no number",
    Status.LEFT_CENSORED: "the smallest rung is as good already",
}
"""Why a figure read off a ladder is a bound only."""


@dataclass(frozen=True)
class Reading:
    """The numbers of a figure before they are told."""

    value: float | None
    low: float | None
    high: float | None
    status: Status
    """Where it lies; that something had not converged is said beside it."""
    factor: float | None
    converged: bool
    reason: str = ""
    """What is missing, where the status is not known."""

    def through(
        self,
        change: Callable[[float], float | None],
        low: Callable[[float], float | None] | None = None,
        high: Callable[[float], float | None] | None = None,
    ) -> Reading:
        """The same reading on another scale, with its status.

        Args:
            change: an increasing function (after `flipped`, a decreasing one); None where it has no value.
            low, high: functions for the interval's ends, where the scale itself is uncertain.
        """
        return replace(
            self,
            value=None if self.value is None else change(self.value),
            low=None if self.low is None else (low or change)(self.low),
            high=None if self.high is None else (high or change)(self.high),
        )

    def flipped(self) -> Reading:
        """With the ends of the interval exchanged, on the way through a decreasing function."""
        return replace(self, low=self.high, high=self.low)

    def figure(self, unit: Unit, phrase: str, equals: str = "", why: Mapping[Status, str] = BEYOND) -> Figure:
        """The figure with its words.

        Args:
            phrase: holds {} where the amount goes.
            equals: stands before an interpolated one.
            why: what makes a censored one a bound.
        """
        words = self._words(unit, phrase, equals, why) + self.caveat
        return Figure(self.value, self.low, self.high, self.standing, self.factor, words)

    @property
    def standing(self) -> Status:
        """The status that is told: a value that rests on something unfinished is not converged, a bound stays one."""
        return Status.NOT_CONVERGED if self.value is not None and not self.converged else self.status

    @property
    def caveat(self) -> str:
        """What the words end with."""
        return "" if self.converged else "; not converged, longer training would move it"

    def _words(self, unit: Unit, phrase: str, equals: str, why: Mapping[Status, str]) -> str:
        if self.status is Status.NOT_KNOWN:
            return f"not known: {self.reason}"
        if self.value is None:
            bound = (
                f"more than {amount(self.low, unit)}"
                if self.low is not None
                else f"at most {amount(self.high, unit)}"
                if self.high is not None
                else "an unknown amount"
            )
            return f"{phrase.format(bound)}: {why[self.status]}"
        exact = self.status is Status.INTERPOLATED and self.converged
        told = phrase.format((equals if exact else "about ") + amount(self.value, unit))
        beyond = f", {_digits(self.factor)} times beyond the last rung" if self.factor and self.factor > 1 else ""
        return f"{told}{beyond} ({self._interval(unit)})"

    def _interval(self, unit: Unit) -> str:
        if self.low is not None and self.high is not None:
            low, high = amount(self.low, unit), amount(self.high, unit)
            number, _, name = low.rpartition(" ")
            return f"{number if number and high.endswith(f' {name}') else low} to {high}"
        if self.low is not None:
            return f"at least {amount(self.low, unit)}"
        if self.high is not None:
            return f"at most {amount(self.high, unit)}"
        return "its interval leaves the ladder on both sides"


def not_known(reason: str) -> Reading:
    """No figure, and why."""
    return Reading(None, None, None, Status.NOT_KNOWN, None, True, reason)
