"""A training step at a base's true shape, with random weights: as the workbench takes it, measured."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from gpu_checks import machine
from gpu_checks.combinations import METHODS, Combination, config_fields, rows
from workbench.methods.apply import apply
from workbench.methods.targets import linear_layers

IGNORED = -100
_WARM_UP = 2
"""The first step makes the optimizer's state and compiles kernels; the second one is like all later ones."""
_TIMED = 5


@dataclass(frozen=True)
class Trained:
    """A model and its optimizer, on the device."""

    model: Any
    optimizer: torch.optim.Optimizer
    num_parameters: int
    """Of the base."""
    num_trained: int


def build(base: str, method: str, device: str, optional: dict[str, Any]) -> Trained:
    """A base with random weights and the method on it, in training mode: frozen weights in bf16, trained ones in fp32.

    Raises:
        RuntimeError: no room, in torch's words.
    """
    torch.manual_seed(0)
    config = CONFIG_MAPPING[config_fields(rows()[base])["model_type"]](**config_fields(rows()[base]))
    dtype = torch.float32 if method == "full" else torch.bfloat16
    with torch.device(device):  # weights are drawn there: on the host that takes minutes
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    num_parameters = model.num_parameters()
    if method == "qlora":
        _quantise(model, optional["bitsandbytes"])
    if not isinstance(optional["trl"], str):
        optional["trl"].add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))  # as TRL's trainer does
    with torch.device(device):
        model = apply(model, METHODS[method], 0)
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    return Trained(model, optimizer, num_parameters, sum(weight.numel() for weight in weights))


def _quantise(model: nn.Module, bitsandbytes: Any) -> None:
    """Every linear layer but the head in NF4 with quantised scales, layer by layer."""
    for name in linear_layers(model):
        parent, _, leaf = name.rpartition(".")
        layer = model.get_submodule(name)
        made = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=torch.bfloat16,
            compress_statistics=True, quant_type="nf4", device="meta",
        )  # fmt: skip
        made.weight = bitsandbytes.nn.Params4bit(
            layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=made
        ).to(layer.weight.device)
        made.bias = layer.bias
        setattr(model.get_submodule(parent), leaf, made)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks for it


def checkpoint(model: Any) -> None:
    """Turn gradient checkpointing on."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.gradient_checkpointing_enable({"use_reentrant": False})
    if base is not model:
        base.enable_input_require_grads()


def batch(combination: Combination, vocabulary: int, device: str) -> dict[str, torch.Tensor]:
    """Random rows, padded on the right; each [rows, length]."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (combination.num_rows, combination.length), generator=generator)
    mask = torch.arange(combination.length)[None] < torch.tensor(combination.lengths())[:, None]
    labels = ids.masked_fill(~mask, IGNORED)
    return {"input_ids": ids.to(device), "attention_mask": mask.long().to(device), "labels": labels.to(device)}


def step_of(
    trained: Trained, inputs: dict[str, torch.Tensor], fused: bool, device: str, mixed: bool = True
) -> Callable[[], torch.Tensor]:
    """One step of the loop, which gives its loss: forward (under bf16 autocast if mixed), backward, clipping, AdamW."""
    extra: dict[str, Any] = {"fused_lm_head": True} if fused else {"use_cache": False}
    weights = [weight for group in trained.optimizer.param_groups for weight in group["params"]]

    def step() -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            loss: torch.Tensor = trained.model(**inputs, **extra).loss
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 1.0)
        trained.optimizer.step()
        trained.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def measure(
    trained: Trained, combination: Combination, fused: bool, device: str, may_go_on: Callable[[], bool]
) -> dict[str, Any]:
    """Peak memory and the median time of a step.

    Args:
        may_go_on: whether there is time for another step.

    Raises:
        RuntimeError: no room, in torch's words.
        FloatingPointError: as `counted`.
    """
    vocabulary = rows()[combination.base].shape.vocab_size
    step = step_of(trained, batch(combination, vocabulary, device), fused, device)
    with _cleaned(trained.optimizer):
        losses = counted(float(step()) for _ in range(_WARM_UP))
        found: dict[str, Any] = machine.peak(device, step)
        times: list[float] = []
        while len(times) < _TIMED and (not times or may_go_on()):
            times.append(machine.seconds(device, step))
    return found | {"seconds": statistics.median(times), "all_seconds": times, "first_losses": losses}


def counted(losses: Iterable[float]) -> list[float]:
    """The losses themselves.

    Raises:
        FloatingPointError: one is no number, or nothing: no token was counted.
    """
    found = list(losses)
    if not all(0.0 < loss < math.inf for loss in found):
        raise FloatingPointError(f"the losses are {', '.join(f'{loss:g}' for loss in found)}")
    return found


@contextlib.contextmanager
def _cleaned(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Leave no gradients behind where a step breaks off."""
    try:
        yield
    finally:
        optimizer.zero_grad(set_to_none=True)
