"""What a causal language model is made of, as numbers: enough to count weights,
operations and bytes without building it.

Pure values; `workbench.plan.shapes` makes them from a config.json or a row of the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Linear:
    """One kind of linear layer (torch's nn.Linear) and how often it stands in the model; never the output head."""

    path: str
    """Its name inside a decoder layer, such as `self_attn.q_proj` or `mlp.shared_experts.gate_proj`."""
    inputs: int
    outputs: int
    places: tuple[int, ...]
    """Which decoder layers hold one, counted from 0 (a glob may name some of them only)."""
    bias: bool = False
    as_parameter: bool = False
    """Whether our adapters sit on it as a parameter (PEFT would rewrite it on bases with fused experts)."""
    stacked: int = 1
    """Matrices that lie in one tensor: the routed experts of a layer, where they are adapted; else 1."""

    @property
    def copies(self) -> int:
        """How many of its matrices stand in the model."""
        return len(self.places) * self.stacked

    @property
    def leaf(self) -> str:
        """The last part of its name, as `method.targets` names it."""
        return self.path.rpartition(".")[2]

    @property
    def weights(self) -> int:
        """Entries of one weight matrix, its bias left out."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Experts:
    """Routed experts, which transformers 5 fuses into two tensors a layer: gate_up [E, 2 I, H] and down [E, H, I]."""

    places: tuple[int, ...]
    """Which decoder layers have them, counted from 0."""
    total: int
    active: int
    """Experts that one token passes through (shared experts are ordinary linear layers and not counted here)."""
    intermediate: int
    """Inner width I of one expert."""
    bias: bool = False
    """Whether its matrices carry biases, of 2 I and H entries (gpt-oss)."""

    @property
    def layers(self) -> int:
        """Decoder layers that have them."""
        return len(self.places)

    def weights(self, hidden: int) -> int:
        """Entries of one expert's matrices."""
        return 3 * hidden * self.intermediate

    def parameters(self, hidden: int) -> int:
        """Entries of one expert, its biases among them."""
        return self.weights(hidden) + (2 * self.intermediate + hidden) * self.bias


@dataclass(frozen=True)
class Attention:
    """One kind of attention and the layers that have it."""

    kind: Literal["full", "sliding", "latent", "linear"]
    layers: int
    heads: int
    """Heads of the queries; of a linear attention those of the values."""
    kv_heads: int
    """Heads of keys and values; of a linear attention those of queries and keys."""
    key_dim: int
    """Width of one head's query and key."""
    value_dim: int
    """Width of one head's value."""
    qk_norm: bool = False
    """Whether queries and keys are normalised."""
    window: int | None = None
    """Tokens that a sliding attention reaches back."""


@dataclass(frozen=True)
class Architecture:
    """A decoder-only transformer."""

    name: str
    """Its class in transformers, such as Qwen3ForCausalLM."""
    hidden: int
    layers: int
    vocabulary: int
    tied: bool
    """Whether the output head is the input embedding."""
    context: int
    """Longest sequence that its positions allow, tokens."""
    linears: tuple[Linear, ...]
    attentions: tuple[Attention, ...]
    experts: Experts | None
    other_parameters: int
    """Everything else: norms, routers, convolutions, decay rates; not embeddings, not the head."""
    router_parameters: int = 0
    """Of them, those that tokens are multiplied by: routers, and the short convolutions of linear attention."""

    @property
    def embedding_parameters(self) -> int:
        """Input embedding, and the head where it is not the same."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def linear_parameters(self) -> int:
        """Weights and biases of all linear layers but the head."""
        return sum(layer.copies * (layer.weights + layer.outputs * layer.bias) for layer in self.linears)

    @property
    def expert_parameters(self) -> int:
        """Weights and biases of all routed experts."""
        experts = self.experts
        return experts.layers * experts.total * experts.parameters(self.hidden) if experts else 0

    @property
    def parameters(self) -> int:
        """All of them, tied weights once."""
        return self.embedding_parameters + self.linear_parameters + self.expert_parameters + self.other_parameters

    @property
    def active_parameters(self) -> int:
        """Without the routed experts that one token does not pass through."""
        experts = self.experts
        idle = experts.layers * (experts.total - experts.active) * experts.parameters(self.hidden) if experts else 0
        return self.parameters - idle
