"""The paper the plots are drawn on: matplotlib figures in pixels, turned into SVG that takes its colours and its font
from the page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from workbench.visible import visible

FONT = 12.0
_PIXELS_PER_INCH = 72.0  # a typographic point is then a pixel, and the SVG's view box counts pixels

_VARIABLES = ("ink", "muted", "line", "surface", "accent", "better", "worse", "equivalent", "inconclusive",
              *(f"arm-{number}" for number in range(8)))  # fmt: skip
INK, MUTED, LINE, SURFACE, ACCENT, *_REST = COLOURS = tuple(f"#fe{number:02x}dc" for number in range(len(_VARIABLES)))
"""Colours that nothing means: each is replaced by a variable of the style sheet, so that plots have a dark mode too."""

WORD_COLOURS = dict(zip(("better", "worse", "equivalent", "inconclusive"), _REST, strict=False))
WORD_MARKS = {"better": "▲", "worse": "▼", "equivalent": "=", "inconclusive": "?"}

_LINEAR_BELOW = 3.0
"""The ratio of the largest to the least cost below which an axis is linear: too few round numbers lie between."""

_DASHES = ((1.0, 0.0), (5.0, 2.0), (1.5, 1.8), (7.0, 2.0, 1.5, 2.0))
_MARKERS = {
    "o": "M13 1.2a3.8 3.8 0 1 0 .01 0z",
    "s": "M9.6 1.6h6.8v6.8h-6.8z",
    "^": "M13 .6l4.2 7.8h-8.4z",
    "D": "M13 .4l4.6 4.6-4.6 4.6-4.6-4.6z",
    "v": "M13 9.4l4.2-7.8h-8.4z",
    "P": "M11.7.8h2.6v2.9h2.9v2.6h-2.9v2.9h-2.6v-2.9h-2.9v-2.6h2.9z",
    "X": "M10.4.8l2.6 2.6 2.6-2.6 1.6 1.6-2.6 2.6 2.6 2.6-1.6 1.6-2.6-2.6-2.6 2.6-1.6-1.6 2.6-2.6-2.6-2.6z",
    "h": "M13 .6l3.9 2.2v4.4l-3.9 2.2-3.9-2.2v-4.4z",
}
"""matplotlib's name of a marker -> the same shape as an SVG path in a box of 26 by 10."""


@dataclass(frozen=True)
class ArmStyle:
    """How one arm looks everywhere: a colour, a dash and a marker, so that no colour has to be told apart."""

    colour: str
    dashes: tuple[float, ...]
    marker: str
    variable: str

    @property
    def swatch(self) -> Markup:
        """The arm's line and marker as a small picture for tables and legends."""
        dashes = " ".join(f"{length:g}" for length in self.dashes)
        return Markup(
            '<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true">'
            '<path d="M0 5H26" stroke="var(--{0})" stroke-width="1.6" stroke-dasharray="{1}"/>'
            '<path d="{2}" fill="var(--{0})"/></svg>'
        ).format(self.variable, dashes, _MARKERS[self.marker])


