"""The model types that can be counted: which parts a decoder layer is made of, with transformers' own defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.plan import layers
from workbench.plan.configuration import Configuration
from workbench.plan.layers import Attend, Feed, Pattern
from workbench.plan.parts import dense, grouped, latent, routed

NEEDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
"""What every config.json states."""


@dataclass(frozen=True)
class Family:
    """One model type."""

    architecture: str
    """Its class for causal language modelling in transformers."""
    attention: Attend
    feedforward: Feed
    context: int
    """Longest sequence, where the configuration does not say."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Of its other fields."""
    tied: bool = False
    needs: tuple[str, ...] = ("intermediate_size",)
    """Beside NEEDS."""
    pattern: Pattern = lambda config, at: "full_attention"
    kinds: tuple[str, ...] = ()
    """The words of `layer_types`; none: it is not read."""
    norms: int = 2
    """Norms of the hidden width in a layer."""
    head_bias: Callable[[Configuration], bool] = lambda config: False
    """Whether the output head has a bias."""


_HEADS: dict[str, Any] = {"num_key_value_heads": None, "head_dim": None}
_WINDOWS: dict[str, Any] = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_SPARSE: dict[str, Any] = {"decoder_sparse_step": 1, "mlp_only_layers": None}
_LATENT: dict[str, Any] = {
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "attention_bias": False,
}  # fmt: skip
_DEEPSEEK: dict[str, Any] = _LATENT | {
    "num_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
}  # fmt: skip
_DELTA: dict[str, Any] = {
    "head_dim": 256, "attention_bias": False, "full_attention_interval": 4, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
}  # fmt: skip
_QWEN_EXPERTS: dict[str, Any] = {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512}
_SLIDING = ("full_attention", "sliding_attention")
_LINEAR = ("full_attention", "linear_attention")
_EVERY_FOURTH_FULL = layers.full_every_few("full_attention_interval", "linear_attention")

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM", layers.biased, lambda c, at: dense(c, c.flag("mlp_bias")), 2048,
        _HEADS | {"attention_bias": False, "mlp_bias": False},
    ),
    "mistral": Family(
        "MistralForCausalLM", layers.plain, layers.feedforward, 131072,
        _HEADS | {"num_key_value_heads": 8, "sliding_window": 4096}, pattern=layers.slides_everywhere,
    ),
    "mixtral": Family(
        "MixtralForCausalLM", layers.plain, layers.experts, 131072,
        _HEADS | {"num_key_value_heads": 8, "sliding_window": None, "num_experts": 8, "num_experts_per_tok": 2},
        pattern=layers.slides_everywhere,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM", lambda c, kind: grouped(c, kind, bias=True, output_bias=False), layers.feedforward, 32768,
        _HEADS | {"num_key_value_heads": 32} | _WINDOWS, pattern=layers.slides_at_the_end, kinds=_SLIDING,
    ),
    "qwen2_moe": Family(
        "Qwen2MoeForCausalLM", lambda c, kind: grouped(c, kind, bias=c.flag("qkv_bias"), output_bias=False),
        layers.some_qwen_experts(shared=True), 32768,
        _HEADS | _WINDOWS | _SPARSE | {
            "num_key_value_heads": 16, "qkv_bias": True, "num_experts": 60, "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
        },
        pattern=layers.slides_every_second_at_the_start, kinds=_SLIDING,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM", layers.normed, layers.feedforward, 32768,
        {"num_key_value_heads": 32, "head_dim": 128, "attention_bias": False} | _WINDOWS,
        pattern=layers.slides_at_the_end, kinds=_SLIDING,
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM", layers.normed, layers.some_qwen_experts(shared=False), 32768,
        _HEADS | _WINDOWS | _SPARSE | {
            "num_key_value_heads": 4, "attention_bias": False, "num_experts": 128, "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        pattern=layers.slides_if_asked,
    ),
    "qwen3_next": Family(
        "Qwen3NextForCausalLM", layers.delta_or_gated(fused=True), layers.some_qwen_experts(shared=True), 32768,
        _DELTA | _SPARSE | _QWEN_EXPERTS | {"num_key_value_heads": 2, "num_experts": 512, "num_experts_per_tok": 10},
        pattern=_EVERY_FOURTH_FULL, kinds=_LINEAR,
    ),
    "qwen3_5_text": Family(
        "Qwen3_5ForCausalLM", layers.delta_or_gated(fused=False), layers.feedforward, 32768,
        _DELTA | {"num_key_value_heads": 4}, pattern=_EVERY_FOURTH_FULL, kinds=_LINEAR,
    ),
    "qwen3_5_moe_text": Family(
        "Qwen3_5MoeForCausalLM", layers.delta_or_gated(fused=False), layers.qwen_experts(shared=True), 32768,
        _DELTA | _QWEN_EXPERTS | {"num_key_value_heads": 2, "num_experts": 256, "num_experts_per_tok": 8},
        needs=(), pattern=_EVERY_FOURTH_FULL, kinds=_LINEAR,
    ),
    "deepseek_v2": Family(
        "DeepseekV2ForCausalLM", latent,
        lambda c, at: layers.experts_after_the_first(c, at, c.flag("mlp_bias")), 2048,
        _DEEPSEEK | {
            "mlp_bias": False,
            "num_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1407, "num_experts_per_tok": None,
            "first_k_dense_replace": 0,
        },
    ),
    "deepseek_v3": Family(
        "DeepseekV3ForCausalLM", latent, layers.experts_after_the_first, 4096, _DEEPSEEK
    ),
    "deepseek_v32": Family(
        "DeepseekV32ForCausalLM", lambda c, kind: latent(c, indexer=True), layers.experts_by_list, 163840,
        _DEEPSEEK | {"mlp_layer_types": None, "index_n_heads": 64, "index_head_dim": 128},
    ),
    "glm4": Family(
        "Glm4ForCausalLM", layers.glm_attention, lambda c, at: dense(c, fused=True), 131072,
        {"num_key_value_heads": 2, "head_dim": 128, "attention_bias": True}, norms=4,
    ),
    "glm4_moe": Family(
        "Glm4MoeForCausalLM", layers.glm_moe_attention, layers.experts_after_the_first, 131072,
        _HEADS | {
            "num_key_value_heads": 8, "attention_bias": False, "use_qk_norm": False,
            "num_experts": 128, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 1408,
            "first_k_dense_replace": 1,
        },
    ),
    "minimax_m2": Family(
        "MiniMaxM2ForCausalLM", lambda c, kind: grouped(c, norm="width"), layers.experts, 196608,
        {"num_key_value_heads": 8, "head_dim": 128, "num_experts": 256, "num_experts_per_tok": 8},
    ),
    "ernie4_5": Family(
        "Ernie4_5ForCausalLM", layers.ernie_attention, lambda c, at: dense(c, c.flag("use_bias")), 131072,
        {"num_key_value_heads": 2, "head_dim": 128, "use_bias": False}, tied=True,
    ),
    "ernie4_5_moe": Family(
        "Ernie4_5_MoeForCausalLM", layers.ernie_attention, layers.ernie_experts, 131072,
        _HEADS | {
            "num_key_value_heads": 4, "use_bias": False, "num_experts": 64, "num_experts_per_tok": 6,
            "n_shared_experts": 2, "moe_intermediate_size": 1536, "moe_layer_start_index": 1,
            "moe_layer_end_index": -1, "moe_layer_interval": 1,
        },
        tied=True, head_bias=lambda c: c.flag("use_bias"),
    ),
    "gpt_oss": Family(
        "GptOssForCausalLM", lambda c, kind: grouped(c, kind, bias=c.flag("attention_bias"), sinks=True),
        lambda c, at: routed(c, c.number("intermediate_size"), bias=True), 131072,
        {
            "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "attention_bias": True,
            "num_experts": 128, "num_experts_per_tok": 4,
        },
        pattern=layers.slides_every_second, kinds=_SLIDING,
    ),
    "hunyuan_v1_dense": Family(
        "HunYuanDenseV1ForCausalLM", layers.normed, layers.feedforward, 2048,
        {"num_key_value_heads": None, "attention_bias": False}, needs=("intermediate_size", "head_dim"),
    ),
    "hunyuan_v1_moe": Family(
        "HunYuanMoEV1ForCausalLM", layers.normed, layers.hunyuan_experts, 2048,
        {"num_key_value_heads": None, "attention_bias": False, "num_experts": 1, "num_experts_per_tok": 1},
        needs=("intermediate_size", "head_dim"),
    ),
    "gemma": Family(
        "GemmaForCausalLM", layers.biased, layers.feedforward, 8192,
        {"num_key_value_heads": 16, "head_dim": 256, "attention_bias": False}, tied=True,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM", layers.biased, layers.feedforward, 8192,
        {"num_key_value_heads": 4, "head_dim": 256, "attention_bias": False, "sliding_window": 4096},
        tied=True, norms=4, pattern=layers.slides_every_second, kinds=_SLIDING,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", layers.normed, layers.feedforward, 131072,
        {
            "num_key_value_heads": 4, "head_dim": 256, "attention_bias": False, "sliding_window": 4096,
            "sliding_window_pattern": 6,
        },
        tied=True, norms=4, kinds=_SLIDING,
        pattern=layers.full_every_few("sliding_window_pattern", "sliding_attention"),
    ),
}  # fmt: skip

SAME_AS = {"kimi_k2": "deepseek_v3", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text"}
"""Types that are built as another (of those with pictures, the text part)."""
