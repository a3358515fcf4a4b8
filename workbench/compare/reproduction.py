"""A finished run held against the same recipe and seed trained again: item by item, byte by byte, cost by cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workbench import files, fingerprint
from workbench.compare import scores
from workbench.compare.contrasts import TaskScores
from workbench.compare.scores import Scored
from workbench.recipe.identity import identity_hash
from workbench.runs.run import Run

SCHEMA = 1
"""Raised when reproduction.json changes its shape."""

COSTS = ("training_flops", "device_seconds", "joules", "usd", "peak_memory_bytes", "evaluation_seconds")
"""Fields of cost.json that are shown side by side."""
_ORIGINAL, _AGAIN = "original", "reproduction"


def figures(original: Run, again: Run) -> dict[str, Any]:
    """Everything that tells whether a run was reproduced, as plain values.

    `inside` is true where every task's new value lies in the original's 95 % interval. Without a suite there is no
    interval: then only equal bytes will do.

    Raises:
        ComparisonRefusedError: the two were scored on other items.
    """
    suite = again.resolved().suite
    tasks = _tasks(original, again, suite.name) if suite else []
    adapters = _adapters(original, again)
    costs = [files.read_json(run.cost) for run in (original, again)]
    inside = all(task["inside"] for task in tasks) if tasks else bool(adapters and adapters["equal"])
    return {
        "schema": SCHEMA,
        "original": {"run": original.name, "identity": identity_hash(files.read_json(original.identity_file))},
        "reproduction": {"run": again.name, "identity": identity_hash(files.read_json(again.identity_file))},
        "inside": inside,
        "suite": suite.name if suite else None,
        "tasks": tasks,
        "adapters": adapters,
        "last_loss": {
            _ORIGINAL: files.read_json(original.status)["last_loss"],
            _AGAIN: files.read_json(again.status)["last_loss"],
        },
        "differing": differing(files.read_json(original.manifest), files.read_json(again.manifest)),
        "cost": {key: {_ORIGINAL: costs[0].get(key), _AGAIN: costs[1].get(key)} for key in COSTS},
    }


def _tasks(original: Run, again: Run, suite: str) -> list[dict[str, Any]]:
    before, after = Scored(original, suite), Scored(again, suite)
    return [_task(table, before, after) for table in scores.read({_ORIGINAL: [before], _AGAIN: [after]})]


def _task(table: scores.TaskTable, before: Scored, after: Scored) -> dict[str, Any]:
    """One task: the original's value with its interval, the new value, and the difference over the same items. (No
    seed is drawn between the two, so that items are all that the interval is over.)"""
    made = TaskScores(table.values, table.weights, table.clusters, fixed=frozenset(table.values))
    found = made.contrast(_AGAIN, _ORIGINAL)
    was, value = before.results["tasks"][table.task], after.results["tasks"][table.task]["value"]
    low, high = was["low"], was["high"]
    return {
        "id": table.task,
        "metric": table.metric,
        "original": {"value": was["value"], "low": low, "high": high},
        "reproduced": value,
        "difference": {"value": found.difference, "low": found.low, "high": found.high},
        "inside": (low is None or low <= value) and (high is None or value <= high),
    }


def _adapters(original: Run, again: Run) -> dict[str, Any] | None:
    """Whether the saved weights are the same bytes, and whether they should be; None where nothing was trained."""
    if not again.resolved().trains:
        return None
    hashes = [_weights(run) for run in (original, again)]
    because = list(_reasons(original, again))
    return {"equal": hashes[0] == hashes[1], "expected": not because, "because": because, "sha256": hashes[1]}


def _weights(run: Run) -> dict[str, str]:
    return fingerprint.of_files(sorted(run.adapter.rglob("*.safetensors")), run.adapter)


def _reasons(original: Run, again: Run) -> Iterator[str]:
    """Why the bytes need not be equal."""
    resolved, manifests = again.resolved(), [files.read_json(run.manifest) for run in (original, again)]
    if (resolved.target.device, resolved.dtype) != ("cpu", "fp32"):
        yield f"{resolved.dtype} on {resolved.target.device}: sums come in no fixed order"
    for field, (was, now) in differing(*manifests).items():
        yield f"{field} was {was}, is {now}"
    for run, manifest in zip((original, again), manifests, strict=True):
        for one in manifest.get("continued", []):
            yield f"{run.name} went on under another {one['field']} at step {one['step']}"


def differing(was: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """The versions and the machine's facts in which two manifests differ: name -> [then, now]. (The kernel, and cores
    that are not used, take no part in arithmetic.)"""
    found = {}
    for section, left_out in (("versions", ()), ("hardware", ("system", "cores"))):
        then, here = was[section], now.get(section, {})
        for name in sorted(then.keys() | here.keys()):
            if then.get(name) != here.get(name) and name not in left_out:
                found[name] = [then.get(name), here.get(name)]
    return found
