"""An adapter folded into its base: one plain model. A 4-bit base is dequantised first, then added to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft

from workbench import bases
from workbench.bases import Loading
from workbench.errors import MethodError, Problem
from workbench.methods import proof

_TOLERANCE = 1e-4
"""Largest difference of logits in fp32, relative to their spread, between a merged model and its parts."""


@dataclass(frozen=True)
class Merged:
    """A plain model in fp32."""

    model: Any
    distance: float
    """Of its logits from those of the base with the adapter, relative to their spread."""


def merge(base: Loading, adapter: Path, rows: Sequence[Sequence[int]]) -> Merged:
    """Fold a saved adapter into its base, and prove on some rows that the logits stay.

    Raises:
        MethodError: the merged model gives other logits.
    """
    model = bases.load_model(replace(base, dtype="fp32"))
    if base.quantization != "none":
        model = model.dequantize()
    model = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
    apart = proof.logits(model, rows)
    merged = model.merge_and_unload(safe_merge=True)
    found = proof.distance(apart, proof.logits(merged, rows))
    if not found <= _TOLERANCE:  # so that NaN is refused too
        raise MethodError(
            Problem(
                "adapter",
                f"merged into its base it gives other logits than beside it (by {found:.2g} of their spread)",
                "please report this base; serve the adapter beside the base instead",
            )
        )
    return Merged(merged, found)


def export(model: Any, tokenizer: Any, target: Path, dtype: str) -> None:
    """Write a plain model as safetensors that any program loads.

    Args:
        dtype: fp32, fp16 or bf16, of the weights on the disk.
    """
    model.to(bases.DTYPES[dtype]).save_pretrained(str(target), safe_serialization=True)
    tokenizer.save_pretrained(str(target))


def prove_exported(base: Loading, target: Path, model: Any, rows: Sequence[Sequence[int]]) -> None:
    """Load the exported files afresh and compare.

    Raises:
        BaseError: they cannot be loaded.
        MethodError: they give other logits than the model in memory.
    """
    plain = replace(base, directory=target, init="pretrained", quantization="none")
    memory = proof.logits(model, rows)
    proof.prove_saved(memory, proof.logits(bases.load_model(plain), rows), None, base.dtype)
