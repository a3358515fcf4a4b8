"""Reference log-probabilities for DPO: of the model as training starts from it, computed once by us."""

from __future__ import annotations

from typing import Any

from workbench.evaluation.likelihood import continuation_logprobs
from workbench.progress import Progress


def with_reference(rows: Any, model: Any, pad_id: int, batch_size: int, progress: Progress) -> Any:
    """The pairs with `ref_chosen_logps` and `ref_rejected_logps` (sums of log-probabilities over the answer)."""
    for side in ("chosen", "rejected"):
        pairs = [(prompt, answer) for prompt, answer in zip(rows["prompt_ids"], rows[f"{side}_ids"], strict=True)]
        sums = continuation_logprobs(model, pairs, batch_size, pad_id, progress, f"reference {side}")
        rows = rows.add_column(f"ref_{side}_logps", [score.total for score in sums])
    return rows