def arm_styles(names: list[str]) -> dict[str, ArmStyle]:
    """A look for every arm, by its place in the study."""
    markers = list(_MARKERS)
    return {
        name: ArmStyle(
            COLOURS[-8 + at % 8], _DASHES[(at + at // 8) % len(_DASHES)], markers[at % len(markers)], f"arm-{at % 8}"
        )
        for at, name in enumerate(names)
    }


class Sheet:
    """A figure of a given size in pixels with one pair of axes inside the margins; text is placed from the top left."""

    def __init__(self, width: float, height: float, *, left: float, right: float, top: float, bottom: float) -> None:
        self.width, self.height, self.left, self.top = width, height, left, top
        self.inner_width, self.inner_height = width - left - right, height - top - bottom
        self.figure = Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), dpi=_PIXELS_PER_INCH)
        self.figure.patch.set_visible(False)
        self.axes: Axes = self.figure.add_axes(
            (left / width, bottom / height, self.inner_width / width, self.inner_height / height)
        )
        self.axes.patch.set_visible(False)
        for name, spine in self.axes.spines.items():
            spine.set_visible(name == "bottom")
            spine.set_color(LINE)
        self.axes.tick_params(which="both", colors=MUTED, labelsize=FONT - 1, length=0, pad=6)
        self.axes.set_axisbelow(True)

    def rows(self) -> None:
        """Let the vertical axis count pixels downwards: what is drawn there is a list of rows."""
        self.axes.set_ylim(self.inner_height, 0)
        self.axes.set_yticks([])

    def write(self, x: float, y: float, text: str, **look: Any) -> None:
        """Text at a place in pixels from the sheet's top left."""
        look = {"fontsize": FONT, "color": INK, "va": "center", **look}
        self.figure.text(x / self.width, 1 - y / self.height, visible(text), parse_math=False, **look)

    def grid(self, which: str) -> None:
        """Hairlines on one axis (`x` or `y`)."""
        self.axes.grid(visible=True, axis=which, color=LINE, linewidth=0.8)  # type: ignore[arg-type]

    def round_ticks(self, which: str, count: int) -> None:
        """At most so many round numbers on one axis (`x` or `y`), all with the same decimals."""
        axis = self.axes.xaxis if which == "x" else self.axes.yaxis
        axis.set_major_locator(MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
        self.axes.ticklabel_format(axis=which, style="plain")  # type: ignore[arg-type]

    def mark(self, x: float, y: float, style: ArmStyle) -> None:
        """An arm's marker at a place in pixels from the sheet's top left."""
        self.figure.add_artist(
            Line2D([x / self.width], [1 - y / self.height], marker=style.marker, color=style.colour, markersize=6,
                   transform=self.figure.transFigure)
        )  # fmt: skip

    def clear(self, above: float, below: float) -> None:
        """Nothing of the grid or of a band shows between two heights of the rows: text stands there."""
        self.axes.axhspan(above, below, color=SURFACE, linewidth=0, zorder=2.5)

    def cost_x(self, values: list[float], show: Callable[[float], str], units: Sequence[float] = (1.0,)) -> None:
        """A horizontal axis around some positive values, logarithmic where the largest is three times the least.

        `show` and `units` as in `cost_ticks`.
        """
        low, high = min(values), max(values)
        is_log = high / low >= _LINEAR_BELOW
        self.axes.set_xscale("log" if is_log else "linear")
        ends = low / max((high / low) ** 0.12, 1.25), high * max((high / low) ** 0.22, 1.6)
        self.axes.set_xlim(*ends)
        ticks = cost_ticks(*ends, self.inner_width, show, units, is_log=is_log)
        self.axes.xaxis.set_major_locator(FixedLocator(ticks))
        self.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
        self.axes.xaxis.set_minor_locator(NullLocator())

    def svg(self, name: str, description: str, variant: str = "") -> Markup:
        """The figure as an SVG element: no date, no fixed colours, no font of its own; `name` keeps its ids apart.

        The same drawing gives the same bytes.
        """
        written = io.StringIO()
        settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}
        with matplotlib.rc_context(settings), warnings.catch_warnings():
            # The browser's font is used, not the one that the text is measured with here.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
            self.figure.savefig(written, format="svg", metadata={"Date": None})
        return _for_the_page(written.getvalue(), name, description, variant, self.width)


def _for_the_page(text: str, name: str, description: str, variant: str, width: float) -> Markup:
    body = text[text.index("<svg") :]
    body = body[body.index(">") + 1 :]
    view_box = re.search(r'viewBox="([^"]*)"', text)
    assert view_box is not None
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    # Only tags are touched: an arm's name stays as it is, whatever it looks like.
    body = re.sub(r"<[^>]+>", lambda tag: _restyled(tag[0], name), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return Markup('<svg class="plot {}" viewBox="{}" role="img" aria-label="{}" style="max-width:{}px">').format(
        variant, view_box[1], visible(description), round(width * 1.15)
    ) + Markup(body)


def _restyled(tag: str, name: str) -> str:
    """One tag without a font family and without ids that nothing refers to, its colours from the style sheet."""
    tag = re.sub(r' id="[^"]*"', "", tag) if tag.startswith("<g") else tag
    tag = re.sub(r"\b(id=\"|url\(#)", rf"\g<1>{name}-", tag).replace('xlink:href="#', f'href="#{name}-')
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    tag = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)
    for colour, variable in zip(COLOURS, _VARIABLES, strict=True):
        tag = tag.replace(colour, f"var(--{variable})")
    return tag


