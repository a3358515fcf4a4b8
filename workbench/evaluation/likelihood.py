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
    order = sorted(range(len(pairs)), key=lambda at: -(len(pairs[at][0]) + len(pairs[at][1])))
    lengths = [len(context) + len(continuation) for context, continuation in pairs]
    mine = collective.share(list(_batches(order, lengths, batch_size)))
    found: dict[int, Score] = {}
    bar = progress.bar(what, sum(map(len, mine)))
    for chosen in mine:
        found |= dict(zip(chosen, _batch(model, [pairs[at] for at in chosen], pad_id), strict=True))
        bar.advance(by=len(chosen))
    bar.close()
    scores = {at: score for part in collective.gather(found) for at, score in part.items()}
    return [scores[at] for at in range(len(pairs))]


def _batches(order: list[int], lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Positions a batch: at most `batch_size`, and few enough tokens for the logits of a large vocabulary to fit."""
    batch: list[int] = []
    for at in order:
        if batch and (len(batch) == batch_size or lengths[batch[0]] * (len(batch) + 1) > _MOST_TOKENS):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _batch(model: Any, pairs: Sequence[Pair], pad_id: int) -> list[Score]:
    width = max(len(context) + len(continuation) for context, continuation in pairs)
    ids = torch.full((len(pairs), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(pairs), width), dtype=torch.long)
    for at, (context, continuation) in enumerate(pairs):
        length = len(context) + len(continuation)
        ids[at, :length] = torch.tensor([*context, *continuation])
        mask[at, :length] = 1
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
    scores = []
    for at, (context, continuation) in enumerate(pairs):
        first = len(context) - 1
        rows = torch.log_softmax(logits[at, first : first + len(continuation)].float(), dim=-1)
        wanted = torch.tensor(list(continuation), device=rows.device)
        picked = rows.gather(1, wanted[:, None])[:, 0]
        scores.append(Score(float(picked.double().sum()), bool((rows.argmax(dim=-1) == wanted).all())))
    return scores
