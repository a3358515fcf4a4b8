"""An adapter folded into its base: one plain model. A 4-bit base is dequantised first, then added to.

What is added to is the base as the run held it: rounded to its precision, or to 4 bits from that. (A base that is
stored in fp32 gives other 4-bit weights when it is read in fp32.) The sum is made in fp32, so it is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import peft
import torch

from workbench import bases, saving
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
    whole: frozenset[str]
    """As `fp32_weights` of the base in the run's precision."""


def merge(
    base: Loading, adapter: Path, rows: Sequence[Sequence[int]], look: Callable[[Any], None] = lambda model: None
) -> Merged:
    """Fold a saved adapter into its base, and prove on some rows that the logits stay.

    Args:
        look: shown the base with the adapter beside it, in fp32, before they become one.

    Raises:
        MethodError: the merged model gives other logits.
    """
    model = bases.load_model(base)
    if base.quantization != "none":
        model = model.dequantize()
    whole = fp32_weights(model)
    model = peft.PeftModel.from_pretrained(model.float(), str(adapter)).eval()
    look(model)
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
    return Merged(merged, found, whole)


def fp32_weights(model: Any) -> frozenset[str]:
    """Names of the weights and buffers that a model holds in fp32: in half precision those that its architecture keeps
    whole, such as a router's bias."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    return frozenset(name for name, tensor in tensors if tensor.dtype == torch.float32)


def export(model: Any, tokenizer: Any, target: Path, dtype: str, whole: frozenset[str] = frozenset()) -> None:
    """Write a plain model as safetensors that any program loads.

    Args:
        dtype: fp32, fp16 or bf16, of the weights on the disk.
        whole: names of weights and buffers that stay fp32.

    Raises:
        RunError: the place cannot be written to.
    """
    tensors = dict(chain(model.named_parameters(), model.named_buffers()))
    kept = {name: tensors[name].data.clone() for name in whole & tensors.keys()} if dtype != "fp32" else {}
    model.to(bases.DTYPES[dtype])
    for name, values in kept.items():
        tensors[name].data = values
    with saving.told(target):
        model.save_pretrained(str(target), safe_serialization=True)
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
