"""A model without its weights: the real class with the real adapter on the meta device, for tracing and counting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import QuantState
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from workbench.bases import DTYPES
from workbench.methods.apply import apply
from workbench.methods.targets import linear_layers
from workbench.recipe.schema import Full, Lora, Qlora
from workbench.recipe.section import Section

_BLOCK = 64
_NESTED_BLOCK = 256
_CODE = 16


@dataclass(frozen=True)
class Skeleton:
    """What is built."""

    config: Any
    """The base's transformers configuration."""
    method: Section
    """The recipe's method; PiSSA is built as the plain LoRA that it starts as (its shapes are the same)."""
    dtype: str = "bf16"
    """Storage of the weights."""
    attention: str = "sdpa"
    checkpointing: bool = False


def build(skeleton: Skeleton) -> Any:
    """The model in training mode, on the meta device.

    Raises:
        MethodError: targets that match nothing or do not fit.
    """
    method = skeleton.method
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                skeleton.config, dtype=DTYPES[skeleton.dtype], attn_implementation=skeleton.attention
            )
    finally:
        transformers_logging.set_verbosity(verbosity)
    if isinstance(method, Qlora):
        _quantise(model, method, DTYPES[skeleton.dtype])
    if isinstance(method, Lora) and method.variant == "pissa":
        method = method.model_copy(update={"variant": "plain"})
    trained: Any = apply(model, method, 0)
    base = model if isinstance(method, Full) else trained.get_base_model()
    if skeleton.checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        if base is not trained:
            base.enable_input_require_grads()
    trained.train()
    return trained


def _quantise(model: nn.Module, method: Qlora, dtype: torch.dtype) -> None:
    """Every linear layer but the head as bitsandbytes' 4-bit layer, as loading a quantised base leaves it."""
    for name in linear_layers(model):
        parent, _, leaf = name.rpartition(".")
        layer = model.get_submodule(name)
        made = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=dtype,
            compress_statistics=method.double_quantization,
            quant_type=method.quantization,
            device="meta",
        )
        made.support_avx512bf16_for_cpu = False
        setattr(model.get_submodule(parent), leaf, made)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]


def packed_weight(layer: bnb.nn.Linear4bit, dtype: torch.dtype) -> tuple[nn.Parameter, list[torch.Tensor]]:
    """A 4-bit layer's weight as it lies in memory, without content, and the tensors of its scales."""
    entries = layer.in_features * layer.out_features
    blocks = -(-entries // _BLOCK)
    code = torch.empty(_CODE)
    nested = layer.weight.compress_statistics
    absmax = torch.empty(blocks, dtype=torch.uint8 if nested else torch.float32)
    scales = [code, absmax]
    second = None
    if nested:
        second = QuantState(
            absmax=torch.empty(-(-blocks // _NESTED_BLOCK)),
            code=torch.empty(_NESTED_BLOCK),
            blocksize=_NESTED_BLOCK,
            dtype=torch.float32,
        )
        scales += [second.absmax, second.code]
    state = QuantState(
        absmax=absmax,
        shape=torch.Size((layer.out_features, layer.in_features)),
        code=code,
        blocksize=_BLOCK,
        quant_type=layer.weight.quant_type,
        dtype=dtype,
        offset=torch.empty(()) if nested else None,
        state2=second,
    )
    data = torch.empty((entries + 1) // 2, 1, dtype=torch.uint8)
    packed = nn.Parameter(data, requires_grad=False)  # bitsandbytes' own class cannot hold a fake tensor
    packed.quant_state = state  # type: ignore[attr-defined]
    return packed, scales
