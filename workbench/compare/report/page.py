"""A verdict and its evidence as one HTML page that needs nothing else: styles, plots, script and items stand inside."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workbench.compare.pareto import COST_MARGIN, COSTS
from workbench.compare.report import curves, plots, words
from workbench.compare.report.drawing import WORD_MARKS, arm_styles
from workbench.visible import visible

_ASSETS = Path(__file__).parent

_EMPTY: dict[str, Any] = {
    "name": "", "kind": "comparison", "question": "", "sentence": "", "complete": True, "missing": [], "suite": {},
    "reference": None, "arms": [], "contrasts": [], "tiers": {}, "noise_floor": [], "pareto": {}, "transfer": None,
    "gate": {}, "power": {}, "reproduce": [],
}  # fmt: skip
"""What a part of the verdict is where it is absent or null: its section then says so in a sentence."""

_FILTERS = {
    name: getattr(words, name)
    for name in ("score", "difference", "interval", "unit", "difference_unit", "significant", "scaled", "count", "size",
                 "flops", "seconds", "joules", "usd", "probability", "plain", "adjustment", "energy_source")
}  # fmt: skip

EQUIVALENTS = (
    ("data_equivalent", "Data equivalent", None),
    ("data_transferred", "Data transferred", None),
    ("multiplier", "Multiplier of the data", "times"),
    ("compute_equivalent", "Compute equivalent", "training_flops"),
    ("time_equivalent", "Time equivalent", "device_seconds"),
    ("money_equivalent", "Money equivalent", "usd"),
    ("leverage", "Leverage of the compute", "times"),
    ("adapters_to_pay_off", "Adapters until the base has paid off", "count"),
)
"""The figures of the transfer table: field, name, and the quantity it counts (None: the ladder's own unit)."""

STATUSES = {
    "interpolated": "between two rungs of the ladder",
    "extrapolated": "beyond the ladder: the curve was continued, so this is a guess",
    "right-censored": "more than the largest rung: only a lower bound",
    "left-censored": "less than the smallest rung: only an upper bound",
    "not converged": "the arm or a rung was still improving when it ended: longer training would move the figure",
}


_LONG_SENTENCE = 220
"""Characters of a headline above which it is set smaller: many arms of long names would make a wall of it."""

_MOST_DRAWN = 40
"""Exploratory differences that are drawn; more of them are in a table only: twenty arms have 190 pairs."""


def render(verdict: dict[str, Any], evidence: dict[str, Any]) -> str:
    """The report as HTML. The same verdict and evidence give the same text.

    Everything in them is shown as text, whatever it looks like: markup in an item or a name stays visible as markup.
    A part that is empty, null or absent leaves a sentence instead of its section.
    """
    verdict = _EMPTY | {key: value for key, value in verdict.items() if value is not None}
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    environment.filters.update(_FILTERS, amount=_amount)
    script = (_ASSETS / "items.js").read_text(encoding="utf-8")
    tasks = {task["id"]: task for task in verdict["suite"].get("tasks") or []}
    styles = arm_styles([arm["name"] for arm in verdict["arms"]])
    figures = _figures(verdict, evidence, tasks, styles)
    return environment.get_template("template.html.j2").render(
        verdict=verdict,
        evidence=evidence,
        tasks=tasks,
        primary=_primary(tasks),
        suggestive=_suggestive(verdict["contrasts"]),
        styles=styles,
        figures=figures,
        marks=WORD_MARKS,
        equivalents=EQUIVALENTS,
        statuses=STATUSES,
        quantity=curves.quantity,
        long_sentence=len(verdict["sentence"]) > _LONG_SENTENCE,
        cost_margin=round(100 * (COST_MARGIN - 1)),
        measured_costs=_listed([cost.label for cost in COSTS if cost.measured]),
        items=_items(evidence, tasks, styles),
        style_sheet=Markup((_ASSETS / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _shown(value: Any) -> Any:
    """Plain text without characters that would be obeyed or would turn the writing round; markup of ours as it is."""
    return visible(value) if type(value) is str else value


def _listed(names: list[str]) -> str:
    """Names in a row: `time, energy and money`."""
    return " and ".join([", ".join(names[:-1]), names[-1]])


def _primary(tasks: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks that were trained for; all of them where there is none."""
    return [task for task in tasks.values() if task["role"] == "target"] or list(tasks.values())


def _suggestive(contrasts: list[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """The declared contrasts that rest on one seed: (arm, against) -> tasks."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in contrasts:
        if one["family"] == "declared" and one["suggestive"]:
            found.setdefault((one["arm"], one["against"]), []).append(one["task"])
    return found


def _amount(value: float | None, kind: str | None, unit: str) -> str:
    """A figure of the transfer table in its own quantity."""
    if kind == "times":
        return words.UNKNOWN if value is None else f"{words.significant(value)} ×"
    return words.count(value) if kind == "count" else curves.quantity(kind or unit).show(value)


def _figures(
    verdict: dict[str, Any], evidence: dict[str, Any], tasks: dict[str, dict[str, Any]], styles: plots.Styles
) -> dict[str, Any]:
    """Every plot of the page, by section; a plot with nothing to draw is not there."""
    forests = {}
    for task in _primary(tasks):
        for family in ("declared", "exploratory"):
            rows = [one for one in verdict["contrasts"] if one["task"] == task["id"] and one["family"] == family]
            if rows and (family == "declared" or len(rows) <= _MOST_DRAWN):
                forests[task["id"], family] = _both(partial(plots.forest, rows, task))
    kept = {}
    for task in tasks.values():
        arms = [arm for arm in verdict["arms"] if task["id"] in (arm.get("retention") or {})]
        if arms:
            kept[task["id"]] = _both(partial(plots.forgetting, arms, styles, task))
    found = verdict["transfer"]
    ladder = found and found["task"] in tasks and _both(partial(curves.transfer, found, tasks[found["task"]], styles))
    fronts = [
        curves.pareto(verdict, cost, tasks[front["task"]], styles)
        for cost, front in verdict["pareto"].items()
        if front["task"] in tasks
    ]
    losses = [curves.learning(evidence.get("learning") or [], x, styles) for x in ("examples", "training_flops")]
    return {
        "forest": forests,
        "forgetting": kept,
        "transfer": ladder,
        "pareto": [plot for plot in fronts if plot],
        "learning": [plot for plot in losses if plot],
    }


def _both(draw: Any) -> Markup:
    """A plot for wide and for narrow pages; the style sheet shows one of them."""
    wide, narrow = draw(narrow=False), draw(narrow=True)
    return wide + narrow if wide and narrow else Markup("")


def _readable(value: Any) -> Any:
    """A JSON value with every text in it as `visible` shows it."""
    if isinstance(value, dict):
        return {visible(key): _readable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_readable(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


def _items(evidence: dict[str, Any], tasks: dict[str, dict[str, Any]], styles: plots.Styles) -> Markup | None:
    """The items as JSON for the page's script, fit to stand inside a script element."""
    rows = evidence.get("items") or []
    if not rows:
        return None
    present = {name for row in rows for name in row["answers"]}
    held = {
        "arms": [name for name in styles if name in present] + sorted(present - styles.keys()),
        "tasks": [
            {"id": task, "higher": facts["higher_is_better"], "perCent": words.in_per_cent(facts["metric"])}
            for task, facts in tasks.items()
            if any(row["task"] == task for row in rows)
        ],
        "items": rows,
    }
    text = json.dumps(_readable(held), allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
