"""A base's twin in miniature: the same architecture class and kinds of layers, a few narrow ones, random weights, the
same vocabulary, tokenizer and context."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench import bases, hub
from workbench.bases import Loading

_MOST = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "head_dim": 16,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
"""Widths and counts, by the names that configurations give them; what is smaller stays."""
_HEADS = 4
_LAYERS = 2


def make(loading: Loading, target: Path) -> None:
    """Write the twin of the base in `loading` to a new directory, laid out as a base.

    Raises:
        BaseError: the base's configuration cannot be read.
    """
    target.mkdir(parents=True)
    patterns = [pattern for pattern in hub.MODEL_FILES if pattern != "*.safetensors"]
    for pattern in [*patterns, "*.py"] if loading.trust_remote_code else patterns:
        for file in loading.directory.glob(pattern):
            if not file.name.endswith((".index.json", ".safetensors")):
                shutil.copyfile(file, target / file.name)
    shrunk(bases.load_config(loading)).save_pretrained(target)
    # read again: what a configuration derives from its widths is derived anew
    config = AutoConfig.from_pretrained(target, trust_remote_code=loading.trust_remote_code, local_files_only=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=loading.trust_remote_code)
    model.save_pretrained(target, safe_serialization=True)


def shrunk(config: Any) -> Any:
    """The configuration with few narrow layers, at least one of each kind."""
    small = copy.deepcopy(config)
    if hasattr(small, "quantization_config"):
        del small.quantization_config  # how the real weights are packed
    text = small.get_text_config()
    _fewer_layers(text)
    rotated = _rotated(text)
    heads, key_heads = text.num_attention_heads, getattr(text, "num_key_value_heads", None)
    text.num_attention_heads = min(heads, _HEADS)
    if key_heads is not None:
        several = text.num_attention_heads // 2 if key_heads < heads else text.num_attention_heads
        text.num_key_value_heads = 1 if key_heads == 1 else max(1, several)
    for name, most in _MOST.items():
        if isinstance(getattr(text, name, None), int):
            setattr(text, name, min(getattr(text, name), most))
    if getattr(text, "kv_lora_rank", None):
        text.head_dim = text.qk_rope_head_dim
        text.qk_head_dim = text.qk_nope_head_dim + text.qk_rope_head_dim
    _narrower_rotation(text, rotated)
    return small


def _fewer_layers(text: Any) -> None:
    """Keep the first layer of each kind (two at least), and all that is said layer by layer of those."""
    count = text.num_hidden_layers
    dense = _dense_layers(text, count)
    listed = [name for name, value in vars(text).items() if isinstance(value, list) and len(value) == count]
    kinds: dict[str, int] = {}
    for at in range(count):
        kinds.setdefault(repr([at in dense, *(getattr(text, name)[at] for name in listed)]), at)
    kept = sorted({*kinds.values(), *range(min(count, _LAYERS if len(kinds) < _LAYERS else 0))})
    for name in listed:
        setattr(text, name, [getattr(text, name)[at] for at in kept])
    text.num_hidden_layers = len(kept)
    flat = [place for place, at in enumerate(kept) if at in dense]
    if getattr(text, "first_k_dense_replace", None) is not None:
        text.first_k_dense_replace = len(flat)
    if getattr(text, "mlp_only_layers", None) is not None:
        text.mlp_only_layers, text.decoder_sparse_step = flat, 1
    if getattr(text, "moe_layer_start_index", None) is not None:
        text.moe_layer_start_index, text.moe_layer_end_index, text.moe_layer_interval = len(flat), len(kept) - 1, 1


def _dense_layers(text: Any, count: int) -> set[int]:
    """Layers without experts on a base that has them, as the families say it."""
    first = getattr(text, "first_k_dense_replace", None) or 0
    dense = {*range(first), *(getattr(text, "mlp_only_layers", None) or ())}
    step = getattr(text, "decoder_sparse_step", None) or 1
    dense |= {at for at in range(count) if (at + 1) % step}
    start = getattr(text, "moe_layer_start_index", None)
    if start is not None:
        end, interval = text.moe_layer_end_index, text.moe_layer_interval
        end = count - 1 if end < 0 else end
        dense |= {at for at in range(count) if not start <= at <= end or (at + 1) % interval}
    return dense


def _rotated(text: Any) -> int:
    """Pairs of a head's dimensions that positions rotate."""
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    parameters = getattr(text, "rope_parameters", None) or {}
    return int(width * parameters.get("partial_rotary_factor", 1.0)) // 2


def _narrower_rotation(text: Any, before: int) -> None:
    """Cut what rotary positions say pair by pair (longrope's factors, the sections of several axes)."""
    parameters, after = getattr(text, "rope_parameters", None) or {}, _rotated(text)
    for name, value in parameters.items():
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == before:
            parameters[name] = list(value)[:after]
        elif name == "mrope_section":
            parameters[name] = [after - after // 2, *([after // 2] + [0] * len(value))[: len(value) - 1]]