def spread(wanted: list[float], gap: float, top: float) -> list[float]:
    """Places as near the wanted ones as they can be when none is nearer to another than `gap` nor above `top`."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    placed = [0.0] * len(wanted)
    floor = float("-inf")
    for at in order:
        floor = placed[at] = max(wanted[at], floor + gap)
    ceiling = top
    for at in reversed(order):
        ceiling = placed[at] = min(placed[at], ceiling)
        ceiling -= gap
    return placed


_LABEL_GAP = 8.0
_LETTER = 0.6 * (FONT - 1)
"""About the width of a letter in a tick's label, in pixels: the browser's font is not known here."""


def cost_ticks(
    low: float,
    high: float,
    width: float,
    show: Callable[[float], str],
    units: Sequence[float] = (1.0,),
    *,
    is_log: bool = True,
) -> list[float]:
    """Round numbers for an axis of some pixels: the most, up to four, whose labels keep apart.

    Of as many, those with the shorter labels and then the wider spaced are taken. A wide axis has more than four.

    Args:
        low, high: the ends of the axis, positive.
        show: the label of a number.
        units: what a number is round in, the smallest first, such as 1, 60 and 3600 where seconds are shown as minutes
            and hours.
    """
    ranked = []
    for found in _in_decades(low, high, units) if is_log else _in_equal_steps(low, high, units):
        ticks = np.array([tick for tick in found if low < tick < high])
        labels = [show(tick) for tick in ticks]
        places = np.log(ticks / low) / np.log(high / low) if is_log else (ticks - low) / (high - low)
        lengths = np.array([len(label) for label in labels], dtype=float)
        gaps = width * np.diff(places) - _LETTER * (lengths[1:] + lengths[:-1]) / 2
        apart = float(gaps.min(initial=width))
        if len(ticks) <= max(4, width // 110) and apart >= _LABEL_GAP and len(set(labels)) == len(labels):
            ranked.append((len(ticks), -float(lengths.sum()), apart, [float(tick) for tick in ticks]))
    return max(ranked)[-1] if ranked else []


def _in_decades(low: float, high: float, units: Sequence[float]) -> Iterator[list[float]]:
    """Rows of numbers around an interval: some of 1, 2 and 5 in every decade, or a 1 every few decades."""
    for unit in units:
        first, last = math.floor(math.log10(low / unit)), math.ceil(math.log10(high / unit))
        # A part of a minute is not round, a part of the smallest unit is.
        powers = [power for power in range(first, last + 1) if power >= 0 or unit == units[0]]
        for digits in ((1, 2, 5), (1, 2), (1, 5), (2, 5), (1,), (2,), (5,)):
            yield [unit * digit * 10.0**power for power in powers for digit in digits]
        for every in (2, 3, 4):
            yield [unit * 10.0**power for power in powers if power % every == 0]


def _in_equal_steps(low: float, high: float, units: Sequence[float]) -> Iterator[list[float]]:
    """Rows of multiples of 1, 2 or 5 times a power of ten, some of them with all but every second left out."""
    for unit in units:
        most = math.floor(math.log10((high - low) / unit))
        for step in (digit * 10.0**power for power in (most - 1, most) for digit in (1, 2, 5)):
            if step < 1 and unit != units[0]:
                continue
            found = [
                unit * step * number for number in range(math.ceil(low / unit / step), int(high / unit / step) + 1)
            ]
            yield from (found, found[::2], found[1::2])
