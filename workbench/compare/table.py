"""Finished runs side by side on one suite: each score with its interval, each paired difference with its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench import files
from workbench.compare import statistics
from workbench.compare.statistics import Estimate
from workbench.errors import ComparisonRefusedError
from workbench.runs.run import Run


@dataclass(frozen=True)
class Cell:
    """One run on one task."""

    score: Estimate
    difference: Estimate | None
    """This run minus the first one, over the same items; None for the first run itself."""


@dataclass(frozen=True)
class TaskTable:
    """One task: a cell a run, in the runs' order."""

    task: str
    metric: str
    higher_is_better: bool
    cells: list[Cell]


def compare(runs: list[Run], suite: str | None = None) -> tuple[str, list[TaskTable]]:
    """The runs on one suite; the first one is what the others are compared with.

    Raises:
        ComparisonRefusedError: no suite that all were scored on, or not on the same items under the same conditions.
    """
    suite = suite or _common_suite(runs)
    for run in runs:
        if not run.results(suite).exists():
            raise ComparisonRefusedError(
                f"{run.name} was not scored on {suite}: workbench eval {run.name} --suite {suite}"
            )
    results = [files.read_json(run.results(suite)) for run in runs]
    _refuse_differences(runs, results, suite)
    rows = [_by_task(run, suite) for run in runs]
    tables = []
    for task, facts in results[0]["tasks"].items():
        cells = [
            _cell(rows[at].get(task, []), rows[0].get(task, []) if at else None, results[at]["tasks"][task])
            for at in range(len(runs))
        ]
        tables.append(TaskTable(task, facts["metric"], facts["higher_is_better"], cells))
    return suite, tables


def _common_suite(runs: list[Run]) -> str:
    common = set(runs[0].suites()).intersection(*(run.suites() for run in runs[1:]))
    if not common:
        scored = "; ".join(f"{run.name}: {', '.join(run.suites()) or 'nothing'}" for run in runs)
        raise ComparisonRefusedError(f"no suite that all of them were scored on ({scored})")
    return min(common)


_SAME = (
    ("fingerprint", "the items or the task settings differ"),
    ("metric_version", "the metrics were computed by different definitions"),
    ("templates", "the prompts were rendered by different templates"),
    ("conditions", "they were scored under different conditions"),
)


def _refuse_differences(runs: list[Run], results: list[dict[str, Any]], suite: str) -> None:
    reasons = []
    for run, found in zip(runs[1:], results[1:], strict=True):
        for key, words in _SAME:
            if found[key] != results[0][key]:
                reasons.append(f"{run.name} against {runs[0].name}: {words} ({_shown(results[0][key], found[key])})")
    if reasons:
        raise ComparisonRefusedError(f"not comparable on {suite}:\n  " + "\n  ".join(reasons))


def _shown(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        differing = [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
        return "; ".join(f"{key}: {_cut(one.get(key))} | {_cut(other.get(key))}" for key in differing)
    return f"{_cut(one)} | {_cut(other)}"


def _cut(value: Any) -> str:
    return str(value) if len(str(value)) <= 24 else str(value)[:16] + "..."


def _by_task(run: Run, suite: str) -> dict[str, list[dict[str, Any]]]:
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in files.read_jsonl(run.items(suite)):
        tasks.setdefault(row["task"], []).append(row)
    for rows in tasks.values():
        rows.sort(key=lambda row: str(row["id"]))
    return tasks


def _cell(rows: list[dict[str, Any]], first: list[dict[str, Any]] | None, facts: dict[str, Any]) -> Cell:
    score = Estimate(*(facts[key] for key in ("value", "low", "high", "items", "clusters")))
    if first is None:
        return Cell(score, None)
    if [row["id"] for row in rows] != [row["id"] for row in first] or len(rows) != score.items:
        raise ComparisonRefusedError(
            "the item files hold different items under one fingerprint: one of them is damaged"
        )
    difference = statistics.paired_difference(
        [row["value"] for row in rows],
        [row["value"] for row in first],
        [row["weight"] for row in rows],
        [row["cluster"] for row in rows],
    )
    return Cell(score, difference)
