"""Numbers as a person reads them: three significant digits, a unit, a real minus sign. What is not known is a dash."""

from __future__ import annotations

UNKNOWN = "–"

_FRACTIONS = ("exact_match", "acc", "accuracy", "f1", "contains", "rate")
"""Beginnings of the names of metrics between 0 and 1 that are read in per cent."""

_STEPS = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))

_ENERGY_SOURCES = {
    "nvml_counter": "measured by the GPU's own counter",
    "nvml_power": "summed from the GPU's power readings",
    "rapl": "measured by the CPU's own counter",
    "target_estimate": "an estimate from the target's rated power, not a measurement",
    "none": "not measured",
}


def in_per_cent(metric: str) -> bool:
    """Whether a metric is a fraction of items, read in per cent and in points."""
    return metric.startswith(_FRACTIONS)


def unit(metric: str) -> str:
    """The unit of a score: `%`, `bits per byte`, or the metric's own name."""
    if in_per_cent(metric):
        return "%"
    return "bits per byte" if metric.endswith("bits_per_byte") else metric.replace("_", " ")


def difference_unit(metric: str) -> str:
    """The unit of a difference of two scores: `points` for fractions."""
    return "points" if in_per_cent(metric) else unit(metric)


def score(value: float | None, metric: str) -> str:
    """A score without its unit: `94.8`, `2.104`."""
    if value is None:
        return UNKNOWN
    text = f"{value * 100:.1f}" if in_per_cent(metric) else f"{value:.3f}"
    return text.replace("-", "−")


def difference(value: float | None, metric: str) -> str:
    """A signed difference without its unit: `+94.8`, `−0.013`."""
    text = score(value, metric)
    return f"+{text}" if value is not None and value > 0 else text


def interval(low: float | None, high: float | None, metric: str) -> str:
    """`93.1 to 96.3`; nothing where neither end is known."""
    return "" if low is None and high is None else f"{score(low, metric)} to {score(high, metric)}"


def scaled(value: float | None, unit: str = "") -> str:
    """A number with its decimal prefix: `100 k`, `1.80 M`, `10.0 TFLOP` (powers of 1000, three significant digits)."""
    if value is None:
        return UNKNOWN
    size, prefix = next(((size, prefix) for size, prefix in _STEPS if abs(value) >= size * 0.9995), (1.0, ""))
    return f"{significant(value / size)} {prefix}{unit}".rstrip()


def significant(value: float | None) -> str:
    """Three significant digits, without an exponent for anything from a ten-thousandth upwards."""
    if value is None:
        return UNKNOWN
    if value == int(value) and abs(value) < 1e6:
        return str(int(value)).replace("-", "−")
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}".replace("-", "−")
    decimals = next((digits for digits in range(7) if abs(value) >= 10 ** (2 - digits) * 0.9995), 7)
    return f"{value:.{decimals}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A count of things: `7,500`, `1.80 M`."""
    return f"{round(value):,}" if value is not None and abs(value) < 1e5 else scaled(value)


def size(value: float | None) -> str:
    """Bytes: `400 kB`."""
    return scaled(value, "B")


def flops(value: float | None) -> str:
    """Floating-point operations: `10.0 TFLOP`."""
    return scaled(value, "FLOP")


def seconds(value: float | None) -> str:
    """A duration: `23.1 s`, `4.2 min`, `3.1 h`, `2.5 days`."""
    if value is None:
        return UNKNOWN
    for length, name in ((172800.0, "days"), (5400.0, "h"), (120.0, "min")):
        if value >= length:
            return f"{significant(value / {'days': 86400.0, 'h': 3600.0, 'min': 60.0}[name])} {name}"
    return f"{significant(value)} s"


def joules(value: float | None) -> str:
    """Energy: `812 J`, `1.20 MJ`."""
    return scaled(value, "J")


def usd(value: float | None) -> str:
    """Money: `$0.01`; below a cent with two significant digits."""
    if value is None:
        return UNKNOWN
    return f"${value:,.2f}" if value >= 0.01 or value == 0 else f"${value:.2g}"


def probability(value: float | None) -> str:
    """A p-value: three decimals, never 0."""
    if value is None:
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plain(value: float | None) -> str:
    """An assumed number as it was stated: `0.01`, `0.5`."""
    return UNKNOWN if value is None else f"{value:g}"


def adjustment(name: str) -> str:
    """The people whose correction for several comparisons was used: `Benjamini–Hochberg`."""
    return "–".join(part.capitalize() for part in name.split("-"))


def energy_source(name: str | None) -> str:
    """Where a number of joules comes from."""
    return _ENERGY_SOURCES.get(name or "none", str(name))


def short(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    kept = limit - 1
    return f"{text[: kept - kept // 3]}…{text[len(text) - kept // 3 :]}"
