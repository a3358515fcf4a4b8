"""The item files of the runs of a comparison, as arrays over the same items in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench import files
from workbench.errors import ComparisonRefusedError
from workbench.runs.run import Run

Row = dict[str, Any]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A run, and which of the suites that it was scored on is meant."""

    run: Run
    suite: str

    @property
    def results(self) -> dict[str, Any]:
        """Its metrics, and what they were taken under."""
        return files.read_json(self.run.results(self.suite))


@dataclass(frozen=True)
class TaskTable:
    """One task of a suite: what every run got on every item."""

    task: str
    metric: str
    higher_is_better: bool
    role: str
    """target or retention."""
    ids: list[str]
    weights: Array
    """(num_items,)"""
    clusters: list[str]
    values: dict[str, Array]
    """arm -> (num_seeds, num_items)"""
    rows: dict[str, list[Row]]
    """arm -> the rows of its first run, in the order of `ids`."""


def read(arms: Mapping[str, Sequence[Scored]]) -> list[TaskTable]:
    """The tables of a suite, a task each.

    Raises:
        ComparisonRefusedError: the runs hold other items than each other, so that nothing can be paired, or items
            without a score where the 0 that stands for it would be the best one.
    """
    first = next(iter(arms.values()))[0]
    tasks, items = first.results["tasks"], _by_task(first)
    keys = {task: _key(items.get(task, [])) for task in tasks}
    values: dict[str, dict[str, Array]] = {task: {} for task in tasks}
    rows: dict[str, dict[str, list[Row]]] = {task: {} for task in tasks}
    for arm, runs in arms.items():  # one arm's rows at a time: of many runs all together they are hundreds of MB
        found = [_by_task(one) for one in runs]
        for task, facts in tasks.items():
            of_task = [one.get(task, []) for one in found]
            _refuse_other_items(arm, task, of_task, facts["items"], keys[task])
            if not facts["higher_is_better"]:
                _refuse_errors(arm, task, of_task)
            values[task][arm] = np.array([[row["value"] for row in one] for one in of_task], dtype=float)
            if not np.isfinite(values[task][arm]).all():
                raise ComparisonRefusedError(f"{arm}: scores on {task} are no finite numbers; its item file is damaged")
            rows[task][arm] = of_task[0]
    return [_table(task, facts, values[task], rows[task]) for task, facts in tasks.items()]


def _by_task(one: Scored) -> dict[str, list[Row]]:
    tasks: dict[str, list[Row]] = {}
    for row in files.read_jsonl(one.run.items(one.suite)):
        tasks.setdefault(row["task"], []).append(row)
    for rows in tasks.values():
        rows.sort(key=lambda row: str(row["id"]))
    return tasks


def _key(rows: Sequence[Row]) -> list[Any]:
    return [(row["id"], row["cluster"], row["weight"]) for row in rows]


def _refuse_other_items(arm: str, task: str, runs: Sequence[Sequence[Row]], items: int, key: list[Any]) -> None:
    for rows in runs:
        if len(rows) != items or _key(rows) != key:
            raise ComparisonRefusedError(
                f"{arm} holds other items of {task} than the others (or its item file is damaged): "
                f"{len(rows)} rows, {items} are expected"
            )


def _refuse_errors(arm: str, task: str, runs: Sequence[Sequence[Row]]) -> None:
    if errors := sum(row["state"] == "error" for rows in runs for row in rows):
        raise ComparisonRefusedError(f"{arm}: {errors} of its scores on {task} are no finite numbers")


def _table(task: str, facts: Mapping[str, Any], values: dict[str, Array], rows: dict[str, list[Row]]) -> TaskTable:
    first = next(iter(rows.values()))
    return TaskTable(
        task=task,
        metric=facts["metric"],
        higher_is_better=facts["higher_is_better"],
        role=facts.get("role", "target"),
        ids=[row["id"] for row in first],
        weights=np.array([row["weight"] for row in first], dtype=float),
        clusters=[str(row["cluster"]) for row in first],
        values=values,
        rows=rows,
    )
