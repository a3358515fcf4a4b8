"""Rules on methods: what an adapter can sit on, and how it can be shaped."""

from __future__ import annotations

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import facts
from workbench.recipe.rules.rule import Rule
from workbench.recipe.schema import Ia3, Lora, Oft
from workbench.recipe.settings import Settings

_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_MLP = frozenset({"gate_proj", "up_proj", "down_proj"})
_ENDS = frozenset({"lm_head", "embed_tokens"})
_WRAPPED = "peft 0.21.2 lora/layer.py:2366 (ParamWrapper)"


def _pissa(resolved: Resolved) -> bool:
    return isinstance(resolved.recipe.method, Lora) and resolved.recipe.method.variant == "pissa"


def _decomposed(resolved: Resolved) -> bool:
    """Whether the variant needs a layer of its own: dora or pissa."""
    adapter = facts.low_rank(resolved)
    return adapter is not None and adapter.variant in ("dora", "pissa")


def _on_experts(resolved: Resolved) -> bool:
    adapter = facts.low_rank(resolved)
    return adapter is not None and adapter.experts == "all"


def _on_parameters(resolved: Resolved) -> bool:
    """Whether lora or qlora reaches dense or shared layers of a mixture of experts (PEFT would rewrite their names, so
    they are adapted as parameters)."""
    names = facts.named_targets(resolved)
    reached = not names or bool(names & _MLP)
    return facts.low_rank(resolved) is not None and facts.linear_mlps(resolved) and reached


def _attention_only(resolved: Resolved) -> bool:
    names = facts.named_targets(resolved)
    return (
        facts.low_rank(resolved) is not None
        and bool(names)
        and names <= _ATTENTION
        and not facts.fused_experts(resolved)
    )


def _latent_names(resolved: Resolved) -> bool:
    known = facts.row(resolved)
    latent = known.shape.mla if known else None
    if latent is None:
        return False
    missing = {"k_proj", "v_proj"} | ({"q_proj"} if latent.q_lora_rank else set())
    return bool(facts.named_targets(resolved) & missing)


def _names_of_experts(resolved: Resolved) -> bool:
    only_fused = facts.fused_experts(resolved) and not facts.linear_mlps(resolved)
    return only_fused and bool(facts.named_targets(resolved) & _MLP)


def _targets_instead(*of_ia3: str) -> dict[bool, Settings]:
    """By whether the method is ia3, which rescales few layers by name; the others take all."""
    return {True: {"method.targets": of_ia3}, False: {"method.targets": "all-linear"}}


def _is_ia3(resolved: Resolved) -> bool:
    return isinstance(resolved.recipe.method, Ia3)


def _divides(resolved: Resolved, size: int) -> bool:
    return all(width % size == 0 for width in facts.input_widths(resolved))


def _block_does_not_divide(resolved: Resolved) -> bool:
    method = resolved.recipe.method
    return isinstance(method, Oft) and method.targets == "all-linear" and not _divides(resolved, method.block_size)


def _smaller_block(resolved: Resolved) -> Settings:
    method = resolved.recipe.method
    assert isinstance(method, Oft)
    return {"method.block_size": max(size for size in range(2, method.block_size) if _divides(resolved, size))}


def _rank_above_width(resolved: Resolved) -> bool:
    adapter, width = facts.low_rank(resolved), facts.narrowest_width(resolved)
    return adapter is not None and width is not None and adapter.rank > width


