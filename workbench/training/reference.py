"""Reference log-probabilities for DPO: of the model as training starts from it, computed once by us."""

from __future__ import annotations

from typing import Any

import torch

from workbench.bases import DTYPES
from workbench.evaluation.likelihood import continuation_logprobs
from workbench.progress import Progress


def with_reference(rows: Any, model: Any, dtype: str, pad_id: int, batch_size: int, progress: Progress) -> Any:
    """The pairs with `ref_chosen_logps` and `ref_rejected_logps` (sums of log-probabilities over the answer), in the
    arithmetic that training uses: rounding must not look like a distance from the reference."""
    for side in ("chosen", "rejected"):
        pairs = [(prompt, answer) for prompt, answer in zip(rows["prompt_ids"], rows[f"{side}_ids"], strict=True)]
        with torch.autocast(model.device.type, dtype=DTYPES[dtype], enabled=dtype != "fp32"):
            sums = continuation_logprobs(model, pairs, batch_size, pad_id, progress, f"reference {side}")
        rows = rows.add_column(f"ref_{side}_logps", [score.total for score in sums])
    return rows


def reference_lengths(rows: Any) -> list[int]:
    """Tokens of every sequence that the reference is asked about: what its forward passes cost."""
    return [
        len(prompt) + len(answer)
        for side in ("chosen", "rejected")
        for prompt, answer in zip(rows["prompt_ids"], rows[f"{side}_ids"], strict=True)
    ]
