"""A resolved recipe -> the numbers that a prediction is made from."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

from workbench.catalog.suites import Generate, LmEval
from workbench.plan.activations import Adapted, Arithmetic, Batch, Kind
from workbench.plan.adapters import targeted, trainable_parameters
from workbench.plan.architecture import Architecture
from workbench.plan.cutting import start_cost_tokens
from workbench.plan.lengths import Cutting, Lengths, steps
from workbench.plan.memory import Setting
from workbench.plan.prediction import GIB, Job, Target
from workbench.plan.steps import length
from workbench.plan.timing import Device, constants, work_of
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import Ia3, Lora, Qlora

_TRITON = ("cuda", "xpu")
"""Devices on which TRL runs its Triton kernels."""
_LOOKED_AT = 100
"""Steps that are drawn where their number is not known."""
_SCORED_TOKENS = 8192
"""Of one scoring pass, padding included (`workbench.evaluation.likelihood`)."""
_HELDOUT_WINDOW = 2048
"""Tokens of a scored row where the items say no more: a text of the default `max_bytes` at a byte a token."""


def job_of(resolved: Resolved, model: Architecture, lengths: Lengths) -> Job:
    """What is predicted of a recipe.

    Raises:
        MethodError: targets that match nothing, or do not fit the base.
    """
    recipe = resolved.recipe
    devices = recipe.target.devices * recipe.target.nodes
    num_steps = _num_steps(resolved, lengths)
    setting = _setting(resolved, model, devices, lengths.longest)
    threads = _threads(resolved) if resolved.target.device == "cpu" else None
    cutting = Cutting(
        recipe.training.batch_size,
        devices,
        recipe.target.micro_batch_tokens,
        start_cost_tokens(work_of(model, setting), threads, resolved.target.peak_tflops.get(resolved.dtype)),
        flattened=recipe.target.layout == "flattened",
        pairs=recipe.objective.name == "dpo",
    )
    return Job(
        setting=setting,
        kind=_kind(resolved),
        lengths=lengths,
        steps=steps(lengths, cutting, num_steps or _LOOKED_AT),
        num_steps=num_steps,
        checkpoint_every=recipe.training.checkpoint_every,
    )


def _threads(resolved: Resolved) -> int:
    """Of one process on this machine's CPU: processes share the cores."""
    stated = resolved.recipe.target
    return stated.threads or max(1, (os.cpu_count() or 1) // stated.devices)


def target_of(resolved: Resolved) -> Target:
    """The hardware of a recipe. A CPU's memory and threads are this machine's."""
    row, stated = resolved.target, resolved.recipe.target
    rate = row.peak_tflops.get(resolved.dtype)
    memory = row.memory_gib * GIB if row.memory_gib else None
    if row.device == "cpu":
        efficiency = constants()["efficiency"]["method"]["lora"]  # the constant is what is reached, not a peak
        rate = constants()["cpu_gflops_per_thread"]["value"] * _threads(resolved) / 1e3 / efficiency
        memory = _machine_memory() / stated.devices
    return Target(
        name=row.name,
        backend=row.backend or row.device,
        memory_bytes=memory,
        device=Device(rate, row.gigabytes_per_second),
        num_devices=stated.devices * stated.nodes,
        power_watts=row.power_watts,
        usd_per_hour=row.usd_per_hour,
    )


def _machine_memory() -> float:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _num_steps(resolved: Resolved, lengths: Lengths) -> int | None:
    """Optimizer steps of the run; None where neither they nor the number of rows is known."""
    training = resolved.recipe.training
    if not lengths.examples and training.steps is None:
        return None
    return length(max(1, lengths.examples), training.batch_size, training.epochs, training.steps).steps


def _kind(resolved: Resolved) -> Kind | Literal["qlora"]:
    """The method by what it costs: lora with DoRA's magnitudes is a kind of its own."""
    method = resolved.recipe.method
    if isinstance(method, Lora | Qlora) and method.variant == "dora":
        return "dora"
    return method.name


def _setting(resolved: Resolved, model: Architecture, devices: int, longest: int) -> Setting:
    recipe = resolved.recipe
    method, target = recipe.method, recipe.target
    full = method.name == "full"
    kind = _kind(resolved)
    adapted = Adapted(
        kind="lora" if kind == "qlora" else kind,
        linears=targeted(model, method),
        rank=getattr(method, "rank", 0),
        dropout=getattr(method, "dropout", 0.0) > 0,
        feedforward=frozenset(method.feedforward_targets) if isinstance(method, Ia3) else frozenset(),
    )
    mixed = resolved.dtype != "fp32"
    setting = Setting(
        model=model,
        adapted=adapted,
        trained_parameters=trainable_parameters(model, method),
        arithmetic=Arithmetic("fp32" if full else resolved.dtype, resolved.dtype),
        batch=Batch(1, 1, _attention(target.attention)),
        quantised=getattr(method, "quantization", "none") != "none",
        double_quantisation=getattr(method, "double_quantization", True),
        checkpointing=target.gradient_checkpointing,
        optimizer=recipe.training.optimizer,
        autocast=mixed,
        fused_optimizer=resolved.target.capabilities().fused_adamw == "yes",
        tiles_in_place=resolved.target.device in _TRITON,
        shards=devices if target.sharding == "fsdp" else 1,
        copies=devices if target.sharding == "ddp" else 1,
    )
    return _with_scoring(setting, resolved, model, longest)


def _attention(name: str) -> Literal["sdpa", "eager", "flash"]:
    if name == "eager":
        return "eager"
    return "flash" if name == "flash_attention_2" else "sdpa"


def _with_scoring(setting: Setting, resolved: Resolved, model: Architecture, longest: int) -> Setting:
    """With what the suite's scoring holds at once. Items are taken to be as long as the longest trained row: the desk
    reads none."""
    if resolved.suite is None:
        return setting
    rows = resolved.recipe.evaluation.batch_size
    scored = row = cache = 0
    for task in resolved.suite.suite.tasks:
        if isinstance(task, LmEval):
            length = min(model.context, _HELDOUT_WINDOW)
        elif isinstance(task, Generate):
            length = min(model.context, longest + task.max_new_tokens)
            cache = max(cache, rows * length)
            continue
        else:
            length = min(model.context, getattr(task, "max_bytes", longest))
        row = max(row, length)
        scored = max(scored, min(_SCORED_TOKENS, rows * length))
    return replace(setting, evaluation_tokens=scored, evaluation_row=row, cache_tokens=cache)
