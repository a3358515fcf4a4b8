"""Log-probabilities of continuations, in batches whose size does not move them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench import collective
from workbench.progress import Progress

_MOST_TOKENS = 8192
"""Of one forward pass, padding included: 2.3 GiB of bf16 logits at Qwen's vocabulary."""

Pair = tuple[Sequence[int], Sequence[int]]
"""Context ids (at least one) and continuation ids."""


@dataclass(frozen=True)
class Score:
    """Of one continuation after its context."""

    total: float
    """Sum of natural-log probabilities."""
    greedy: bool
    """Whether every token was the likeliest one."""


@torch.no_grad()
def continuation_logprobs(
    model: Any, pairs: Sequence[Pair], batch_size: int, pad_id: int, progress: Progress, what: str
) -> list[Score]:
    """Score every continuation after its context.

    Rows are padded on the right and sorted by length; logits are taken in fp32 and only where a continuation stands.
    The processes of a run take the same batches in turn, and each gets all scores.
    """
    model.eval()
    mine = collective.share(batches([len(context) + len(continuation) for context, continuation in pairs], batch_size))
    found: dict[int, Score] = {}
    bar = progress.bar(what, sum(map(len, mine)))
    for chosen in mine:
        found |= dict(zip(chosen, _batch(model, [pairs[at] for at in chosen], pad_id), strict=True))
        bar.advance(by=len(chosen))
    bar.close()
    scores = {at: score for part in collective.gather(found) for at, score in part.items()}
    return [scores[at] for at in range(len(pairs))]


def batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Rows a batch, longest first: at most `batch_size`, and few enough tokens for the logits of a large vocabulary to
    fit."""
    return list(_cut(sorted(range(len(lengths)), key=lambda at: -lengths[at]), lengths, batch_size))


def _cut(order: Sequence[int], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for at in order:
        if batch and (len(batch) == batch_size or lengths[batch[0]] * (len(batch) + 1) > _MOST_TOKENS):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def windows(start: Sequence[int], ids: Sequence[int], most_tokens: int) -> Iterator[Pair]:
    """A text's tokens in disjoint windows, each after the start tokens and at most so long with them."""
    width = most_tokens - len(start)
    for first in range(0, len(ids), width):
        yield start, ids[first : first + width]


def next_token_logits(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
    """Logits [rows, width, vocabulary] of rows that are padded on the right."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(list(row))
        mask[at, : len(row)] = 1
    found = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
    assert isinstance(found, torch.Tensor)
    return found


def _batch(model: Any, pairs: Sequence[Pair], pad_id: int) -> list[Score]:
    logits = next_token_logits(model, [[*context, *continuation] for context, continuation in pairs], pad_id)
    scores = []
    for at, (context, continuation) in enumerate(pairs):
        first = len(context) - 1
        rows = torch.log_softmax(logits[at, first : first + len(continuation)].float(), dim=-1)
        wanted = torch.tensor(list(continuation), device=rows.device)
        picked = rows.gather(1, wanted[:, None])[:, 0]
        scores.append(Score(float(picked.double().sum()), bool((rows.argmax(dim=-1) == wanted).all())))
    return scores
