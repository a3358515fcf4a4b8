"""What rules ask of a resolved recipe."""

from __future__ import annotations

from workbench.catalog.bases import BaseRow, bases
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import Lora, Qlora

EIGHT_BIT_OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit")


def row(resolved: Resolved) -> BaseRow | None:
    """The catalog's row of the base, where it has one."""
    return bases().get(resolved.base.row or "")


def architecture(resolved: Resolved) -> str:
    """The base's class in transformers; empty where the catalog does not know the base."""
    known = row(resolved)
    return known.architecture if known else ""


def low_rank(resolved: Resolved) -> Lora | Qlora | None:
    """The method, where it is lora or qlora."""
    method = resolved.recipe.method
    return method if isinstance(method, Lora | Qlora) else None


def named_targets(resolved: Resolved) -> frozenset[str]:
    """The layer names that `method.targets` lists; empty where it says all-linear or the method has none."""
    targets = getattr(resolved.recipe.method, "targets", "all-linear")
    return frozenset() if isinstance(targets, str) else frozenset(targets)


def dropout(resolved: Resolved) -> float:
    """The adapter's dropout."""
    return float(getattr(resolved.recipe.method, "dropout", 0.0))


def four_bit(resolved: Resolved) -> bool:
    """Whether the base is held in 4 bits."""
    method = resolved.recipe.method
    return method.name == "qlora" or (method.name == "none" and method.quantization != "none")


def processes(resolved: Resolved) -> int:
    """Devices of all nodes together."""
    return resolved.recipe.target.devices * resolved.recipe.target.nodes


def sharded(resolved: Resolved) -> bool:
    """Whether weights are spread over the devices."""
    return resolved.recipe.target.sharding == "fsdp"


def attention(resolved: Resolved) -> str:
    """The attention that the recipe names (`auto`: the library's choice, which is never flash_attention_2)."""
    return resolved.recipe.target.attention


def row_tokens(resolved: Resolved) -> int | None:
    """Longest row in tokens, by the recipe or else by the base's context; None: neither is known."""
    known = row(resolved)
    return resolved.recipe.data.max_length or (known.context if known else None)


def fused_experts(resolved: Resolved) -> bool:
    """Whether the base is known to be a mixture of experts (which transformers 5 fuses into one parameter a layer)."""
    known = row(resolved)
    return known is not None and known.shape.experts is not None


def dense(resolved: Resolved) -> bool:
    """Whether the base is known to have no experts."""
    known = row(resolved)
    return known is not None and known.shape.experts is None


def linear_mlps(resolved: Resolved) -> bool:
    """Whether a mixture-of-experts base also has dense layers or shared experts: `nn.Linear`s named gate_proj, ..."""
    known = row(resolved)
    experts = known.shape.experts if known else None
    return experts is not None and (experts.shared > 0 or experts.first_dense_layers > 0)


def input_widths(resolved: Resolved) -> list[int]:
    """Input widths of linear layers that the base has for sure; none where the catalog does not know it."""
    known = row(resolved)
    if known is None:
        return []
    shape = known.shape
    if shape.mla:
        latent = (shape.mla.q_lora_rank, shape.mla.kv_lora_rank, shape.heads * shape.mla.v_head_dim)
        widths = [shape.hidden_size, *(width for width in latent if width)]
    else:
        widths = [shape.hidden_size, shape.heads * (shape.head_dim or shape.hidden_size // shape.heads)]
    return widths if shape.experts or not shape.intermediate_size else [*widths, shape.intermediate_size]


def narrowest_width(resolved: Resolved) -> int | None:
    """The narrowest side of the attention's projections; None where the catalog does not know the base."""
    known = row(resolved)
    if known is None:
        return None
    shape = known.shape
    if shape.mla:
        return min(shape.hidden_size, shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim)
    return min(shape.hidden_size, shape.kv_heads * (shape.head_dim or shape.hidden_size // shape.heads))
