"""Weights, gradients and optimizer spread over all devices (FSDP2): by accelerate where it can, on CPUs by torch.

Checkpoints and results hold whole tensors, as those of one process do: whoever continues a run or loads its result need
not know how it was spread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import peft
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from workbench.collective import whole

_OPTIMIZER, _SCHEDULER = "optimizer.pt", "scheduler.pt"
"""The trainer's own names."""


def plugin(device: str) -> dict[str, Any]:
    """accelerate's FSDP for a kind of device, as transformers' `fsdp_config` says it. Wrapped are the layers that the
    architecture itself names as not to be split.

    The Ascend exception is ms-swift's (its NPU examples load every process's weights in full).
    """
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": device != "npu",
    }


def arguments(sharding: str, device: str) -> dict[str, Any]:
    """What the trainer is told. accelerate never shards on CPUs, and trains whole copies there without a word."""
    return {"fsdp": True, "fsdp_config": plugin(device)} if sharding == "fsdp" and device != "cpu" else {}


def announce(device: str) -> None:
    """Tell transformers before a base is loaded that accelerate will spread it: only the main process reads it then."""
    options = {"ACCELERATE_USE_FSDP": True, "FSDP_VERSION": 2, "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
               "FSDP_CPU_RAM_EFFICIENT_LOADING": plugin(device)["cpu_ram_efficient_loading"]}  # fmt: skip
    os.environ.update({name: str(value).lower() if value in (True, False) else str(value)
                       for name, value in options.items()})  # fmt: skip


def shard(model: Any) -> None:
    """Spread a model over the processes, in place: every layer that is not to be split, and then the rest as one."""
    inner = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    layers = set(inner._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_spread(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether weights lie spread over the processes."""
    return any(isinstance(parameter, DTensor) for parameter in parameters)


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state in whole tensors on the CPU, without the frozen weights that are spread. (All processes must
    ask.) Weights that are one stay one, so that they are saved once."""
    found: dict[str, torch.Tensor] = {}
    known: dict[int, torch.Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, DTensor) and not value.requires_grad:
            continue
        if id(value) not in known:
            known[id(value)] = whole(value.detach()).cpu()
        found[name] = known[id(value)]
    return found


def whole_optimizer(optimizer: Any) -> dict[str, Any]:
    """The optimizer's state in whole tensors on the CPU, laid out as that of one process (all processes must ask)."""
    state: dict[str, Any] = optimizer.state_dict()
    state["state"] = {
        index: {name: whole(value).cpu() if isinstance(value, torch.Tensor) else value for name, value in facts.items()}
        for index, facts in state["state"].items()
    }
    return state


def spread_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load such a state into an optimizer of spread weights."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def part(parameter: Any, value: Any) -> Any:
        if isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            mesh = parameter.device_mesh
            return distribute_tensor(value.to(mesh.device_type), mesh, parameter.placements)
        return value

    spread = {
        index: {name: part(parameters[index], value) for name, value in facts.items()}
        for index, facts in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": spread})


class Spread:
    """Mixed in before a TRL trainer: what it does otherwise where weights are spread."""

    shards_itself = False
    """Whether this trainer spreads its model before the first step (set where accelerate would not)."""
    model: Any
    optimizer: Any
    lr_scheduler: Any
    args: Any
    is_fsdp_enabled: bool

    @property
    def is_spread(self) -> bool:
        """Whether weights are, or are going to be, spread over the processes."""
        return self.shards_itself or bool(self.args.fsdp)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        """Spread the model, once a checkpoint's weights are in it and before the optimizer takes hold of them."""
        if self.shards_itself:
            shard(self.model)
            self.is_distributed_loading_by_transformers = True  # so that it is not wrapped as a whole copy
        elif self.is_spread and resume_from_checkpoint:
            self._load_from_checkpoint(resume_from_checkpoint)
        return super()._prepare_for_training(  # type: ignore[misc]
            max_steps, train_dataloader, resume_from_checkpoint
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Whole tensors go into the weights as they lie before anything is spread; accelerate's later call, for a model
        that it has spread, comes too late."""
        sharded_by_accelerate, self.is_fsdp_enabled = self.is_fsdp_enabled, False
        if not (sharded_by_accelerate and model is not None):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        self.is_fsdp_enabled = sharded_by_accelerate

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights of a checkpoint: whole ones, written by the main process."""
        state = whole_weights(self.model) if self.is_spread else None
        if state is None:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        elif self.args.should_save:
            self._save(output_dir, state_dict=state)  # type: ignore[attr-defined]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = whole_optimizer(self.optimizer) if self.is_spread else None
        if state is None:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
        elif self.args.should_save:
            torch.save(state, Path(output_dir) / _OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / _SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.is_spread or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        folder = Path(checkpoint)
        spread_optimizer(self.optimizer, torch.load(folder / _OPTIMIZER, map_location="cpu", weights_only=True))
        self.lr_scheduler.load_state_dict(torch.load(folder / _SCHEDULER, map_location="cpu", weights_only=True))
