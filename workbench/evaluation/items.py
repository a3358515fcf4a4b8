"""The exact items of a suite, and their fingerprint. No model and no tokenizer: the same for every base."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from workbench import fingerprint
from workbench.catalog.suites import Choice, Generate, Heldout, LmEval, OwnTask, Prompted
from workbench.data import formats, splits
from workbench.data.contamination import folded
from workbench.data.formats import BadRow, Example, Message
from workbench.errors import EvaluationError, Problem
from workbench.recipe import pin
from workbench.recipe.resolved import ResolvedSuite

METRIC_VERSION = 1
"""Raised when a metric's definition changes: results of different versions are not compared."""


@dataclass(frozen=True)
class Item:
    """One thing that a model is asked (or a text that it is scored on)."""

    id: str
    cluster: str
    shots: tuple[Message, ...] = ()
    """Solved examples that stand before the question."""
    messages: tuple[Message, ...] = ()
    """The question."""
    question: str = ""
    """What contamination is looked for in: the prompt without the solved examples, or the whole document."""
    expected: str = ""
    options: tuple[str, ...] = ()
    text: str = ""

    def as_words(self) -> dict[str, Any]:
        """What the fingerprint covers."""
        return {
            "id": self.id,
            "cluster": self.cluster,
            "messages": [message.as_words() for message in (*self.shots, *self.messages)],
            "expected": self.expected,
            "options": list(self.options),
            "text": self.text,
        }


@dataclass(frozen=True)
class TaskItems:
    """A task with its items (none for lm_eval, which brings its own)."""

    task: Any
    items: tuple[Item, ...]


def load(suite: ResolvedSuite) -> list[TaskItems]:
    """The items of every task, checked.

    Raises:
        DataError, EvaluationError: a row cannot be read, a task has no items, or the suite's frozen fingerprint is not
            met.
    """
    loaded = [
        TaskItems(task, () if isinstance(task, LmEval) else tuple(_items(task, suite))) for task in suite.suite.tasks
    ]
    frozen, found = suite.suite.fingerprint, suite_fingerprint(suite, loaded)
    if frozen is not None and frozen != found:
        raise EvaluationError(
            Problem(
                f"suite {suite.name} fingerprint",
                f"its items changed: {found[:16]}..., frozen at {frozen[:16]}...",
                "restore the data, or give the changed suite a name and a fingerprint of its own",
            )
        )
    return loaded


def suite_fingerprint(suite: ResolvedSuite, loaded: list[TaskItems]) -> str:
    """sha256 over the exact items and the settings that score them."""
    return _digest(loaded, {"data", "split", "role"})


def questions_fingerprint(loaded: list[TaskItems]) -> str:
    """sha256 over what is asked and how it is scored, whatever solved examples stand before it."""
    bare = [TaskItems(one.task, tuple(replace(item, shots=()) for item in one.items)) for one in loaded]
    return _digest(bare, {"data", "split", "role", "fewshot", "fewshot_split"})


def _digest(loaded: list[TaskItems], left_out: set[str]) -> str:
    tasks = [
        {
            "task": one.task.model_dump(mode="json", exclude=left_out),
            "items": [item.as_words() for item in one.items],
        }
        for one in loaded
    ]
    return fingerprint.of_value({"metric_version": METRIC_VERSION, "tasks": tasks})


def questions(loaded: list[TaskItems]) -> Iterator[tuple[str, str]]:
    """(item, text) pairs that contamination is looked for in."""
    for one in loaded:
        for item in one.items:
            yield f"{one.task.id}/{item.id}", item.question


def _items(task: OwnTask, suite: ResolvedSuite) -> Iterator[Item]:
    if isinstance(task, Generate):
        _refuse_bad_patterns(task, suite)
    card = suite.cards[task.data]
    wanted = "text" if isinstance(task, Heldout) else None
    if (card.card.format == "text") != (wanted == "text") or card.card.format == "preference":
        raise EvaluationError(
            Problem(
                f"suite {suite.name} task {task.id}",
                f"the card {card.name} has rows of format {card.card.format}",
                "heldout takes raw text; generate and choice take rows with a prompt and an answer",
            )
        )
    rows = _rows(task, suite, task.split)
    chosen = _subset(rows, task.max_items)
    if isinstance(task, Heldout):
        for row in chosen:
            yield from _pieces(row, task.max_bytes)
        return
    solved = sorted(_rows(task, suite, task.fewshot_split), key=_rank) if task.fewshot else []
    answers = tuple(sorted({_answer(row) for row in rows})) if isinstance(task, Choice) else ()
    for row in chosen:
        messages = [message for shot in _shots(task, suite, row, solved) for message in _spaced(shot.messages)]
        asked = row.messages[: formats.last_answer(row.messages)]
        options = _options(task, row, answers) if isinstance(task, Choice) else ()
        yield Item(row.id, row.cluster, tuple(messages), asked, row.prompt_text(), _answer(row), options)


