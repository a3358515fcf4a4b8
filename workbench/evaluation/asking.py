"""A suite's items asked without a model: what a scoring would stop at, before there is anything to score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.catalog.suites import Choice, Generate, Heldout, LmEval
from workbench.data.formats import UnusableError
from workbench.errors import EvaluationError, Problem
from workbench.evaluation import harness, scoring
from workbench.evaluation.items import Item, TaskItems
from workbench.evaluation.scoring import Scorer

_MOST_PAIRS = 20_000
"""Options times items up to which every option is rendered; of more, the longest and the right one."""
_SHOWN = 5


def check(one: TaskItems, folder: Path, scorer: Scorer) -> None:
    """Render every item of a task as its scoring would.

    Args:
        folder: of the suite.
        scorer: its model is not asked.

    Raises:
        EvaluationError: with the first items that cannot be asked, or of which none could be answered; a task of
            lm-evaluation-harness that it does not know.
    """
    task = one.task
    if isinstance(task, LmEval):
        harness.find(task, folder)
        return
    problems: list[Problem] = []
    too_long = 0
    for item in scorer.progress.over(one.items, task.id, len(one.items)):
        try:
            too_long += not _fits(task, item, scorer, len(one.items))
        except UnusableError as error:
            problems.append(Problem(f"task {task.id} item {item.id}", f"an item {error}"))
        except EvaluationError as error:
            problems.extend(error.problems)
    if problems:
        more = [Problem(f"task {task.id}", f"{len(problems)} items cannot be asked (the first stand above)")]
        raise EvaluationError([*problems[:_SHOWN], *(more if len(problems) > _SHOWN else [])])
    if too_long == len(one.items):
        raise EvaluationError(
            Problem(
                f"task {task.id}",
                f"no prompt leaves room for its answer in the base's {scorer.max_length} tokens",
                "lower max_new_tokens or fewshot, or take a base with a longer context",
            )
        )


def _fits(task: Any, item: Item, scorer: Scorer, num_items: int) -> bool:
    """Whether an item can be answered; raises where it cannot even be asked."""
    renderer = scorer.renderer
    if isinstance(task, Heldout):
        renderer.document_marks()
        scoring.refuse_lossy(renderer, renderer.text_ids(item.text), item, task)
        return True
    messages = renderer.with_shots(item.shots, item.messages)
    prompt = renderer.prompt(messages)
    if isinstance(task, Generate):
        scoring.expected_answer(task, item)
        return len(prompt) + task.max_new_tokens <= scorer.max_length
    assert isinstance(task, Choice)
    for option in _options(item, num_items):
        scoring.option_ids(task, item, scorer, messages, option, prompt)
    return True


def _options(item: Item, num_items: int) -> Iterator[str]:
    if len(item.options) * num_items <= _MOST_PAIRS:
        return iter(item.options)
    return iter({item.expected, max(item.options, key=len)})
