"""The parts that decoder layers are put together from, counted as transformers 5 builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.plan.architecture import Attention, Experts, Linear
from workbench.plan.configuration import Configuration


@dataclass(frozen=True)
class Part:
    """Some of what one decoder layer holds. (Its linear layers, attention and experts stand in no layer yet.)"""

    linears: tuple[Linear, ...] = ()
    other: int = 0
    """Parameters that are neither linear layers nor routed experts."""
    router: int = 0
    """Of them, those that tokens are multiplied by."""
    attention: Attention | None = None
    experts: Experts | None = None

    def __add__(self, more: Part) -> Part:
        return Part(
            linears=self.linears + more.linears,
            other=self.other + more.other,
            router=self.router + more.router,
            attention=self.attention or more.attention,
            experts=self.experts or more.experts,
        )


def linear(path: str, inputs: int, outputs: int, bias: bool = False) -> Part:
    """One linear layer."""
    return Part(linears=(Linear(path, inputs, outputs, places=(), bias=bias),))


def grouped(
    config: Configuration,
    kind: str = "full_attention",
    *,
    bias: bool = False,
    output_bias: bool | None = None,
    norm: Literal["none", "head", "width"] = "none",
    gate: bool = False,
    sinks: bool = False,
) -> Part:
    """Attention in which several query heads share a key and value head.

    Args:
        kind: full_attention or sliding_attention.
        bias: of q, k and v; also of o unless `output_bias` says otherwise.
        norm: of queries and keys: one scale a width of a head (shared by the heads), or one over all heads.
        gate: q_proj also makes a gate of the output, as wide again.
        sinks: a learnt logit a head that takes attention away.
    """
    hidden, heads = config.number("hidden_size"), config.number("num_attention_heads")
    kv_heads = config.maybe("num_key_value_heads") or heads
    width = config.maybe("head_dim") or hidden // heads
    window = config.maybe("sliding_window") if kind == "sliding_attention" else None
    norms = {"none": 0, "head": 2 * width, "width": (heads + kv_heads) * width}[norm]
    attention = Attention(
        "full" if window is None else "sliding", 0, heads, kv_heads, width, width, qk_norm=norm != "none", window=window
    )
    return (
        linear("self_attn.q_proj", hidden, heads * width * (2 if gate else 1), bias)
        + linear("self_attn.k_proj", hidden, kv_heads * width, bias)
        + linear("self_attn.v_proj", hidden, kv_heads * width, bias)
        + linear("self_attn.o_proj", heads * width, hidden, bias if output_bias is None else output_bias)
        + Part(other=norms + heads * sinks, attention=attention)
    )


def latent(config: Configuration, kind: str = "full_attention", *, indexer: bool = False) -> Part:
    """DeepSeek's multi-head latent attention: queries, keys and values out of low-rank projections.

    Args:
        indexer: DeepSeek-V3.2's small attention that picks the tokens which the large one looks at.
    """
    hidden, heads = config.number("hidden_size"), config.number("num_attention_heads")
    plain, rotary = config.number("qk_nope_head_dim"), config.number("qk_rope_head_dim")
    value, kv_rank = config.number("v_head_dim"), config.number("kv_lora_rank")
    q_rank = config.maybe("q_lora_rank")
    bias = config.flag("attention_bias")
    queries = heads * (plain + rotary)
    if q_rank is None:
        query = linear("self_attn.q_proj", hidden, queries)
    else:
        query = linear("self_attn.q_a_proj", hidden, q_rank, bias) + linear("self_attn.q_b_proj", q_rank, queries)
    part = (
        query
        + linear("self_attn.kv_a_proj_with_mqa", hidden, kv_rank + rotary, bias)
        + linear("self_attn.kv_b_proj", kv_rank, heads * (plain + value))
        + linear("self_attn.o_proj", heads * value, hidden, bias)
        + Part(other=(q_rank or 0) + kv_rank, attention=Attention("latent", 0, heads, heads, plain + rotary, value))
    )
    if not indexer:
        return part
    index_heads, index_width = config.number("index_n_heads"), config.number("index_head_dim")
    return (
        part
        + linear("self_attn.indexer.wq_b", config.number("q_lora_rank"), index_heads * index_width)
        + linear("self_attn.indexer.wk", hidden, index_width)
        + linear("self_attn.indexer.weights_proj", hidden, index_heads)
        + Part(other=2 * index_width)  # the scale and the shift of its keys' norm
    )


def delta(config: Configuration, *, fused: bool) -> Part:
    """Linear attention by the gated delta rule (Qwen3-Next, Qwen3.5).

    Args:
        fused: its input projections lie in two matrices rather than in four.
    """
    hidden = config.number("hidden_size")
    key_heads, value_heads = config.number("linear_num_key_heads"), config.number("linear_num_value_heads")
    key_width, value_width = config.number("linear_key_head_dim"), config.number("linear_value_head_dim")
    keys, values = key_heads * key_width, value_heads * value_width
    projections = (
        {"qkvz": 2 * keys + 2 * values, "ba": 2 * value_heads}
        if fused
        else {"qkv": 2 * keys + values, "z": values, "b": value_heads, "a": value_heads}
    )
    convolution = (2 * keys + values) * config.number("linear_conv_kernel_dim")
    decay = 2 * value_heads
    part = Part(
        other=convolution + decay + value_width,
        router=convolution,
        attention=Attention("linear", 0, value_heads, key_heads, key_width, value_width),
    )
    for name, width in projections.items():
        part += linear(f"linear_attn.in_proj_{name}", hidden, width)
    return part + linear("linear_attn.out_proj", values, hidden)


def gated(config: Configuration, path: str, inner: int, bias: bool = False, fused: bool = False) -> Part:
    """A feedforward of three matrices: down(act(gate(x)) * up(x)).

    Args:
        fused: gate and up lie in one matrix.
    """
    hidden = config.number("hidden_size")
    widths = {"gate_up_proj": 2 * inner} if fused else {"gate_proj": inner, "up_proj": inner}
    part = Part()
    for name, width in widths.items():
        part += linear(f"{path}.{name}", hidden, width, bias)
    return part + linear(f"{path}.down_proj", inner, hidden, bias)


def dense(config: Configuration, bias: bool = False, fused: bool = False) -> Part:
    """The feedforward of a layer without experts."""
    return gated(config, "mlp", config.number("intermediate_size"), bias, fused)


def routed(config: Configuration, inner: int, *, bias: bool = False, router: bool = True) -> Part:
    """Routed experts, and the matrix [experts, hidden] that chooses among them.

    Args:
        inner: width inside one expert.
        bias: of experts and router.
        router: the matrix is a plain parameter (and not a linear layer, which is counted as such).
    """
    total, active = config.number("num_experts"), config.same("num_experts_per_tok")
    weights = config.number("hidden_size") * total * router
    return Part(other=weights + total * bias, router=weights, experts=Experts((), total, active, inner, bias=bias))
