"""A verdict in one sentence, made from its plain values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from workbench import documents
from workbench.compare.arms import ArmRuns
from workbench.compare.report import words
from workbench.runs.run import Run

_ORDER = ("better", "worse", "equivalent", "inconclusive")
_MOST = 4


def label(arm: ArmRuns) -> str:
    """What an arm is: method, and what it starts from."""
    facts = arm.facts[0]
    base = arm.base_name
    if not arm.trains:
        return f"{base} as it is" if arm.is_fixed else f"{base}, random weights"
    method = str(facts["method.name"])
    variant = facts.get("method.variant", "plain")
    rank = f" r={facts['method.rank']}" if "method.rank" in facts else ""
    kind = method if variant == "plain" else variant
    return f"{kind}{rank} on {base}" + (" from scratch" if arm.from_scratch else "")


def command(run: Run) -> str:
    """What trains a run again (or finds it)."""
    root = documents.display(run.path.parent)
    elsewhere = "" if root == "runs" else f" --runs {shlex.quote(root)}"
    return f"workbench train {shlex.quote(documents.display(run.recipe_file))}{elsewhere}"


def of(verdict: Mapping[str, Any]) -> str:
    """The declared contrasts on the first task that was trained for, and what an adapter equals from scratch."""
    tasks = verdict["suite"]["tasks"]
    task = next((one for one in tasks if one["role"] == "target"), tasks[0])
    told = [one for one in verdict["contrasts"] if one["task"] == task["id"] and one["family"] == "declared"]
    if not told:
        return f"On {task['id']}, no declared contrast can be judged."
    parts = []
    for against in dict.fromkeys(one["against"] for one in told):
        of_reference = [one for one in told if one["against"] == against]
        by_word = {word: [one for one in of_reference if one["word"] == word] for word in _ORDER}
        said = [_group(word, found, task) for word, found in by_word.items() if found]
        parts.append(f"against {against}, {'; '.join(said)}")
    text = f"On {task['id']}, {'; '.join(parts)}."
    if missing := len(verdict["missing"]):
        text += f" Incomplete: {missing} run{'s are' if missing > 1 else ' is'} not in it."
    text += _lost(verdict)
    if any(one["suggestive"] for one in told):
        text += " Suggestive at most: one seed."
    if any(one["confounded"] for one in told):
        text += " Confounded: the arms differ in more than was declared."
    return text + _transferred(verdict["transfer"])


def _lost(verdict: Mapping[str, Any]) -> str:
    """What the arms forgot, or kept: the change on each task that was to be retained."""
    said = ""
    for task in (task for task in verdict["suite"]["tasks"] if task["role"] == "retention"):
        metric, id_ = task["metric"], task["id"]
        changes = [(arm["name"], arm["retention"][id_]["change"]) for arm in verdict["arms"] if id_ in arm["retention"]]
        if changes:
            named = [f"{name} {words.difference(change, metric)}" for name, change in changes[:_MOST]]
            more = ["..."] if len(changes) > _MOST else []
            said += f" Since the base, {id_} ({words.difference_unit(metric)}): {', '.join(named + more)}."
    return said


def _group(word: str, found: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> str:
    metric = task["metric"]
    named = [
        f"{one['arm']} ({words.difference(one['difference'], metric)} {words.difference_unit(metric)}, "
        f"{words.interval(one['low'], one['high'], metric)})"
        for one in found[:_MOST]
    ]
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    names = ", ".join(named[:-1]) + f" and {named[-1]}" if len(named) > 1 and not more else ", ".join(named) + more
    return f"{names} {'is' if len(found) == 1 else 'are'} {word}"


def _transferred(transfer: Mapping[str, Any] | None) -> str:
    if not transfer:
        return ""
    if transfer["suggestive"]:
        return ""
    interpolated = [one for one in transfer["arms"] if one["data_equivalent"]["status"] == "interpolated"]
    told = "; ".join(f"{one['arm']} {one['data_equivalent']['words']}" for one in interpolated[:_MOST])
    return f" By the {transfer['kind']} ladder, {told}." if told else ""
