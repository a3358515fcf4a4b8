"""config.json, or a row of the catalog -> an Architecture: what transformers would build, counted in milliseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from workbench import documents
from workbench.catalog.bases import BaseRow
from workbench.errors import Problem, ShapeError
from workbench.plan.architecture import Architecture, Attention, Experts, Linear
from workbench.plan.configuration import Configuration
from workbench.plan.families import FAMILIES, NEEDS, SAME_AS, Family
from workbench.plan.parts import Part
from workbench.plan.targets import REWRITTEN


def from_config(config: Mapping[str, Any], where: str = "config.json") -> Architecture:
    """The causal language model that transformers 5 builds from a config.json (the text part of one that sees).

    Args:
        where: how the file is named in messages.

    Raises:
        ShapeError: its model_type is not known here, or a field is missing or of the wrong type.
    """
    if not isinstance(config, Mapping):
        raise ShapeError(Problem(where, "is no table of fields", "it must be a base's config.json"))
    kind = config.get("model_type")
    text = config.get("text_config")
    if isinstance(text, Mapping) and SAME_AS.get(str(kind)) in FAMILIES:
        config, where, kind = text, f"{where} text_config", SAME_AS[str(kind)]
    family = FAMILIES.get(SAME_AS.get(str(kind), str(kind)))
    if family is None:
        found = "is missing" if kind is None else f"{kind!r} cannot be counted without building the model"
        raise ShapeError(Problem(f"{where} model_type", found, documents.did_you_mean(str(kind), known_types())))
    return _built(family, config, where)


def known_types() -> list[str]:
    """The model types that `from_config` counts."""
    return sorted({*FAMILIES, *SAME_AS})


def from_row(row: BaseRow) -> Architecture:
    """The architecture of a catalog row.

    Raises:
        ShapeError: its architecture is not known here.
    """
    family = next((family for family in FAMILIES.values() if family.architecture == row.architecture), None)
    where = f"bases.yaml {row.name}"
    if family is None:
        known = sorted(family.architecture for family in FAMILIES.values())
        raise ShapeError(
            Problem(f"{where} architecture", f"{row.architecture!r} cannot be counted", f"known: {', '.join(known)}")
        )
    return _built(family, _fields(row), where)


def _built(family: Family, values: Mapping[str, Any], where: str) -> Architecture:
    general = {"tie_word_embeddings": family.tied, "max_position_embeddings": family.context}
    listed = {"layer_types": None} if family.kinds else {}
    config = Configuration(values, NEEDS + family.needs, {**general, **listed, **family.defaults}, where)
    layers, hidden = config.number("num_hidden_layers"), config.number("hidden_size")
    kinds = config.words("layer_types", family.kinds) if family.kinds else None
    parts = [
        family.attention(config, kinds[at] if kinds else family.pattern(config, at)) + family.feedforward(config, at)
        for at in range(layers)
    ]
    experts = _experts(parts)
    head_bias = config.number("vocab_size") * family.head_bias(config)
    return Architecture(
        name=family.architecture,
        hidden=hidden,
        layers=layers,
        vocabulary=config.number("vocab_size"),
        tied=config.flag("tie_word_embeddings"),
        context=config.number("max_position_embeddings"),
        linears=_linears(parts, rewritten=experts is not None),
        attentions=_attentions(parts),
        experts=experts,
        other_parameters=sum(part.other for part in parts) + hidden * (family.norms * layers + 1) + head_bias,
        router_parameters=sum(part.router for part in parts),
    )


def _linears(parts: Sequence[Part], rewritten: bool) -> tuple[Linear, ...]:
    """Each kind of linear layer with the layers that have it."""
    found: dict[Linear, list[int]] = {}
    for at, part in enumerate(parts):
        for linear in part.linears:
            found.setdefault(linear, []).append(at)
    return tuple(
        replace(linear, places=tuple(places), as_parameter=rewritten and linear.leaf in REWRITTEN)
        for linear, places in found.items()
    )


def _attentions(parts: Sequence[Part]) -> tuple[Attention, ...]:
    found = Counter(part.attention for part in parts if part.attention)
    return tuple(replace(attention, layers=layers) for attention, layers in found.items())


def _experts(parts: Sequence[Part]) -> Experts | None:
    found = {at: part.experts for at, part in enumerate(parts) if part.experts}
    return replace(next(iter(found.values())), places=tuple(found)) if found else None


def _fields(row: BaseRow) -> dict[str, Any]:
    """A row's shape as its config.json says it."""
    shape = row.shape
    fields: dict[str, Any] = {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "intermediate_size": shape.intermediate_size,
        "tie_word_embeddings": shape.tied_embeddings,
        "max_position_embeddings": row.context,
        "attention_bias": shape.qkv_bias,
        "use_qk_norm": shape.qk_norm,
        "sliding_window": shape.sliding_window,
    }
    if shape.experts:
        fields |= {
            "num_experts": shape.experts.total,
            "num_experts_per_tok": shape.experts.active,
            "n_shared_experts": shape.experts.shared,
            "moe_intermediate_size": shape.experts.intermediate_size,
            "shared_expert_intermediate_size": shape.experts.shared * shape.experts.intermediate_size,
            "first_k_dense_replace": shape.experts.first_dense_layers,
            "moe_layer_start_index": shape.experts.first_dense_layers,
        }
    if shape.mla:
        fields |= shape.mla.model_dump(exclude_none=False)
    if shape.linear_attention:
        fields |= {
            "full_attention_interval": shape.linear_attention.full_every,
            "linear_num_key_heads": shape.linear_attention.key_heads,
            "linear_num_value_heads": shape.linear_attention.value_heads,
            "linear_key_head_dim": shape.linear_attention.key_head_dim,
            "linear_value_head_dim": shape.linear_attention.value_head_dim,
            "linear_conv_kernel_dim": shape.linear_attention.convolution,
        }
    return fields
