"""data.shuffle_labels: every row gets another row's answer. A control: what is learnt then cannot be the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from workbench.data import formats, splits
from workbench.data.formats import BadRow, Example
from workbench.errors import DataError, Problem

Rows = Callable[[], Iterator[Example | BadRow]]
"""Starts reading the rows anew."""


def shuffled(rows: Rows, fraction: float) -> Iterator[Example | BadRow]:
    """The rows with their last answers dealt out anew among those that are used, in two passes; answers are held in
    memory.

    The rows stand in one circle, ordered by the hash of their names (which are their content's, or the card's `id`),
    and each takes its neighbour's answer: the same for every seed, and no row keeps its own. Equal answers of
    different rows may meet, as often as chance has it.

    Raises:
        DataError: no row's answer would change: there is one row only, or one answer.
    """
    answers = {row.id: row.messages[formats.last_answer(row.messages)].content for row in _used(rows, fraction)}
    circle = sorted(answers, key=lambda name: (splits.position(name, 0, "labels"), name))
    dealt = {name: answers[giver] for name, giver in zip(circle, circle[1:] + circle[:1], strict=True)}
    if dealt and dealt == answers:
        raise DataError(
            Problem(
                "data.shuffle_labels",
                f"leaves every answer where it is: {len(answers)} rows have one answer between them",
                "use rows with different answers, or drop the field",
            )
        )
    for row in rows():
        yield _answered(row, dealt[row.id]) if isinstance(row, Example) and row.id in dealt else row


def _used(rows: Rows, fraction: float) -> Iterator[Example]:
    for row in rows():
        if isinstance(row, Example) and splits.in_fraction(formats.content_key(row.values), fraction):
            yield row


def _answered(row: Example, answer: str) -> Example:
    messages, last = row.messages, formats.last_answer(row.messages)
    return replace(row, messages=(*messages[:last], replace(messages[last], content=answer), *messages[last + 1 :]))