RULES: tuple[Rule, ...] = (
    Rule(
        "experts-dropout",
        ("method", "dropout"),
        "illegal",
        lambda r: _on_experts(r) and facts.dropout(r) > 0,
        "adapters on fused experts take no dropout (PEFT's target parameters)",
        "set method.dropout to 0, or method.experts to none",
        _WRAPPED,
        cure={"method.dropout": 0},
    ),
    Rule(
        "experts-variant",
        ("method", "variant"),
        "illegal",
        lambda r: _on_experts(r) and _decomposed(r),
        "adapters on fused experts cannot be dora or pissa (PEFT's target parameters)",
        "use variant plain or rslora, or method.experts none",
        _WRAPPED,
        cure={"method.variant": "plain"},
    ),
    Rule(
        "experts-dense",
        ("method", "experts"),
        "illegal",
        lambda r: _on_experts(r) and facts.dense(r),
        "the base has no fused experts",
        "drop the field: it is for mixture-of-experts bases",
        "workbench/methods/targets.py; the catalog's row of the base",
        cure={"method.experts": "none"},
    ),
    Rule(
        "shared-experts-dropout",
        ("method", "dropout"),
        "illegal",
        lambda r: _on_parameters(r) and not _on_experts(r) and facts.dropout(r) > 0,
        "on this mixture-of-experts base the dense and shared layers are adapted as parameters, without dropout",
        "set method.dropout to 0, or name attention layers only in method.targets",
        f"{_WRAPPED}; seen on a small DeepSeek-V3",
        cure={"method.dropout": 0},
    ),
    Rule(
        "shared-experts-variant",
        ("method", "variant"),
        "illegal",
        lambda r: _on_parameters(r) and not _on_experts(r) and _decomposed(r),
        "on this mixture-of-experts base the dense and shared layers are adapted as parameters, without dora or pissa",
        "use variant plain or rslora, or name attention layers only in method.targets",
        f"{_WRAPPED}; seen on a small DeepSeek-V3",
        cure={"method.variant": "plain"},
    ),
    Rule(
        "latent-attention-names",
        ("method", "targets"),
        "illegal",
        _latent_names,
        "this base's latent attention has no such projections (its own are q_a_proj, q_b_proj, kv_b_proj, ...)",
        "adapt all-linear, or name what the base has",
        "transformers 5.23 deepseek_v3/modeling_deepseek_v3.py; seen on a small DeepSeek-V3",
        cure=lambda r: _targets_instead("kv_b_proj", "down_proj")[_is_ia3(r)],
    ),
    Rule(
        "fused-experts-names",
        ("method", "targets"),
        "illegal",
        _names_of_experts,
        "all of this base's experts are fused into parameters, so no linear layer has such a name",
        "adapt all-linear (method.experts: all reaches the experts), or name attention layers",
        "transformers 5.23 qwen3_moe/modeling_qwen3_moe.py; seen on a small Qwen3-MoE",
        cure=lambda r: _targets_instead("k_proj", "v_proj")[_is_ia3(r)],
    ),
    Rule(
        "head-target",
        ("method", "targets"),
        "illegal",
        lambda r: bool(facts.named_targets(r) & _ENDS),
        "an adapter on the output head or the embeddings would never be trained",
        "adapt all-linear, or name inner layers",
        "trl 1.16 sft_trainer.py:1069: log-probabilities are computed from lm_head.weight directly",
        cure=lambda r: _targets_instead("k_proj", "v_proj")[_is_ia3(r)],
    ),
    Rule(
        "oft-block",
        ("method", "block_size"),
        "illegal",
        _block_does_not_divide,
        "it does not divide the input width of every layer, and PEFT would silently take another size",
        "choose a divisor of every target's width",
        "peft 0.21.2 oft/layer.py (adjust_oft_parameters)",
        cure=_smaller_block,
    ),
    Rule(
        "dpo-pissa",
        ("method", "variant"),
        "illegal",
        lambda r: r.recipe.objective.name == "dpo" and _pissa(r),
        "pissa changes the base that dpo takes as its reference",
        "train with variant plain, or sft with pissa first and dpo with method.init_from",
        "trl 1.16 dpo_trainer.py: adapters off is the reference; seen to move the logits by 15",
        cure={"method.variant": "plain"},
    ),
    Rule(
        "pissa-from-adapter",
        ("method", "init_from"),
        "illegal",
        lambda r: (
            _pissa(r) and facts.low_rank(r) is not None and getattr(r.recipe.method, "init_from", None) is not None
        ),
        "pissa starts from the base's own components, not from an adapter",
        "drop init_from, or use variant plain",
        "peft 0.21.2 lora/layer.py (pissa_init)",
        cure={"method.variant": "plain"},
    ),
    Rule(
        "adapter-on-random",
        ("base", "init"),
        "illegal",
        lambda r: r.recipe.base.init == "random" and r.recipe.method.name not in ("full", "none"),
        "an adapter over random weights trains nothing of use",
        "use method full to train from scratch",
        "Hu et al. 2021 (arXiv 2106.09685), section 4: the update is low-rank because the base is pretrained",
        cure={"method": "full"},
    ),
    Rule(
        "attention-only",
        ("method", "targets"),
        "unwise",
        _attention_only,
        "adapters on the attention alone stay behind those on all layers, also at an equal number of weights",
        "adapt all-linear",
        "TRL documentation, lora_without_regret (Schulman et al. 2025), finding 1",
        cure={"method.targets": "all-linear"},
    ),
    Rule(
        "rank-above-width",
        ("method", "rank"),
        "unwise",
        _rank_above_width,
        "it is more than the narrowest adapted layer is wide: the update has more weights than the layer itself",
        "take a rank below that width, or method full",
        "Hu et al. 2021 (arXiv 2106.09685), section 4.1: r is far below both widths; the catalog's row of the base",
        cure=lambda r: {"method.rank": facts.narrowest_width(r)},
    ),
    Rule(
        "dora-dropout",
        ("method", "dropout"),
        "unwise",
        lambda r: getattr(r.recipe.method, "variant", None) == "dora" and facts.dropout(r) > 0,
        "with dropout dora computes the base's product twice: slower, and more memory",
        "set method.dropout to 0",
        "PEFT documentation, DoRA, Optimization; peft 0.21.2 lora/variants.py:239",
        cure={"method.dropout": 0},
    ),
)
