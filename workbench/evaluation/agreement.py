"""How far apart two models' next-token distributions are over the same tokens. One model is in memory at a time: the
logits of the first lie on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from workbench import saving
from workbench.errors import EvaluationError, Problem
from workbench.evaluation.likelihood import batches, next_token_logits
from workbench.progress import Progress

_POSITIONS = 64
"""Whose distributions stand in memory in double precision at one time."""


@dataclass(frozen=True)
class Asked:
    """Token rows, and how models are asked about them."""

    rows: Sequence[Sequence[int]]
    pad_id: int
    batch_size: int
    progress: Progress


@dataclass(frozen=True)
class Agreement:
    """Of a model with the recorded one, every position of every row counted once."""

    tokens: int
    agreement: float
    """Share of the positions where both hold the same token for the likeliest next one."""
    mean_kl: float
    """Kullback-Leibler divergence of the model from the recorded one, nats a token."""
    largest_kl: float
    largest_lead: float
    """Where the likeliest tokens differ: by how many nats at most the recorded model put its own before the other."""

    def as_words(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def record(model: Any, asked: Asked, path: Path, what: str) -> None:
    """Write the model's logits [tokens, vocabulary] in fp32, batch after batch.

    Raises:
        RunError: the disk is full.
        EvaluationError: a logit is not finite.
    """
    with saving.told(path), path.open("wb") as stream:
        for logits in _positions(model, asked, what):
            logits.cpu().numpy().tofile(stream)


def compare(model: Any, asked: Asked, path: Path, what: str) -> Agreement:
    """Hold a model against the recorded one, on the same rows in the same batches.

    Raises:
        EvaluationError: a logit is not finite, or the vocabularies differ.
    """
    tokens = agreeing = 0
    total, largest, lead = 0.0, 0.0, 0.0
    expected = path.stat().st_size // (4 * sum(map(len, asked.rows)))
    with path.open("rb") as stream:
        for logits in _positions(model, asked, what):
            if logits.shape[1] != expected:
                raise EvaluationError(
                    Problem(what, f"gives {logits.shape[1]:,} logits a token, the other model {expected:,}")
                )
            theirs = torch.log_softmax(logits.cpu().double(), dim=-1)
            ours = torch.log_softmax(_recorded(stream, logits).double(), dim=-1)
            divergence = (ours.exp() * (ours - theirs)).sum(dim=-1).clamp(min=0.0)
            total, largest = total + float(divergence.sum()), max(largest, float(divergence.max()))
            best, other = ours.argmax(dim=-1), theirs.argmax(dim=-1)
            leads = (ours.gather(1, best[:, None]) - ours.gather(1, other[:, None]))[:, 0]
            lead = max(lead, float(leads.max()))
            agreeing += int((best == other).sum())
            tokens += len(logits)
    return Agreement(tokens, agreeing / tokens, total / tokens, largest, lead)


def _recorded(stream: BinaryIO, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.fromfile(stream, dtype=np.float32, count=like.numel())).view(like.shape)


@torch.no_grad()
def _positions(model: Any, asked: Asked, what: str) -> Iterator[torch.Tensor]:
    """fp32 logits [positions, vocabulary] of all rows, in the order of their batches, a few positions at a time."""
    model.eval()
    bar = asked.progress.bar(what, len(asked.rows))
    for chosen in batches([len(row) for row in asked.rows], asked.batch_size):
        logits = next_token_logits(model, [asked.rows[at] for at in chosen], asked.pad_id)
        for at, row in enumerate(chosen):
            for part in torch.split(logits[at, : len(asked.rows[row])].float(), _POSITIONS):
                if not bool(torch.isfinite(part).all()):
                    raise EvaluationError(
                        Problem(what, "gives logits that are not finite", "its weights are damaged, or overflow")
                    )
                yield part
        bar.advance(by=len(chosen))
    bar.close()
