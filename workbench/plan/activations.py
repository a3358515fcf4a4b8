"""What the forward pass keeps for the backward, in bytes, tensor by tensor as torch's autograd keeps them.

Read off the modelling code of transformers 5.23 and PEFT 0.21 and checked against traced steps (tests/test_memory.py):

- a norm keeps its input in fp32 (a copy where activations are of fewer bits), and where its weight is trained also what
  the weight is multiplied with;
- attention keeps queries, keys, values and its output, keys and values once a query head where they are repeated for a
  mask; eager attention also keeps the probabilities;
- a gated MLP keeps gate, activated gate and up; with fused experts once a token and active expert;
- a linear layer keeps its input only where its own weight is trained, an adapter where it reads the input: in fp32, or
  under autocast as a copy in the arithmetic's type, each layer its own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.plan.architecture import Architecture, Linear

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}

Kind = Literal["lora", "dora", "vera", "ia3", "oft", "full", "none"]


@dataclass(frozen=True)
class Adapted:
    """What is trained, as far as activations depend on it."""

    kind: Kind
    linears: Sequence[Linear] = ()
    """The layers that it sits on."""
    rank: int = 0
    dropout: bool = False
    feedforward: frozenset[str] = frozenset()
    """Last name parts of the layers that ia3 rescales at their input."""


@dataclass(frozen=True)
class Arithmetic:
    """Types of a forward pass."""

    weights: Literal["fp32", "fp16", "bf16"]
    """Of the weights as they are stored (dequantised, for 4-bit bases)."""
    products: Literal["fp32", "fp16", "bf16"]
    """Of matrix products."""

    @property
    def product_bytes(self) -> int:
        """Bytes of an entry that a matrix product gives."""
        return BYTES[self.products]

    @property
    def residual_bytes(self) -> int:
        """Bytes of an entry of the residual stream: the embedding's type."""
        return BYTES[self.weights]


@dataclass(frozen=True)
class Batch:
    """One micro-batch, padding included."""

    rows: int
    length: int
    attention: Literal["sdpa", "eager", "flash"] = "sdpa"

    @property
    def tokens(self) -> int:
        """Entries of the batch."""
        return self.rows * self.length


def saved_bytes(model: Architecture, adapted: Adapted, arithmetic: Arithmetic, batch: Batch, autocast: bool) -> float:
    """All decoder layers' activations, without checkpointing.

    Args:
        autocast: whether the forward runs under autocast.
    """
    full = adapted.kind == "full"
    token = _norms(model, arithmetic, full) + _attention(model, arithmetic, batch)
    token += _mlp(model, arithmetic.product_bytes, full)
    token += _linear_inputs(model, arithmetic, autocast) if full else _adapters(model, adapted, arithmetic, autocast)
    return token * batch.tokens + _probabilities(model, arithmetic, batch)


def _norms(model: Architecture, arithmetic: Arithmetic, full: bool) -> float:
    """Two block norms a layer, the final norm, and those inside attention; bytes a token."""
    block = (2 * model.layers + 1) * model.hidden
    inner = sum(kind.layers * (kind.heads + kind.kv_heads) * kind.key_dim for kind in model.attentions if kind.qk_norm)
    inner += sum(layer.copies * layer.outputs for layer in model.linears if layer.leaf in _COMPRESSED)
    trained = arithmetic.residual_bytes if full else 0
    return (4 + trained) * block + (4 + (arithmetic.product_bytes if full else 0)) * inner


def _attention(model: Architecture, arithmetic: Arithmetic, batch: Batch) -> float:
    """Queries, keys, values and output of every layer; bytes a token."""
    total = 0.0
    for kind in model.attentions:
        if kind.kind == "linear":
            total += kind.layers * _LINEAR_ATTENTION_COPIES * kind.heads * (2 * kind.key_dim + 2 * kind.value_dim) * 4
            continue
        repeated = kind.kv_heads if batch.attention == "flash" else kind.heads
        width = kind.heads * (kind.key_dim + kind.value_dim) + repeated * (kind.key_dim + kind.value_dim)
        total += kind.layers * width * arithmetic.product_bytes
        if batch.attention != "eager":
            total += kind.layers * kind.heads * 4  # the logarithm of each row's sum
    return total


_LINEAR_ATTENTION_COPIES = 5
"""How often the chunked delta rule keeps its operands, in fp32."""


def _probabilities(model: Architecture, arithmetic: Arithmetic, batch: Batch) -> float:
    """Softmax in fp32 and its copy in the products' type, of eager attention."""
    if batch.attention != "eager":
        return 0.0
    size = 4 + (arithmetic.product_bytes if arithmetic.product_bytes < 4 else 0)
    heads = sum(kind.layers * kind.heads for kind in model.attentions if kind.kind != "linear")
    return float(size * heads * batch.rows * batch.length**2)


def _mlp(model: Architecture, entry: int, full: bool) -> float:
    """Gate, activated gate and up of dense and shared layers and of the active experts; bytes a token."""
    width = sum(layer.copies * layer.outputs for layer in model.linears if layer.leaf in _GATES)
    total = 3.0 * width * entry
    experts = model.experts
    if experts:
        active = experts.layers * experts.active
        # each active expert also keeps its output, which the routing weight is multiplied with
        total += active * (3 * experts.intermediate + model.hidden) * entry
        total += active * (experts.intermediate + model.hidden) * entry if full else 0.0
    return total


