"""The token rows that two forms of a model are held against each other on: a suite's own items, as its scoring asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench import fingerprint
from workbench.catalog.suites import Heldout, LmEval
from workbench.data.formats import UnusableError
from workbench.evaluation.items import Item, TaskItems
from workbench.evaluation.likelihood import windows
from workbench.evaluation.scoring import Scorer

MOST_TOKENS = 20_000
MOST_BYTES = 4 << 30
"""Of one model's logits on the disk."""


@dataclass(frozen=True)
class Passages:
    """Rows of token ids, and what they were taken from."""

    rows: list[list[int]]
    source: str
    """In words."""

    @property
    def tokens(self) -> int:
        """Of all rows together."""
        return sum(map(len, self.rows))


def budget(vocabulary: int) -> int:
    """How many tokens are compared at most: one model's fp32 logits of them are kept on the disk."""
    return max(1, min(MOST_TOKENS, MOST_BYTES // (4 * vocabulary)))


def of_suite(loaded: Sequence[TaskItems], scorers: dict[str, Scorer], most_tokens: int) -> Passages | None:
    """Prompts with their expected answers, and texts; a sample by content hash, in which every task has the same share
    of the tokens. None where no task has items of ours (lm-evaluation-harness keeps its own)."""
    own = [one for one in loaded if not isinstance(one.task, LmEval)]
    rows: list[list[int]] = []
    for one in own:
        left = most_tokens // len(own)
        for row in _rows(one, scorers[one.task.id]):
            if len(row) > left:
                break
            rows.append(row)
            left -= len(row)
    if not rows:
        return None
    return Passages(rows, f"{len(rows):,} texts of the suite's own items ({', '.join(one.task.id for one in own)})")


def _rows(one: TaskItems, scorer: Scorer) -> Iterator[list[int]]:
    for item in sorted(one.items, key=lambda item: fingerprint.of_text(item.id)):
        if isinstance(one.task, Heldout):
            start, _ = scorer.renderer.document_marks()
            for before, ids in windows(start, scorer.renderer.text_ids(item.text), scorer.max_length):
                yield [*before, *ids]
        else:
            yield _answered(item, scorer)[: scorer.max_length]


def _answered(item: Item, scorer: Scorer) -> list[int]:
    """A prompt with its expected answer; alone where the two cannot be rendered as one."""
    messages = scorer.renderer.with_shots(item.shots, item.messages)
    prompt: list[int] = scorer.renderer.prompt(messages)
    try:
        return [*prompt, *scorer.renderer.answer_ids(messages, item.expected, prompt)]
    except UnusableError:
        return prompt
