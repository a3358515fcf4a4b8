"""How long a run takes: operations over what the device does of them, and bytes over its bandwidth.

A step is its matrix products at a share of the device's peak (the efficiency, by method: adapters add small products
that no device does well), and the optimizer's pass over every trained entry at its bandwidth. Both constants are
measured ones (constants.yaml), and a ledger's own runs go before them (`workbench.runs.planner`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from workbench.plan.activations import BYTES
from workbench.plan.architecture import Architecture
from workbench.plan.cost import Work, training_flops
from workbench.plan.memory import Setting

_HERE = Path(__file__).parent


@cache
def constants() -> Mapping[str, Any]:
    """The planner's constants, each with where it comes from."""
    loaded: Mapping[str, Any] = yaml.safe_load((_HERE / "constants.yaml").read_text(encoding="utf-8"))
    return loaded


@dataclass(frozen=True)
class Device:
    """What of a device decides about time."""

    peak_tflops: float | None
    """Of the arithmetic that is used; None: not known."""
    gigabytes_per_second: float | None


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step on one device."""

    products: float
    optimizer: float
    exchange: float
    """Gradients or weights between devices."""

    @property
    def seconds(self) -> float:
        """All of it, one after the other."""
        return self.products + self.optimizer + self.exchange


def work_of(model: Architecture, setting: Setting) -> Work:
    """The matrix products of one token (as `workbench.methods.counting.work_of` counts them on a built model)."""
    head = model.vocabulary * model.hidden
    experts = model.experts
    active = experts.layers * experts.active * experts.weights(model.hidden) if experts else 0
    products = sum(linear.copies * linear.weights for linear in model.linears) + head + active + model.router_parameters
    full = setting.adapted.kind == "full"
    trained = products if full else setting.trained_parameters
    widths = {kind: kind.heads * (kind.key_dim + kind.value_dim) for kind in model.attentions}
    total = sum(kind.layers * width for kind, width in widths.items())
    return Work(
        frozen_parameters=0.0 if full else float(products),
        trained_parameters=float(trained),
        attention_width=round(total / max(1, model.layers)),
        layers=model.layers,
    )


def step_flops(model: Architecture, setting: Setting, tokens: float, squared_lengths: float) -> tuple[float, float]:
    """Operations of one step: the model's own, and those that the device does (padding, recomputation).

    Args:
        tokens: of the step, padding included for the second figure's purposes.
    """
    work = work_of(model, setting)
    own = training_flops(work, tokens, squared_lengths)
    again = 0.0
    if setting.checkpointing:
        weights = work.frozen_parameters + work.trained_parameters - model.vocabulary * model.hidden
        again = 2.0 * weights * tokens + 2.0 * work.layers * work.attention_width * squared_lengths
    return own, own + again


def step_time(flops: float, setting: Setting, device: Device, devices: int, kind: str, backend: str) -> StepTime | None:
    """Seconds of one optimizer step; None where the device's rate is not known.

    Args:
        flops: that all devices do in it.
        kind: lora, dora, qlora, vera, ia3, oft or full.
        backend: a row of backends.yaml.
    """
    if device.peak_tflops is None:
        return None
    efficiency = constants()["efficiency"]
    share = efficiency["method"][kind] * efficiency["backend"].get(backend, 1.0)
    products = flops / devices / (device.peak_tflops * 1e12 * share)
    entry = constants()["optimizer_bytes"][setting.optimizer]
    moved = setting.trained_parameters / setting.shards * entry
    optimizer = moved / (device.gigabytes_per_second * 1e9) if device.gigabytes_per_second else 0.0
    exchanged = 0.0
    if devices > 1:
        size = 2.0 * setting.trained_parameters * 4.0  # a ring all-reduce passes every gradient about twice
        if setting.shards > 1:  # weights are gathered for forward and backward
            size += 2.0 * setting.model.parameters * BYTES[setting.arithmetic.weights]
        exchanged = size / (constants()["link_gigabytes_per_second"]["value"] * 1e9)
    return StepTime(products, optimizer, exchanged)
