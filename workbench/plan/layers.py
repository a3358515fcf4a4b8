"""Which parts a decoder layer is made of, by the choices that families share: the kind of attention of each layer, the
attention, and what follows it."""

from __future__ import annotations

from collections.abc import Callable

from workbench.plan.configuration import Configuration
from workbench.plan.parts import Part, delta, dense, gated, grouped, linear, routed

Pattern = Callable[[Configuration, int], str]
"""The kind of attention of layer i, where the configuration lists none."""
Attend = Callable[[Configuration, str], Part]
"""The attention of a layer of a kind."""
Feed = Callable[[Configuration, int], Part]
"""What stands between the attention of layer i and the next layer."""


# --- patterns of attention -------------------------------------------------------------------------------------------


def slides_everywhere(config: Configuration, at: int) -> str:
    """Sliding attention in every layer (full where the configuration gives no window)."""
    return "sliding_attention"


def slides_at_the_end(config: Configuration, at: int) -> str:
    """Where sliding is asked for: from `max_window_layers` on."""
    slides = config.flag("use_sliding_window") and at >= config.number("max_window_layers", least=0)
    return "sliding_attention" if slides else "full_attention"


def slides_every_second_at_the_start(config: Configuration, at: int) -> str:
    """Where sliding is asked for: every second layer before `max_window_layers`."""
    slides = config.flag("use_sliding_window") and at % 2 == 0 and at < config.number("max_window_layers", least=0)
    return "sliding_attention" if slides else "full_attention"


def slides_if_asked(config: Configuration, at: int) -> str:
    """Where sliding is asked for: in every layer."""
    return "sliding_attention" if config.flag("use_sliding_window") else "full_attention"


def slides_every_second(config: Configuration, at: int) -> str:
    """Sliding and full attention by turns."""
    return "full_attention" if at % 2 else "sliding_attention"


def full_every_few(key: str, otherwise: str) -> Pattern:
    """Full attention in one layer of so many as the field `key` says."""
    return lambda config, at: otherwise if (at + 1) % config.number(key) else "full_attention"


# --- attention -------------------------------------------------------------------------------------------------------


def plain(config: Configuration, kind: str) -> Part:
    """Without biases and norms."""
    return grouped(config, kind)


def biased(config: Configuration, kind: str) -> Part:
    """With `attention_bias`."""
    return grouped(config, kind, bias=config.flag("attention_bias"))


def normed(config: Configuration, kind: str) -> Part:
    """With `attention_bias`, and norms of queries and keys."""
    return grouped(config, kind, bias=config.flag("attention_bias"), norm="head")


def ernie_attention(config: Configuration, kind: str) -> Part:
    """With `use_bias`."""
    return grouped(config, kind, bias=config.flag("use_bias"))


def glm_attention(config: Configuration, kind: str) -> Part:
    """With `attention_bias`, but not on the output."""
    return grouped(config, kind, bias=config.flag("attention_bias"), output_bias=False)


def glm_moe_attention(config: Configuration, kind: str) -> Part:
    """As glm_attention, with norms where `use_qk_norm`."""
    bias, with_norms = config.flag("attention_bias"), config.flag("use_qk_norm")
    return grouped(config, kind, bias=bias, output_bias=False, norm="head" if with_norms else "none")


def delta_or_gated(fused: bool) -> Attend:
    """Linear attention, or full attention with a gate of its output."""

    def build(config: Configuration, kind: str) -> Part:
        if kind == "linear_attention":
            return delta(config, fused=fused)
        return grouped(config, bias=config.flag("attention_bias"), norm="head", gate=True)

    return build


# --- feedforward -----------------------------------------------------------------------------------------------------


def feedforward(config: Configuration, at: int) -> Part:
    """A feedforward in every layer."""
    return dense(config)


def experts(config: Configuration, at: int) -> Part:
    """Experts of the intermediate size in every layer."""
    return routed(config, config.number("intermediate_size"))


def qwen_experts(shared: bool) -> Feed:
    """Experts in every layer, and one shared expert with a gate."""

    def build(config: Configuration, at: int) -> Part:
        part = routed(config, config.number("moe_intermediate_size"))
        if shared:
            width = config.number("shared_expert_intermediate_size")
            gate = linear("mlp.shared_expert_gate", config.number("hidden_size"), 1)
            part += gated(config, "mlp.shared_expert", width) + gate
        return part

    return build


def some_qwen_experts(shared: bool) -> Feed:
    """Experts in every `decoder_sparse_step`-th layer that is not in `mlp_only_layers`."""

    def build(config: Configuration, at: int) -> Part:
        sparse = (at + 1) % config.number("decoder_sparse_step") == 0 and at not in config.indices("mlp_only_layers")
        return qwen_experts(shared)(config, at) if sparse else dense(config)

    return build


def _deepseek_experts(config: Configuration, bias: bool = False) -> Part:
    inner, shared = config.number("moe_intermediate_size"), config.number("n_shared_experts", least=0)
    part = routed(config, inner)
    return part + gated(config, "mlp.shared_experts", inner * shared, bias) if shared else part


def experts_after_the_first(config: Configuration, at: int, bias: bool = False) -> Part:
    """Experts in all but the first layers."""
    sparse = at >= config.number("first_k_dense_replace", least=0)
    return _deepseek_experts(config, bias) if sparse else dense(config, bias)


def experts_by_list(config: Configuration, at: int) -> Part:
    """Experts where `mlp_layer_types` says so, else in all but the first layers."""
    listed = config.words("mlp_layer_types", ("dense", "sparse"))
    sparse = listed[at] == "sparse" if listed else at >= config.number("first_k_dense_replace", least=0)
    return _deepseek_experts(config) if sparse else dense(config)


def ernie_experts(config: Configuration, at: int) -> Part:
    """Experts in every `moe_layer_interval`-th layer of a range."""
    bias = config.flag("use_bias")
    first, last = config.number("moe_layer_start_index", least=0), config.number("moe_layer_end_index", least=-1)
    if (at + 1) % config.number("moe_layer_interval") or at < first or (at > last and last != -1):
        return dense(config, bias)
    correction = Part(other=config.number("num_experts"))  # of the router's scores; held as a parameter, not a buffer
    return _deepseek_experts(config, bias) + correction


def hunyuan_experts(config: Configuration, at: int) -> Part:
    """Experts and a shared one of the intermediate size in every layer; the router is a linear layer."""
    inner = config.number("intermediate_size")
    router = linear("mlp.gate.wg", config.number("hidden_size"), config.number("num_experts"))
    return routed(config, inner, router=False) + router + gated(config, "mlp.shared_mlp", inner)
