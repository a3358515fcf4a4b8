"""The rows of bases.yaml and licences.yaml."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, TypeAdapter

from workbench.catalog.cards import Row

_HERE = Path(__file__).parent


class Experts(Row):
    """The experts of a mixture-of-experts base."""

    total: int
    active: int
    shared: int
    intermediate_size: int
    first_dense_layers: int = 0


class LatentAttention(Row):
    """The widths of multi-head latent attention (DeepSeek-V2 and later)."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    index_n_heads: int | None = None
    """Heads of the small attention that picks tokens for the large one (DeepSeek-V3.2)."""
    index_head_dim: int | None = None
    """Width of one of them."""


class LinearAttention(Row):
    """The gated delta rule that most layers of a hybrid base have in place of attention (Qwen3-Next)."""

    full_every: int
    """Every so many layers, one has full attention."""
    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    convolution: int
    """Tokens that its short convolution sees."""


class Shape(Row):
    """Widths and counts of the architecture, as in its config.json."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int | None
    intermediate_size: int | None
    vocab_size: int
    tied_embeddings: bool
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: Experts | None = None
    mla: LatentAttention | None = None
    linear_attention: LinearAttention | None = None
    sliding_window: int | None = None
    """Tokens that its sliding attention reaches back (of gpt-oss every second layer's, of Mistral all layers')."""


class BaseRow(Row):
    """One open-weight model: where it is, what it is, what its licence asks."""

    name: str
    family: str
    hub: str
    revision: str | None
    architecture: str
    tuning: Literal["base", "instruct", "reasoning"]
    parameters: int
    active_parameters: int
    context: int
    shape: Shape
    licence: str
    also_licence: list[str] = Field(default_factory=list)
    source: str
    as_of: str
    stored: Literal["fp8", "mxfp4", "int4"] | None = None
    """What its repository's weights are quantised to (config.json's `quantization_config`). None: not quantised."""
    pretraining_tokens: float | None = None
    """Tokens that it was pretrained on, as its makers published; None: they did not."""
    pretraining_source: str | None = None
    """Where they did."""

    def licences(self) -> list[LicenceRow]:
        """Its own licence, then those it inherits."""
        return [licences()[name] for name in (self.licence, *self.also_licence)]


class LicenceRow(Row):
    """What a licence allows and asks."""

    id: str
    name: str
    spdx: str | None
    commercial_use: bool | Literal["limited"]
    restrictions: list[str]
    name_begins: str | None = None
    """What the name of a model that is made from it must begin with."""
    shows: str | None = None
    """What must be shown with a model that is made from it."""
    url: str | None
    as_of: str


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Safe YAML in which a date stays the text it is."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def rows(file: str) -> Any:
    """The rows of one of the catalog's files."""
    return yaml.load((_HERE / file).read_text(encoding="utf-8"), Loader=_Loader)


@cache
def bases() -> dict[str, BaseRow]:
    """All bases by name."""
    return {row.name: row for row in TypeAdapter(list[BaseRow]).validate_python(rows("bases.yaml"))}


@cache
def licences() -> dict[str, LicenceRow]:
    """All licences by id."""
    return {row.id: row for row in TypeAdapter(list[LicenceRow]).validate_python(rows("licences.yaml"))}


def pretraining_flops(name: str) -> float | None:
    """Operations that pretraining a base took; None where the number of its tokens is not published.

    Counted step by step for the embedded base; else 6 an active parameter and token (Kaplan et al. 2020, arXiv
    2001.08361, section 2.1), which leaves attention and later training stages out.
    """
    if name == "embedded":
        manifest = json.loads((_HERE.parent / "embedded" / "base" / "manifest.json").read_text(encoding="utf-8"))
        return float(manifest["pretraining"]["training_flops"])
    row = bases()[name]
    return None if row.pretraining_tokens is None else 6.0 * row.active_parameters * row.pretraining_tokens
