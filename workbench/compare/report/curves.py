"""The plots over a quantity: quality against cost, loss while training, and the curve of training from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter

from workbench.compare.report import words
from workbench.compare.report.drawing import FONT, INK, MUTED, SURFACE, ArmStyle, Sheet, spread
from workbench.compare.report.plots import Drawn, Styles, drawn


@dataclass(frozen=True)
class Quantity:
    """Something an arm costs: its name and how a number of it is written."""

    name: str
    show: Callable[[float | None], str]
    units: tuple[float, ...] = (1.0,)
    """What its numbers are round in."""

    @property
    def ticks(self) -> FuncFormatter:
        """Labels of an axis."""
        return FuncFormatter(lambda value, _: self.show(value))


QUANTITIES = {
    "training_flops": Quantity("Training compute", words.flops),
    "device_seconds": Quantity("Device time", words.seconds, (1.0, 60.0, 3600.0, 86400.0)),
    "trainable_parameters": Quantity("Trainable parameters", words.scaled),
    "adapter_bytes": Quantity("Adapter size", words.size),
    "joules": Quantity("Energy", words.joules),
    "usd": Quantity("Money", words.usd),
    "peak_memory_bytes": Quantity("Peak memory", words.size),
    "tokens": Quantity("Training tokens", words.scaled),
    "examples": Quantity("Training examples", words.scaled),
    "text_bytes": Quantity("Training text", words.size),
}


def quantity(name: str) -> Quantity:
    """A cost by its field's name; one that is not known here is shown with its decimal prefix."""
    return QUANTITIES.get(name) or Quantity(name.replace("_", " ").capitalize(), words.scaled)


FROM_SCRATCH = ArmStyle(INK, (1.0, 0.0), "o", "ink")

_BOUNDS = {"right-censored": 1.35, "left-censored": 1 / 1.35}
"""Status of a bound -> where its arrow ends, as a factor of the quantity."""


def _heading(sheet: Sheet, task: dict[str, Any]) -> None:
    better = "higher" if task["higher_is_better"] else "lower"
    text = f"{words.short(task['id'], 24)}, {words.unit(task['metric'])} ({better} is better)"
    sheet.write(0, 10, text, color=MUTED, fontsize=FONT - 1)


def _axis_name(sheet: Sheet, name: str) -> None:
    sheet.write(sheet.left + sheet.inner_width / 2, sheet.height - 10, name, ha="center", color=MUTED,
                fontsize=FONT - 1)  # fmt: skip


def _names_at_the_right(sheet: Sheet, placed: list[tuple[str, float, ArmStyle]]) -> None:
    """Names with their markers beside the axes, each as near its value as the others let it."""
    low, high = sheet.axes.get_ylim()
    wanted = [sheet.top + sheet.inner_height * (1 - (value - low) / (high - low)) for _, value, _ in placed]
    right = sheet.left + sheet.inner_width
    for y, (name, _, style) in zip(spread(wanted, FONT + 3, sheet.height - 40), placed, strict=True):
        sheet.mark(right + 11, y, style)
        sheet.write(right + 19, y, words.short(name, 15), color=style.colour, fontsize=FONT - 0.5)


@dataclass(frozen=True)
class _Point:
    """One arm in a plot of quality against cost; a price of 0 where it cost nothing or nobody knows."""

    name: str
    score: Drawn
    price: float


def _points(arms: list[dict[str, Any]], task: dict[str, Any], cost: str) -> list[_Point]:
    found = []
    for arm in arms:
        score = (arm.get("scores") or {}).get(task["id"])
        if score and (shown := drawn(score, task["metric"])):
            found.append(_Point(arm["name"], shown, (arm.get("cost") or {}).get(cost) or 0.0))
    return found


