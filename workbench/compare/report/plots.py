"""The plots with a row for each thing: the forest of differences, and what each arm forgot. Each is drawn wide, for a
screen or paper, and narrow, for a phone; numbers that are not known are left out, and the tables say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from workbench.compare.report import words
from workbench.compare.report.drawing import (
    ACCENT,
    FONT,
    INK,
    MUTED,
    SURFACE,
    WORD_COLOURS,
    WORD_MARKS,
    ArmStyle,
    Sheet,
)

Styles = dict[str, ArmStyle]


@dataclass(frozen=True)
class Drawn:
    """A number and its interval in the units that are drawn: fractions in per cent."""

    value: float
    low: float | None
    high: float | None

    @property
    def bars(self) -> tuple[list[float], list[float]]:
        """The two lengths of the error bar, as matplotlib wants them; an end that is not known has none."""
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return [max(self.value - low, 0.0)], [max(high - self.value, 0.0)]


def drawn(found: dict[str, Any], metric: str, key: str = "value") -> Drawn | None:
    """The number under `key` with its `low` and `high`; None where it is not known."""
    if found[key] is None:
        return None
    low, high = (None if found[end] is None else found[end] * shown_factor(metric) for end in ("low", "high"))
    return Drawn(found[key] * shown_factor(metric), low, high)


def shown_factor(metric: str) -> float:
    """What a score is multiplied with to be drawn."""
    return 100.0 if words.in_per_cent(metric) else 1.0


def forest(contrasts: list[dict[str, Any]], task: dict[str, Any], narrow: bool) -> Markup:
    """Differences on one task with their 95 % intervals, the margin as a band, the verdict's word beside each.

    `contrasts` are of one family. Exploratory ones are finer; an inconclusive one has a hollow marker.
    """
    metric, variant = str(task["metric"]), "narrow" if narrow else "wide"
    step, left, right, width = (68.0, 14.0, 14.0, 350.0) if narrow else (30.0, 220.0, 310.0, 960.0)
    sheet = Sheet(width, 70 + step * len(contrasts), left=left, right=right, top=26, bottom=44)
    axes = sheet.axes
    sheet.rows()
    sheet.grid("x")
    margin = (task["margin"] or 0.0) * shown_factor(metric)
    axes.axvspan(-margin, margin, color=ACCENT, alpha=0.13, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=1)
    placed: dict[str, list[tuple[float, Drawn]]] = {}
    for at, contrast in enumerate(contrasts):
        middle = (at + (0.8 if narrow else 0.5)) * step
        if narrow:
            sheet.clear(at * step, at * step + 40)
        _forest_text(sheet, contrast, metric, sheet.top + (at * step + 13 if narrow else middle), narrow)
        if shown := drawn(contrast, metric, "difference"):
            placed.setdefault(contrast["word"], []).append((middle, shown))
    strong = contrasts[0]["family"] == "declared"
    for word, rows in placed.items():  # one call for many rows: twenty arms have 190 pairs
        colour = WORD_COLOURS[word]
        axes.errorbar([shown.value for _, shown in rows], [middle for middle, _ in rows],
                      xerr=np.hstack([shown.bars for _, shown in rows]), fmt="o", color=colour, zorder=3,
                      markerfacecolor=SURFACE if word == "inconclusive" else colour,
                      markersize=7.5 if strong else 5, markeredgewidth=1.8 if strong else 1.2,
                      elinewidth=2.2 if strong else 1.1)  # fmt: skip
    axes.margins(x=0.06)
    sheet.round_ticks("x", 5 if narrow else 7)
    _directions(sheet, task)
    said = "; ".join(
        f"{one['arm']} against {one['against']} {words.difference(one['difference'], metric)} "
        f"{words.difference_unit(metric)}, {one['word']}"
        for one in contrasts
    )
    family = contrasts[0]["family"]
    return sheet.svg(f"forest-{family}-{variant}-{task['id']}", f"Differences on {task['id']}: {said}", variant)


def _forest_text(sheet: Sheet, contrast: dict[str, Any], metric: str, line: float, narrow: bool) -> None:
    """Who against whom, the word, the difference and its interval, at a height in pixels; on two lines if narrow."""
    limit = 21 if narrow else 15
    name = f"{words.short(contrast['arm'], limit)} − {words.short(contrast['against'], limit)}"
    doubts = "*" * contrast["suggestive"] + "†" * contrast["confounded"]
    word = f"{WORD_MARKS[contrast['word']]} {contrast['word']}{doubts}"
    amount = words.difference(contrast["difference"], metric)
    look = {"fontweight": "bold" if contrast["family"] == "declared" else "normal"}
    sheet.write(0, line, name, **look)
    colour = WORD_COLOURS[contrast["word"]]
    limits = words.interval(contrast["low"], contrast["high"], metric)
    if narrow:
        sheet.write(0, line + 17, word, color=colour, **look)
        numbers = f"{amount} ({limits})" if limits else amount
        sheet.write(sheet.width, line + 17, numbers, ha="right", **look)
        return
    sheet.write(sheet.width - 282, line, word, color=colour, **look)
    sheet.write(sheet.width - 118, line, amount, ha="right", **look)
    sheet.write(sheet.width - 110, line, f"({limits})" if limits else "", color=MUTED, fontsize=FONT - 1)


def _directions(sheet: Sheet, task: dict[str, Any]) -> None:
    """Which side of zero is the good one, above the axes, and the unit below."""
    right, left = ("better →", "← worse") if task["higher_is_better"] else ("worse →", "← better")
    low, high = sheet.axes.get_xlim()
    zero = sheet.inner_width * (0 - low) / (high - low)
    if zero > 70:
        sheet.write(sheet.left + zero - 8, 14, left, ha="right", color=MUTED, fontsize=FONT - 1)
    if sheet.inner_width - zero > 70:
        sheet.write(sheet.left + zero + 8, 14, right, color=MUTED, fontsize=FONT - 1)
    unit = words.difference_unit(str(task["metric"]))
    sheet.write(sheet.left + sheet.inner_width / 2, sheet.height - 10, f"difference, {unit}", ha="center", color=MUTED,
                fontsize=FONT - 1)  # fmt: skip


def forgetting(arms: list[dict[str, Any]], styles: Styles, task: dict[str, Any], narrow: bool) -> Markup:
    """One retention task before and after training: a hollow marker, an arrow, a filled marker with its interval.

    `arms` are those that have the task in their `retention`.
    """
    metric, variant = str(task["metric"]), "narrow" if narrow else "wide"
    step, left, right, width = (50.0, 14.0, 14.0, 350.0) if narrow else (34.0, 220.0, 270.0, 960.0)
    sheet = Sheet(width, 60 + step * len(arms), left=left, right=right, top=16, bottom=44)
    sheet.rows()
    sheet.grid("x")
    for at, arm in enumerate(arms):
        kept, middle = arm["retention"][task["id"]], (at + (0.72 if narrow else 0.5)) * step
        line = sheet.top + (at * step + 14 if narrow else middle)
        if narrow:
            sheet.clear(at * step, at * step + 24)
        sheet.write(0, line, words.short(arm["name"], 24))
        moved = f"{words.score(kept['before'], metric)} → {words.score(kept['after'], metric)}"
        sheet.write(width - (0 if narrow else 250), line, moved, ha="right" if narrow else "left")
        if not narrow:
            change = f"{words.difference(kept['change'], metric)} {words.difference_unit(metric)}"
            sheet.write(width, line, change, ha="right", color=MUTED)
        _moved(sheet, kept, styles[arm["name"]], metric, middle)
    sheet.axes.margins(x=0.08)
    sheet.round_ticks("x", 5)
    better = "higher" if task["higher_is_better"] else "lower"
    sheet.write(sheet.left + sheet.inner_width / 2, sheet.height - 10, f"{words.unit(metric)} ({better} is better)",
                ha="center", color=MUTED, fontsize=FONT - 1)  # fmt: skip
    said = "; ".join(
        f"{arm['name']} from {words.score(arm['retention'][task['id']]['before'], metric)} to "
        f"{words.score(arm['retention'][task['id']]['after'], metric)}"
        for arm in arms
    )
    return sheet.svg(f"forgetting-{variant}-{task['id']}", f"{task['id']} before and after training: {said}", variant)


def _moved(sheet: Sheet, kept: dict[str, Any], style: ArmStyle, metric: str, line: float) -> None:
    """From before to after; the change's interval lies around the score after training."""
    change, factor = drawn(kept, metric, "change"), shown_factor(metric)
    if change is None or kept["before"] is None:
        return
    before, after = kept["before"] * factor, kept["before"] * factor + change.value
    arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.2, "shrinkB": 5}
    sheet.axes.annotate("", (after, line), (before, line), zorder=2, arrowprops=arrow)
    sheet.axes.plot([before], [line], "o", markersize=7, markerfacecolor=SURFACE, markeredgecolor=INK, zorder=3)
    sheet.axes.errorbar([after], [line], xerr=change.bars, fmt=style.marker, color=style.colour, markersize=8,
                        elinewidth=2, zorder=4)  # fmt: skip