def _refuse_bad_patterns(task: Generate, suite: ResolvedSuite) -> None:
    for field, pattern in (("extract", task.extract), ("refusal", task.refusal)):
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise EvaluationError(
                Problem(f"suite {suite.name} task {task.id} {field}", f"{pattern!r} is no regex: {error}")
            ) from None


def _shots(task: Prompted, suite: ResolvedSuite, row: Example, solved: list[Example]) -> list[Example]:
    """The first solved examples that do not ask what this row asks."""
    asked = folded(row.prompt_text())
    found = list(itertools.islice((shot for shot in solved if folded(shot.prompt_text()) != asked), task.fewshot))
    if len(found) < task.fewshot:
        raise EvaluationError(
            Problem(
                f"suite {suite.name} task {task.id} fewshot",
                f"is {task.fewshot}, but the split {task.fewshot_split} has {len(found)} examples beside {row.where}",
                "ask for fewer, or name a split with more rows",
            )
        )
    return found


def _answer(row: Example) -> str:
    return row.messages[formats.last_answer(row.messages)].content


def _spaced(messages: tuple[Message, ...]) -> list[Message]:
    """A solved example, its answer closed with a line's end (seen only where the texts stand as they are)."""
    return [Message(m.role, m.content.rstrip("\n") + "\n\n") if m.role == "assistant" else m for m in messages]


def _options(task: Choice, row: Example, answers: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(task.options, list):
        options: Any = task.options
    elif task.options == "answers":
        options = answers
    else:
        options = row.values.get(task.options)
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise EvaluationError(
            Problem(row.where, f"its options ({task.options}) are no list of texts", "name the column that lists them")
        )
    if _answer(row) not in options:
        raise EvaluationError(
            Problem(row.where, f"its answer {_answer(row)!r} is not among the options", "mind the spaces around them")
        )
    return tuple(options)


def _rows(task: Prompted | Heldout, suite: ResolvedSuite, split: str) -> list[Example]:
    card = suite.cards[task.data]
    rows: list[Example] = []
    bad: list[BadRow] = []
    for row in formats.examples(pin.split_files(card, split), card.card, split):
        (bad if isinstance(row, BadRow) else rows).append(row)  # type: ignore[arg-type]
    formats.refuse_above(bad, len(bad), 0, f"suite {suite.name} task {task.id}")
    if not rows:
        raise EvaluationError(Problem(f"suite {suite.name} task {task.id}", f"the split {split} has no rows"))
    return rows


def _rank(row: Example) -> tuple[float, str]:
    """Where a row stands when some of a split are chosen: by content, so that other rows do not move it."""
    return splits.position(formats.content_key(row.values), 0, "items"), row.id


def _subset(rows: list[Example], most: int | None) -> list[Example]:
    if most is None or most >= len(rows):
        return rows
    kept = {id(row) for row in sorted(rows, key=_rank)[:most]}
    return [row for row in rows if id(row) in kept]


def _pieces(row: Example, max_bytes: int) -> Iterator[Item]:
    """A document cut at line ends (a longer line at a character) into pieces of at most `max_bytes`."""
    pieces = [""]
    for line in row.text.splitlines(keepends=True):
        while len(line.encode()) > max_bytes:
            head = line.encode()[:max_bytes].decode(errors="ignore")
            pieces.append(head)
            line = line[len(head) :]
        if len(pieces[-1].encode()) + len(line.encode()) > max_bytes:
            pieces.append("")
        pieces[-1] += line
    kept = [piece for piece in pieces if piece]
    for number, piece in enumerate(kept, 1):
        name = row.id if len(kept) == 1 else f"{row.id}.{number}"
        yield Item(name, row.cluster, question=row.text, text=piece)
