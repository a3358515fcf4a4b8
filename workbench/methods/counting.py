"""What a model in memory weighs and works: parameter counts, and the numbers the cost formula needs."""

from __future__ import annotations

from typing import Any

from peft.tuners.oft.layer import OFTLayer
from peft.tuners.vera.layer import VeraLayer
from torch import nn

from workbench.plan.cost import Work

_NO_PRODUCT = ("ia3_l", "oft_R")
"""Adapter weights with two dimensions that are no matrix products: scales, and triangles of rotations."""


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Total and trainable parameters (4-bit weights counted by their logical size, shared ones once)."""
    total = trainable = 0
    for parameter in model.parameters():
        size = _logical_size(parameter)
        total += size
        trainable += size if parameter.requires_grad else 0
    return {"total": total, "trainable": trainable}


def _logical_size(parameter: Any) -> int:
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        size = 1
        for width in state.shape:
            size *= int(width)
        return size
    return int(parameter.numel())


def work_of(model: Any) -> Work:
    """The matrix products that one token passes through, split into frozen and trained weights."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    tied_head = head.weight if head is not None else None
    share = _expert_share(config)
    frozen = trained = 0.0
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is not tied_head}
    for name, parameter in model.named_parameters():
        if id(parameter) in embeddings or any(part in name for part in _NO_PRODUCT):
            continue
        quantized = getattr(parameter, "quant_state", None) is not None
        if parameter.ndim < 2 and not quantized:
            continue
        used = _logical_size(parameter) * (share if ".experts." in name and "shared" not in name else 1.0)
        if parameter.requires_grad:
            trained += used
        else:
            frozen += used
    return Work(
        frozen_parameters=frozen + _vera_products(model),
        trained_parameters=trained + _oft_products(model),
        attention_width=_attention_width(config),
        layers=int(config.num_hidden_layers),
    )


def _vera_products(model: nn.Module) -> float:
    """The shared random projections are buffers, and each target uses as much of them as it is wide."""
    layers = [module for module in model.modules() if isinstance(module, VeraLayer)]
    return float(sum(rank * (layer.in_features + layer.out_features) for layer in layers for rank in layer.r.values()))


def _oft_products(model: nn.Module) -> float:
    """A rotation is kept as the triangle of each block and multiplied as the whole of it."""
    layers = [module for module in model.modules() if isinstance(module, OFTLayer)]
    return float(sum(layer.in_features * size for layer in layers for size in layer.oft_block_size.values()))


def _expert_share(config: Any) -> float:
    """The share of the routed experts that a token passes through."""
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    total = next((getattr(config, name) for name in names if getattr(config, name, None)), None)
    active = getattr(config, "num_experts_per_tok", None)
    return float(active) / float(total) if total and active else 1.0


def _attention_width(config: Any) -> int:
    """Heads times the widths of the two attention products (query-key and weight-value), per layer."""
    heads = int(config.num_attention_heads)
    if getattr(config, "kv_lora_rank", None):
        return heads * int(config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return heads * 2 * width