def pareto(verdict: dict[str, Any], cost: str, task: dict[str, Any], styles: Styles) -> Markup | None:
    """Quality against one cost, the arms nobody beats joined by a line, the dominated ones hollow.

    An arm that cost nothing, such as the untouched base, is a level. None where there are fewer than two arms, or all
    of them cost nothing.
    """
    found, shown, points = verdict["pareto"][cost], quantity(cost), _points(verdict["arms"], task, cost)
    paid = [point for point in points if point.price > 0]
    if not paid or len(points) < 2:
        return None
    sheet = Sheet(350, 300, left=36, right=118, top=28, bottom=52)
    axes = sheet.axes
    sheet.grid("y")
    sheet.cost_x([point.price for point in paid], shown.show, shown.units)
    for point in points:
        style = styles[point.name]
        if not point.price:
            _level(sheet, style, point.score)
            continue
        axes.errorbar([point.price], [point.score.value], yerr=point.score.bars, fmt=style.marker, color=style.colour,
                      markersize=8, markeredgewidth=1.6, elinewidth=1.6, zorder=4,
                      markerfacecolor=SURFACE if point.name in (found.get("off") or {}) else style.colour)  # fmt: skip
    front = sorted((point.price, point.score.value) for point in paid if point.name in (found.get("front") or []))
    axes.plot([price for price, _ in front], [score for _, score in front], color=MUTED, linewidth=1, zorder=2)
    axes.margins(y=0.1)
    sheet.round_ticks("y", 6)
    _heading(sheet, task)
    _axis_name(sheet, shown.name)
    _names_at_the_right(sheet, [(point.name, point.score.value, styles[point.name]) for point in points])
    said = "; ".join(
        f"{point.name} {words.significant(point.score.value)} for "
        f"{shown.show(point.price) if point.price else 'nothing'}"
        for point in points
    )
    return sheet.svg(f"pareto-{cost}", f"{task['id']} against {shown.name.lower()}: {said}")


def _level(sheet: Sheet, style: ArmStyle, score: Drawn) -> None:
    """A score that belongs to no place on the horizontal axis, with its interval as a band."""
    sheet.axes.axhline(score.value, color=style.colour, linewidth=1.4, dashes=style.dashes, zorder=2)
    if score.low is not None and score.high is not None:
        sheet.axes.axhspan(score.low, score.high, color=style.colour, alpha=0.12, linewidth=0)


def learning(curves: list[dict[str, Any]], against: str, styles: Styles) -> Markup | None:
    """The training loss of every run on `examples` or `training_flops`: a thin line a seed, an arm its own look."""
    drawn: list[tuple[str, list[float], list[float]]] = []
    for curve in curves:
        points = [
            (x, y)
            for x, y in zip(curve.get(against) or [], curve["loss"], strict=False)
            if x is not None and y is not None and x > 0
        ]
        if len(points) > 1 and curve["arm"] in styles:
            drawn.append((curve["arm"], [x for x, _ in points], [y for _, y in points]))
    if not drawn:
        return None
    sheet = Sheet(440, 300, left=36, right=118, top=28, bottom=52)
    sheet.grid("y")
    ends = [xs[-1] for _, xs, _ in drawn]
    if max(ends) > 8 * min(ends):  # arms of very different budgets would hide each other on a linear axis
        sheet.cost_x(
            [x for _, xs, _ in drawn for x in (xs[0], xs[-1])], quantity(against).show, quantity(against).units
        )
    else:
        sheet.axes.set_xlim(0, max(ends))
        sheet.round_ticks("x", 5)
        sheet.axes.xaxis.set_major_formatter(quantity(against).ticks)
    last: dict[str, list[float]] = {}
    for name, xs, ys in drawn:
        style = styles[name]
        sheet.axes.plot(xs, ys, color=style.colour, linewidth=1.2, dashes=style.dashes, alpha=0.85)
        last.setdefault(name, []).append(ys[-1])
    sheet.axes.margins(y=0.06)
    sheet.round_ticks("y", 6)
    sheet.write(0, 10, "training loss (lower is better)", color=MUTED, fontsize=FONT - 1)
    _axis_name(sheet, quantity(against).name)
    means = {name: sum(values) / len(values) for name, values in last.items()}
    _names_at_the_right(sheet, [(name, value, styles[name]) for name, value in means.items()])
    said = "; ".join(f"{name} ends at {words.significant(value)}" for name, value in means.items())
    return sheet.svg(f"learning-{against}", f"Training loss against {quantity(against).name.lower()}: {said}")


