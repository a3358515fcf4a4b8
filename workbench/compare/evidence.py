"""What a report shows beside the verdict: learning curves, and the items with their texts and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.compare.arms import ArmRuns
from workbench.compare.scores import TaskTable
from workbench.runs import walk
from workbench.runs.run import Run

_MOST_POINTS = 200
_MOST_ITEMS = 400
_MOST_TEXT = 1200


def evidence(arms: Sequence[ArmRuns], tables: Sequence[TaskTable]) -> dict[str, Any]:
    """Curves of every run, and the items on which the arms differ most."""
    items = [item for table in tables for item in _items(table, arms)]
    total = sum(len(table.ids) for table in tables)
    return {
        "learning": [
            {"arm": arm.name, "seed": seed, **_curve(run)}
            for arm in arms
            if arm.trains
            for seed, run in zip(arm.seeds, arm.runs, strict=True)
        ],
        "items": items,
        "items_note": f"{len(items):,} of {total:,} items, those on which the arms differ most",
    }


def _curve(run: Run) -> dict[str, list[float]]:
    """The training loss over examples and operations, thinned."""
    rows = walk.rows(run)
    kept = (
        [rows[at] for at in sorted({round(at) for at in np.linspace(0, len(rows) - 1, _MOST_POINTS)})] if rows else []
    )
    return {
        "examples": [row["examples"] for row in kept],
        "training_flops": [row["training_flops"] for row in kept],
        "loss": [row["loss"] for row in kept],
    }


def _items(table: TaskTable, arms: Sequence[ArmRuns]) -> list[dict[str, Any]]:
    names = [arm.name for arm in arms]
    values = np.stack([table.values[name][0] for name in names])
    spread = values.max(axis=0) - values.min(axis=0)
    chosen = sorted(range(len(table.ids)), key=lambda at: (-spread[at], at))[:_MOST_ITEMS]
    return [_item(table, names, at, float(spread[at])) for at in sorted(chosen)]


def _item(table: TaskTable, names: Sequence[str], at: int, spread: float) -> dict[str, Any]:
    row = table.rows[names[0]][at]
    return {
        "task": table.task,
        "id": str(row["id"]),
        "text": _cut(row.get("question") or row.get("text") or ""),
        "expected": _cut(row.get("expected") or ""),
        "answers": {name: _answer(table.rows[name][at]) for name in names},
        "spread": spread,
    }


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    said = row.get("answer")
    return {
        "value": row["value"],
        "answer": _cut(said if said is not None else row.get("output", "")),
        "state": row["state"],
    }


def _cut(text: Any) -> str:
    words = str(text)
    return words if len(words) <= _MOST_TEXT else f"{words[:_MOST_TEXT]} ..."