_COMPRESSED = frozenset({"q_a_proj", "kv_a_proj_with_mqa"})
"""Layers of latent attention whose output is normalised."""
_GATES = frozenset({"gate_proj", "w1", "gate_up_proj"})
_SAME_INPUT = (
    frozenset({"q_proj", "k_proj", "v_proj", "q_a_proj", "kv_a_proj_with_mqa", "in_proj_qkvz", "in_proj_ba"}),
    frozenset({"gate_proj", "up_proj", "gate_up_proj", "w1", "w3"}),
)


def _source(layer: Linear) -> str:
    """Layers of one decoder layer that read the same tensor have the same source."""
    for at, leaves in enumerate(_SAME_INPUT):
        if layer.leaf in leaves:
            return f"{layer.path.rpartition('.')[0]} {at}"
    return layer.path


def _distinct_inputs(linears: Sequence[Linear]) -> int:
    """Width of all inputs, those that several layers share once."""
    widest: dict[str, int] = {}
    for layer in linears:
        source = _source(layer)
        widest[source] = max(widest.get(source, 0), layer.inputs * layer.copies)
    return sum(widest.values())


def _linear_inputs(model: Architecture, arithmetic: Arithmetic, autocast: bool) -> float:
    """Inputs of all linear layers whose weights are trained; bytes a token. The output of attention is kept anyway."""
    others = [layer for layer in model.linears if layer.leaf not in _OUTPUTS_OF_ATTENTION]
    if autocast:  # each layer casts its own copy of an fp32 input; what is of the products' type already is not cast
        own = sum(layer.copies * layer.inputs for layer in others if layer.leaf not in _READ_PRODUCTS)
        shared = _distinct_inputs([layer for layer in others if layer.leaf in _READ_PRODUCTS])
        return float((own + shared) * arithmetic.product_bytes)
    return float(_distinct_inputs(others) * arithmetic.product_bytes)


_OUTPUTS_OF_ATTENTION = frozenset({"o_proj", "out_proj", "dense"})
_READ_PRODUCTS = frozenset({"down_proj", "w2", "q_b_proj", "kv_b_proj"})


def _adapters(model: Architecture, adapted: Adapted, arithmetic: Arithmetic, autocast: bool) -> float:
    """What an adapter keeps beside the frozen layer it sits on; bytes a token."""
    if adapted.kind == "none":
        return 0.0
    parameters = [layer for layer in adapted.linears if layer.as_parameter]
    linears = [layer for layer in adapted.linears if not layer.as_parameter]
    inputs = sum(layer.copies * layer.inputs for layer in linears)
    outputs = sum(layer.copies * layer.outputs for layer in linears)
    places = sum(layer.copies for layer in linears)
    kept = arithmetic.product_bytes if autocast else 4  # adapters are fp32; autocast takes them to the products' type
    if arithmetic.products == "fp32" and not adapted.dropout:
        others = [layer for layer in linears if layer.leaf not in _OUTPUTS_OF_ATTENTION]
        read = float(kept * _distinct_inputs(others))  # no copies: all read the same fp32 tensor
    else:
        read = float(kept * inputs)
    if adapted.dropout:
        read += inputs  # the mask, a byte an entry
    read += _changed_weights(model, parameters, arithmetic)
    if adapted.kind == "lora":
        return read + kept * adapted.rank * places
    if adapted.kind == "dora":
        return read + kept * adapted.rank * places + (arithmetic.product_bytes + kept) * outputs
    if adapted.kind == "vera":
        return float((kept + 4) * adapted.rank * places + kept * outputs)
    if adapted.kind == "oft":
        return read
    if adapted.kind == "ia3":
        forward = sum(layer.copies * layer.inputs for layer in linears if layer.leaf in adapted.feedforward)
        after = sum(layer.copies * layer.outputs for layer in linears if layer.leaf not in adapted.feedforward)
        return float(4 * forward + arithmetic.product_bytes * after)
    return 0.0


def _changed_weights(model: Architecture, linears: Sequence[Linear], arithmetic: Arithmetic) -> float:
    """An adapter that changes a weight (PEFT's target parameters) makes its layer keep the input, as training the
    weight would; of fused experts once a token and active expert."""
    single = [layer for layer in linears if layer.stacked == 1]
    total = float(_distinct_inputs(single) * arithmetic.product_bytes)
    if model.experts and len(single) < len(linears):
        width = model.hidden + model.experts.intermediate
        total += model.experts.layers * model.experts.active * width * arithmetic.product_bytes
    return total


def working_bytes(model: Architecture, adapted: Adapted, arithmetic: Arithmetic, batch: Batch) -> float:
    """Gradients and temporaries while one layer is walked back: three of the widest activation in the products' type,
    and where an adapter reads it, its gradient in fp32 and that of the adapter's copy. DoRA builds its update whole to
    take its norm, through an identity matrix as wide as the input."""
    experts = model.experts
    widest = (
        max(layer.outputs for layer in model.linears if layer.leaf in _GATES)
        if any(layer.leaf in _GATES for layer in model.linears)
        else 0
    )
    if experts:
        widest = max(widest, experts.active * experts.intermediate)
    entry = 3.0 * arithmetic.product_bytes
    reads = {layer.leaf for layer in adapted.linears}
    if reads & (_READ_PRODUCTS | _GATES) and adapted.kind not in ("full", "none"):
        entry += 3.0 if arithmetic.product_bytes < 4 else 4.0
    mlp = 3.0 * widest * arithmetic.product_bytes * batch.tokens  # freed before attention is walked back
    probabilities = 8.0 / 6.0 * _probabilities(model, arithmetic, batch) / model.layers
    norm = max((4 * layer.inputs**2 + 6 * layer.weights for layer in adapted.linears), default=0)
    return max(entry * widest * batch.tokens, probabilities - mlp, float(norm) if adapted.kind == "dora" else 0.0)