def transfer(found: dict[str, Any], task: dict[str, Any], styles: Styles, narrow: bool) -> Markup | None:
    """The from-scratch ladder over its amount of data, each adapter's score as a level, and where the two meet.

    A bar at the foot is the data equivalent's interval; a bound is an arrow. None below two rungs.
    """
    unit, variant, metric = found["unit"], "narrow" if narrow else "wide", str(task["metric"])
    placed = [(rung, score) for rung in found["rungs"] if rung[unit] and (score := drawn(rung, metric))]
    rungs = sorted(placed, key=lambda one: float(one[0][unit]))
    arms = [(arm, score) for arm in found["arms"] if (score := drawn(arm, metric))]
    if len(rungs) < 2:
        return None
    width, height, right = (350.0, 330.0, 122.0) if narrow else (960.0, 420.0, 150.0)
    sheet = Sheet(width, height, left=40, right=right, top=28, bottom=52)
    sheet.grid("y")
    equivalents = [value for arm, _ in arms if (value := _place(arm["data_equivalent"] or {}))]
    sheet.cost_x([*(rung[unit] for rung, _ in rungs), *equivalents], quantity(unit).show, quantity(unit).units)
    ends = [
        end for _, score in (*rungs, *arms) for end in (score.value, score.low, score.high) if end is not None
    ]  # fmt: skip
    room = (max(ends) - min(ends)) * 0.1 or 1.0
    sheet.axes.set_ylim(min(ends) - room * (1 + 0.3 * len(arms)), max(ends) + room)
    for at, (arm, score) in enumerate(arms):
        _adapter(sheet, arm["data_equivalent"] or {}, score, styles.get(arm["arm"], FROM_SCRATCH), 6 + 8 * at)
    sheet.axes.plot([rung[unit] for rung, _ in rungs], [score.value for _, score in rungs], color=INK, zorder=3)
    for rung, score in rungs:
        sheet.axes.errorbar([rung[unit]], [score.value], yerr=score.bars, fmt="o", color=INK, markersize=6, zorder=4,
                            elinewidth=1.4, markerfacecolor=SURFACE if rung["converged"] is False else INK)  # fmt: skip
    sheet.round_ticks("y", 6)
    _heading(sheet, task)
    _axis_name(sheet, f"{quantity(unit).name}, from scratch")
    named = [(arm["arm"], score.value, styles.get(arm["arm"], FROM_SCRATCH)) for arm, score in arms]
    _names_at_the_right(sheet, [*named, ("from scratch", rungs[-1][1].value, FROM_SCRATCH)])
    said = "; ".join(f"{arm['arm']} {(arm['data_equivalent'] or {}).get('words') or 'not known'}" for arm, _ in arms)
    description = f"Training from scratch on more and more data, and the adapters: {said}"
    return sheet.svg(f"transfer-{variant}", description, variant)


def _place(equivalent: dict[str, Any]) -> float | None:
    """Where a data equivalent is drawn: at its bound, where no more is known."""
    end = {"right-censored": "low", "left-censored": "high"}.get(equivalent.get("status") or "")
    found: float | None = equivalent.get("value")
    return equivalent.get(end) if found is None and end else found


def _adapter(sheet: Sheet, equivalent: dict[str, Any], score: Drawn, style: ArmStyle, above: float) -> None:
    """One adapter on the ladder: its level, and the data equivalent as a drop to its interval, `above` the axis by some
    pixels; an arrow for a bound."""
    axes, (low_end, high_end) = sheet.axes, sheet.axes.get_ylim()
    foot = low_end + (high_end - low_end) * above / sheet.inner_height
    _level(sheet, style, score)
    value, status = _place(equivalent), equivalent.get("status")
    if not value:
        return
    if status in _BOUNDS:
        arrow = {"arrowstyle": "-|>", "color": style.colour, "linewidth": 1.6}
        axes.annotate("", (value * _BOUNDS[status], score.value), (value, score.value), zorder=5, arrowprops=arrow)
    else:
        dots = ":" if status == "extrapolated" else "-"
        axes.plot([value, value], [foot, score.value], color=style.colour, linewidth=1.2, linestyle=dots)
    axes.plot([value], [score.value], style.marker, color=style.colour, markersize=8, zorder=5, markeredgewidth=1.6,
              markerfacecolor=style.colour if status == "interpolated" else SURFACE)  # fmt: skip
    low, high = equivalent.get("low"), equivalent.get("high")
    if low and high:
        axes.plot([low, high], [foot, foot], color=style.colour, linewidth=3.5, zorder=5, solid_capstyle="butt")
