"""A model on a suite: rows of every task, metrics with intervals, and what they were scored under."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import bases, collective, fingerprint
from workbench.catalog.suites import LOWER_IS_BETTER, Choice, Generate, Heldout, LmEval
from workbench.compare import statistics
from workbench.data.formats import UnusableError
from workbench.data.rendering import Renderer
from workbench.errors import EvaluationError, Problem
from workbench.evaluation import harness, scoring
from workbench.evaluation.items import METRIC_VERSION, TaskItems, questions_fingerprint, suite_fingerprint
from workbench.evaluation.scoring import Row, Scorer
from workbench.recipe.resolved import ResolvedSuite


@dataclass(frozen=True)
class Evaluation:
    """What one model got on one suite."""

    rows: list[Row]
    """All tasks' rows, each with its `task`."""
    results: dict[str, Any]


def prompt_fingerprint(renderer: Renderer) -> str:
    """What prompts look like beside their texts: the template and the recipe's system message."""
    template = bases.template_fingerprint(renderer.template)
    return template if renderer.system is None else fingerprint.of_value([template, renderer.system])


def evaluate(suite: ResolvedSuite, loaded: list[TaskItems], scorers: dict[str, Scorer], conditions: Any) -> Evaluation:
    """Score every task; the processes of a run share the work, and each of them gets all rows.

    Args:
        scorers: the model by task id (tasks may ask under different templates).
        conditions: what else the scores depend on (dtype, device, versions), written into the results.

    Raises:
        EvaluationError: an item cannot be asked exactly, or a task is not to be had.
    """
    rows: list[Row] = []
    tasks: dict[str, Any] = {}
    extra: dict[str, str] = {}
    began = time.monotonic()
    for one in loaded:
        made, digest = score(one, suite, scorers[one.task.id])
        extra[one.task.id] = digest
        rows += [{"task": one.task.id, **row} for row in made]
        tasks[one.task.id] = _summary(one, made)
    items = suite_fingerprint(suite, loaded)
    templates = {name: prompt_fingerprint(scorer.renderer) for name, scorer in scorers.items()}
    results = {
        "suite": suite.name,
        "fingerprint": fingerprint.of_value([items, extra]) if any(extra.values()) else items,
        "items_fingerprint": items,
        "questions_fingerprint": questions_fingerprint(loaded),
        "metric_version": METRIC_VERSION,
        "templates": templates,
        "conditions": conditions,
        "tasks": tasks,
        "evaluation_seconds": round(time.monotonic() - began, 3),
    }
    return Evaluation(rows, results)


def score(one: TaskItems, suite: ResolvedSuite, scorer: Scorer) -> tuple[list[Row], str]:
    """One task's rows, and a hash over what it asked where its items are not ours.

    Raises:
        EvaluationError: as `evaluate`.
    """
    try:
        return _rows_of(one, suite, scorer)
    except UnusableError as error:
        raise EvaluationError(Problem(f"suite {suite.name} task {one.task.id}", f"an item {error}")) from None


def _rows_of(one: TaskItems, suite: ResolvedSuite, scorer: Scorer) -> tuple[list[Row], str]:
    match one.task:
        case Heldout():
            return scoring.heldout(one.task, one.items, scorer), ""
        case Choice():
            return scoring.choice(one.task, one.items, scorer), ""
        case Generate():
            return scoring.generate(one.task, one.items, scorer), ""
        case LmEval():
            task = one.task
            return collective.from_main(lambda: harness.run(task, Path(suite.folder), scorer))
    raise AssertionError(one.task)


def _long_tokens(rows: list[Row]) -> int:
    """The length in tokens that nine items in ten stay within (0 where the task does not tell)."""
    lengths = sorted(row.get("tokens", 0) for row in rows)
    return int(lengths[(9 * len(lengths) - 1) // 10]) if lengths else 0


def _summary(one: TaskItems, rows: list[Row]) -> dict[str, Any]:
    estimate = statistics.mean(
        [row["value"] for row in rows], [row["weight"] for row in rows], [row["cluster"] for row in rows]
    )
    metric = one.task.primary
    return {
        "metric": metric,
        "role": one.task.role,
        "higher_is_better": metric not in LOWER_IS_BETTER,
        **estimate.as_words(),
        "long_tokens": _long_tokens(rows),
        "states": dict(sorted(Counter(row["state"] for row in rows).items())),
    }
