"""Small config.json files of every type that can be counted, and the models that transformers builds from them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

LEFT_OUT = "left out"

WIDTHS: dict[str, Any] = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
QWEN: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DEEPSEEK: dict[str, Any] = {
    "head_dim": LEFT_OUT, "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 32, "n_shared_experts": 2,
}  # fmt: skip
DELTA: dict[str, Any] = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 8,
}  # fmt: skip
ERNIE: dict[str, Any] = {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2}

SMALL: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-biased-tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama-plain-heads": {"num_key_value_heads": LEFT_OUT, "head_dim": LEFT_OUT},
    "mistral": {},
    "mistral-full": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4},
    "qwen2": {"head_dim": LEFT_OUT},
    "qwen2-slides": {"head_dim": LEFT_OUT, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
    "qwen2_moe": {"head_dim": LEFT_OUT, "shared_expert_intermediate_size": 48, "mlp_only_layers": [1], **QWEN},
    "qwen2_moe-slides": {
        "head_dim": LEFT_OUT, "use_sliding_window": True, "sliding_window": 8, "decoder_sparse_step": 2,
        "qkv_bias": False, **QWEN,
    },
    "qwen3": {},
    "qwen3-listed": {
        "attention_bias": True, "use_sliding_window": True, "sliding_window": 8,
        "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"],
    },
    "qwen3_moe": QWEN,
    "qwen3_moe-slides": {"use_sliding_window": True, "sliding_window": 8, "decoder_sparse_step": 2, **QWEN},
    "qwen3_next": {"shared_expert_intermediate_size": 48, **QWEN, **DELTA},
    "qwen3_next-every-second": {"full_attention_interval": 2, "mlp_only_layers": [0], **QWEN, **DELTA},
    "qwen3_5": DELTA,
    "qwen3_5_text": {"attention_bias": True, **DELTA},
    "qwen3_5_moe": {"shared_expert_intermediate_size": 48, **QWEN, **DELTA},
    "qwen3_5_moe_text": {**QWEN, **DELTA},
    "deepseek_v2": {"mlp_bias": True, **DEEPSEEK},
    "deepseek_v2-one-query": {"attention_bias": True, **DEEPSEEK, "q_lora_rank": None},
    "deepseek_v3": DEEPSEEK,
    "deepseek_v3-one-query": {"attention_bias": True, **DEEPSEEK, "q_lora_rank": None},
    "deepseek_v32": {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 8, **DEEPSEEK},
    "kimi_k2": DEEPSEEK,
    "glm4": {},
    "glm4_moe": {"use_qk_norm": True, "attention_bias": True, **DEEPSEEK, "num_key_value_heads": 2, "head_dim": 16},
    "minimax_m2": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "ernie4_5": {},
    "ernie4_5-biased": {"use_bias": True, "tie_word_embeddings": False},
    "ernie4_5_moe": ERNIE,
    "ernie4_5_moe-biased": {"use_bias": True, "moe_layer_interval": 2, "moe_layer_start_index": 0, **ERNIE},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "hunyuan_v1_dense": {"attention_bias": True},
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": [2, 2, 2, 2]},
    "gemma": {"attention_bias": True},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "sliding_window_pattern": 2},
}  # fmt: skip
"""What is special, under a model type (and, after a dash, a word)."""

NESTED = ("qwen3_5", "qwen3_5_moe")


def small_config(name: str) -> dict[str, Any]:
    """A config.json."""
    kind = name.partition("-")[0]
    fields = {key: copy.deepcopy(value) for key, value in (WIDTHS | SMALL[name]).items() if value != LEFT_OUT}
    if kind in NESTED:
        return {"model_type": kind, "text_config": {"model_type": f"{kind}_text", **fields}}
    return {"model_type": kind, **fields}


def model_of(config: dict[str, Any], device: str = "meta") -> Any:
    """What transformers builds from a config.json."""
    fields = copy.deepcopy(config)
    kind = {"kimi_k2": "deepseek_v3"}.get(fields["model_type"], fields["model_type"])  # it loads as that
    fields.pop("quantization_config", None)
    made = CONFIG_MAPPING[kind].from_dict(fields | {"model_type": kind})
    with torch.device(device):
        return AutoModelForCausalLM.from_config(made)
