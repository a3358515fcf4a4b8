"""Recipe section -> adapter on a base (or every weight trainable)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

from workbench.errors import MethodError, Problem
from workbench.methods.targets import TargetPlan, plan_targets, prove_adapted
from workbench.plan import targets as named
from workbench.recipe.schema import Full, Ia3, Lora, Oft, Qlora, Vera
from workbench.recipe.section import Section


def apply(model: Any, method: Section, seed: int, start: Path | None = None) -> Any:
    """Put the method onto a freshly loaded base and return what is trained.

    Args:
        start: directory of an adapter to go on from (`method.init_from`).

    Raises:
        MethodError: targets that match nothing or do not fit, or a start of another shape than the recipe says.
    """
    if isinstance(method, Full):
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model
    plan = plan_targets(model, method)
    torch.manual_seed(seed)
    if isinstance(method, Qlora):
        model = _prepare_quantized(model)
    if start is not None:
        trained = _started(model, method, start)
    else:
        config = _config(method, model, plan, seed)
        try:
            trained = peft.get_peft_model(model, config)
        except ValueError as error:
            raise MethodError(Problem("method", f"PEFT refuses it: {str(error).splitlines()[0]}")) from None
    prove_adapted(trained, plan)
    return trained


def _prepare_quantized(model: Any) -> Any:
    """Freeze a 4-bit base. PEFT's own preparation also turns every remaining weight into fp32, which a fresh load would
    not do; the adapter's own fp32 is enough."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _config(method: Section, model: nn.Module, plan: TargetPlan, seed: int) -> peft.PeftConfig:
    common: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": list(plan.modules)}
    if isinstance(method, Lora | Qlora):
        assert method.alpha is not None, "resolve writes it out"
        return peft.LoraConfig(
            r=method.rank,
            lora_alpha=method.alpha if method.alpha % 1 else int(method.alpha),
            lora_dropout=method.dropout,
            use_rslora=method.variant == "rslora",
            use_dora=method.variant == "dora",
            init_lora_weights="pissa" if method.variant == "pissa" else True,
            target_parameters=list(plan.parameters) or None,
            **common,
        )
    if isinstance(method, Ia3):
        named.feedforward_known(plan.modules, method)
        feedforward = [name for name in plan.modules if named.leaf(name) in set(method.feedforward_targets)]
        return peft.IA3Config(feedforward_modules=feedforward, **common)
    if isinstance(method, Vera):
        return peft.VeraConfig(
            r=method.rank, vera_dropout=method.dropout, projection_prng_key=seed, save_projection=True, **common
        )
    assert isinstance(method, Oft)
    modules = dict(model.named_modules())
    for name in plan.modules:
        named.block_divides(name, modules[name].in_features, method)
    return peft.OFTConfig(oft_block_size=method.block_size, r=0, **common)


def _started(model: Any, method: Section, start: Path) -> Any:
    """The base with a finished adapter to train on, under the recipe's dropout (the one part of an adapter that its
    weights do not fix)."""
    assert isinstance(method, Lora | Qlora), "only they have init_from"
    config = peft.PeftConfig.from_pretrained(str(start))
    same_shape(config, method)
    config.lora_dropout = method.dropout
    try:
        return peft.PeftModel.from_pretrained(model, str(start), is_trainable=True, config=config)
    except RuntimeError as error:  # torch's way to say that sizes differ
        reason = str(error).splitlines()[-1].strip()
        raise MethodError(Problem("method.init_from", f"its adapter does not fit this base: {reason}")) from None


def same_shape(config: Any, method: Lora | Qlora) -> None:
    """Refuse to go on from an adapter of another kind, rank, scale or variant than the recipe says.

    Raises:
        MethodError: with every difference.
    """
    if not isinstance(config, peft.LoraConfig):
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise MethodError(
            Problem("method.init_from", f"its adapter is {kind}, not lora", "name a run whose method is lora or qlora")
        )
    variant = "dora" if config.use_dora else "rslora" if config.use_rslora else "plain"
    compared = (
        ("rank", f"{config.r}", f"{method.rank}"),
        ("alpha", f"{config.lora_alpha:g}", f"{method.alpha:g}"),
        ("variant", variant, method.variant),
    )
    problems = [
        Problem(
            "method.init_from",
            f"its adapter has {field} {have}, the recipe says {want}",
            f"set method.{field}: {have}",
        )
        for field, have, want in compared
        if have != want
    ]
    if problems:
        raise MethodError(problems)


def as_fp32(model: Any) -> None:
    """Trained weights back to fp32 (TRL casts the adapters of 4-bit bases to bf16, and a fresh load then differs)."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
