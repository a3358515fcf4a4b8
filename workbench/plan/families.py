"""The model types that can be counted: which parts a decoder layer is made of, with transformers' own defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.plan.configuration import Configuration
from workbench.plan.parts import Part, delta, dense, gated, grouped, latent, linear, routed

NEEDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
"""What every config.json states."""

Pattern = Callable[[Configuration, int], str]
"""The kind of attention of layer i, where the configuration lists none."""


@dataclass(frozen=True)
class Family:
    """One model type."""

    architecture: str
    """Its class for causal language modelling in transformers."""
    attention: Callable[[Configuration, str], Part]
    """The attention of a layer of a kind."""
    feedforward: Callable[[Configuration, int], Part]
    """What stands between attention and the next layer, in layer i."""
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


# --- patterns of attention -------------------------------------------------------------------------------------------


def _slides_everywhere(config: Configuration, at: int) -> str:
    return "sliding_attention"


def _slides_at_the_end(config: Configuration, at: int) -> str:
    slides = config.flag("use_sliding_window") and at >= config.number("max_window_layers", least=0)
    return "sliding_attention" if slides else "full_attention"


def _slides_every_second_at_the_start(config: Configuration, at: int) -> str:
    slides = config.flag("use_sliding_window") and at % 2 == 0 and at < config.number("max_window_layers", least=0)
    return "sliding_attention" if slides else "full_attention"


def _slides_if_asked(config: Configuration, at: int) -> str:
    return "sliding_attention" if config.flag("use_sliding_window") else "full_attention"


def _slides_every_second(config: Configuration, at: int) -> str:
    return "full_attention" if at % 2 else "sliding_attention"


def _full_every_few(key: str, otherwise: str) -> Pattern:
    return lambda config, at: otherwise if (at + 1) % config.number(key) else "full_attention"


# --- attention -------------------------------------------------------------------------------------------------------


def _plain(config: Configuration, kind: str) -> Part:
    return grouped(config, kind)


def _biased(config: Configuration, kind: str) -> Part:
    return grouped(config, kind, bias=config.flag("attention_bias"))


def _biased_normed(config: Configuration, kind: str) -> Part:
    return grouped(config, kind, bias=config.flag("attention_bias"), norm="head")


def _ernie_attention(config: Configuration, kind: str) -> Part:
    return grouped(config, kind, bias=config.flag("use_bias"))


def _glm_attention(config: Configuration, kind: str) -> Part:
    return grouped(config, kind, bias=config.flag("attention_bias"), output_bias=False)


def _glm_moe_attention(config: Configuration, kind: str) -> Part:
    normed = config.flag("use_qk_norm")
    bias = config.flag("attention_bias")
    return grouped(config, kind, bias=bias, output_bias=False, norm="head" if normed else "none")


def _delta_or_gated(fused: bool) -> Callable[[Configuration, str], Part]:
    def attention(config: Configuration, kind: str) -> Part:
        if kind == "linear_attention":
            return delta(config, fused=fused)
        return grouped(config, bias=config.flag("attention_bias"), norm="head", gate=True)

    return attention


# --- feedforward -----------------------------------------------------------------------------------------------------


def _dense(config: Configuration, at: int) -> Part:
    return dense(config)


def _experts(config: Configuration, at: int) -> Part:
    return routed(config, config.number("intermediate_size"))


def _qwen_experts(shared: bool) -> Callable[[Configuration, int], Part]:
    def experts(config: Configuration, at: int) -> Part:
        part = routed(config, config.number("moe_intermediate_size"))
        if shared:
            width = config.number("shared_expert_intermediate_size")
            gate = linear("mlp.shared_expert_gate", config.number("hidden_size"), 1)
            part += gated(config, "mlp.shared_expert", width) + gate
        return part

    return experts


def _some_qwen_experts(shared: bool) -> Callable[[Configuration, int], Part]:
    def feedforward(config: Configuration, at: int) -> Part:
        sparse = (at + 1) % config.number("decoder_sparse_step") == 0 and at not in config.indices("mlp_only_layers")
        return _qwen_experts(shared)(config, at) if sparse else dense(config)

    return feedforward


def _deepseek_experts(config: Configuration, bias: bool = False) -> Part:
    inner, shared = config.number("moe_intermediate_size"), config.number("n_shared_experts", least=0)
    return routed(config, inner) + gated(config, "mlp.shared_experts", inner * shared, bias)


def _experts_after_the_first(config: Configuration, at: int) -> Part:
    bias = config.flag("mlp_bias")
    sparse = at >= config.number("first_k_dense_replace", least=0)
    return _deepseek_experts(config, bias) if sparse else dense(config, bias)


def _experts_by_list(config: Configuration, at: int) -> Part:
    listed = config.words("mlp_layer_types", ("dense", "sparse"))
    sparse = listed[at] == "sparse" if listed else at >= config.number("first_k_dense_replace", least=0)
    return _deepseek_experts(config) if sparse else dense(config)


def _ernie_experts(config: Configuration, at: int) -> Part:
    bias = config.flag("use_bias")
    first, last = config.number("moe_layer_start_index", least=0), config.number("moe_layer_end_index", least=-1)
    if (at + 1) % config.number("moe_layer_interval") or at < first or (at > last and last != -1):
        return dense(config, bias)
    correction = Part(other=config.number("num_experts"))  # of the router's scores; held as a parameter, not a buffer
    return _deepseek_experts(config, bias) + correction


def _hunyuan_experts(config: Configuration, at: int) -> Part:
    inner = config.number("intermediate_size")
    router = linear("mlp.gate.wg", config.number("hidden_size"), config.number("num_experts"))
    return routed(config, inner, router=False) + router + gated(config, "mlp.shared_mlp", inner)


# --- the table -------------------------------------------------------------------------------------------------------

_HEADS: dict[str, Any] = {"num_key_value_heads": None, "head_dim": None}
_WINDOWS: dict[str, Any] = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_SPARSE: dict[str, Any] = {"decoder_sparse_step": 1, "mlp_only_layers": None}
_LATENT: dict[str, Any] = {
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "attention_bias": False, "mlp_bias": False,
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
_EVERY_FOURTH_FULL = _full_every_few("full_attention_interval", "linear_attention")

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM", _biased, lambda c, at: dense(c, c.flag("mlp_bias")), 2048,
        _HEADS | {"attention_bias": False, "mlp_bias": False},
    ),
    "mistral": Family(
        "MistralForCausalLM", _plain, _dense, 131072,
        _HEADS | {"num_key_value_heads": 8, "sliding_window": 4096}, pattern=_slides_everywhere,
    ),
    "mixtral": Family(
        "MixtralForCausalLM", _plain, _experts, 131072,
        _HEADS | {"num_key_value_heads": 8, "sliding_window": None, "num_experts": 8, "num_experts_per_tok": 2},
        pattern=_slides_everywhere,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM", lambda c, kind: grouped(c, kind, bias=True, output_bias=False), _dense, 32768,
        _HEADS | {"num_key_value_heads": 32} | _WINDOWS, pattern=_slides_at_the_end, kinds=_SLIDING,
    ),
    "qwen2_moe": Family(
        "Qwen2MoeForCausalLM", lambda c, kind: grouped(c, kind, bias=c.flag("qkv_bias"), output_bias=False),
        _some_qwen_experts(shared=True), 32768,
        _HEADS | _WINDOWS | _SPARSE | {
            "num_key_value_heads": 16, "qkv_bias": True, "num_experts": 60, "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
        },
        pattern=_slides_every_second_at_the_start, kinds=_SLIDING,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM", _biased_normed, _dense, 32768,
        {"num_key_value_heads": 32, "head_dim": 128, "attention_bias": False} | _WINDOWS,
        pattern=_slides_at_the_end, kinds=_SLIDING,
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM", _biased_normed, _some_qwen_experts(shared=False), 32768,
        _HEADS | _WINDOWS | _SPARSE | {
            "num_key_value_heads": 4, "attention_bias": False, "num_experts": 128, "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        pattern=_slides_if_asked,
    ),
    "qwen3_next": Family(
        "Qwen3NextForCausalLM", _delta_or_gated(fused=True), _some_qwen_experts(shared=True), 32768,
        _DELTA | _SPARSE | _QWEN_EXPERTS | {"num_key_value_heads": 2, "num_experts": 512, "num_experts_per_tok": 10},
        pattern=_EVERY_FOURTH_FULL, kinds=_LINEAR,
    ),
    "qwen3_5_text": Family(
        "Qwen3_5ForCausalLM", _delta_or_gated(fused=False), _dense, 32768,
        _DELTA | {"num_key_value_heads": 4}, pattern=_EVERY_FOURTH_FULL, kinds=_LINEAR,
    ),
    "qwen3_5_moe_text": Family(
        "Qwen3_5MoeForCausalLM", _delta_or_gated(fused=False), _qwen_experts(shared=True), 32768,
        _DELTA | _QWEN_EXPERTS | {"num_key_value_heads": 2, "num_experts": 256, "num_experts_per_tok": 8},
        needs=(), pattern=_EVERY_FOURTH_FULL, kinds=_LINEAR,
    ),
    "deepseek_v2": Family(
        "DeepseekV2ForCausalLM", latent, _experts_after_the_first, 2048,
        _DEEPSEEK | {
            "num_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1407, "num_experts_per_tok": None,
            "first_k_dense_replace": 0,
        },
    ),
    "deepseek_v3": Family(
        "DeepseekV3ForCausalLM", latent, _experts_by_list, 4096, _DEEPSEEK | {"mlp_layer_types": None}
    ),
    "deepseek_v32": Family(
        "DeepseekV32ForCausalLM", lambda c, kind: latent(c, indexer=True), _experts_by_list, 163840,
        _DEEPSEEK | {"mlp_layer_types": None, "index_n_heads": 64, "index_head_dim": 128},
    ),
    "glm4": Family(
        "Glm4ForCausalLM", _glm_attention, lambda c, at: dense(c, fused=True), 131072,
        {"num_key_value_heads": 2, "head_dim": 128, "attention_bias": True}, norms=4,
    ),
    "glm4_moe": Family(
        "Glm4MoeForCausalLM", _glm_moe_attention, _experts_after_the_first, 131072,
        _HEADS | {
            "num_key_value_heads": 8, "attention_bias": False, "use_qk_norm": False, "mlp_bias": False,
            "num_experts": 128, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 1408,
            "first_k_dense_replace": 1,
        },
    ),
    "minimax_m2": Family(
        "MiniMaxM2ForCausalLM", lambda c, kind: grouped(c, norm="width"), _experts, 196608,
        {"num_key_value_heads": 8, "head_dim": 128, "num_experts": 256, "num_experts_per_tok": 8},
    ),
    "ernie4_5": Family(
        "Ernie4_5ForCausalLM", _ernie_attention, lambda c, at: dense(c, c.flag("use_bias")), 131072,
        {"num_key_value_heads": 2, "head_dim": 128, "use_bias": False}, tied=True,
    ),
    "ernie4_5_moe": Family(
        "Ernie4_5_MoeForCausalLM", _ernie_attention, _ernie_experts, 131072,
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
        pattern=_slides_every_second, kinds=_SLIDING,
    ),
    "hunyuan_v1_dense": Family(
        "HunYuanDenseV1ForCausalLM", _biased_normed, _dense, 2048, _HEADS | {"attention_bias": False}
    ),
    "hunyuan_v1_moe": Family(
        "HunYuanMoEV1ForCausalLM", _biased_normed, _hunyuan_experts, 2048,
        _HEADS | {"attention_bias": False, "num_experts": 1, "num_experts_per_tok": 1},
    ),
    "gemma": Family(
        "GemmaForCausalLM", _biased, _dense, 8192,
        {"num_key_value_heads": 16, "head_dim": 256, "attention_bias": False}, tied=True,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM", _biased, _dense, 8192,
        {"num_key_value_heads": 4, "head_dim": 256, "attention_bias": False, "sliding_window": 4096},
        tied=True, norms=4, pattern=_slides_every_second, kinds=_SLIDING,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", _biased_normed, _dense, 131072,
        {
            "num_key_value_heads": 4, "head_dim": 256, "attention_bias": False, "sliding_window": 4096,
            "sliding_window_pattern": 6,
        },
        tied=True, norms=4, pattern=_full_every_few("sliding_window_pattern", "sliding_attention"), kinds=_SLIDING,
    ),
}  # fmt: skip

SAME_AS = {"kimi_k2": "deepseek_v3", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text"}
"""Types that are built as another (of those with pictures, the text part)."""
