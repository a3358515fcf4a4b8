"""accelerate's configuration file of a run, equal to how the workbench starts it. The workbench does not read it:
`accelerate launch` starts no second process on CPUs, and says nothing."""

from __future__ import annotations

from typing import Any

import yaml

from workbench import files
from workbench.recipe.resolved import Resolved
from workbench.runs.run import Run

_KINDS = {"cuda": "MULTI_GPU", "cpu": "MULTI_CPU"}
"""torch's device -> accelerate's name of several of them, where that is not `MULTI_` and the device."""
_PRECISIONS = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


def configuration(resolved: Resolved) -> dict[str, Any]:
    """The values of the file."""
    target, device = resolved.recipe.target, resolved.target.device
    processes = target.devices * target.nodes
    several = "FSDP" if target.sharding == "fsdp" else _KINDS.get(device, f"MULTI_{device.upper()}")
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": several if processes > 1 else "NO",
        "mixed_precision": _PRECISIONS[resolved.dtype],
        "num_machines": target.nodes,
        "num_processes": processes,
        "machine_rank": 0,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": device == "cpu",
        "debug": False,
    }
    if processes > 1 and target.sharding == "fsdp":
        values["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": True,
            "fsdp_state_dict_type": "FULL_STATE_DICT",
            "fsdp_cpu_ram_efficient_loading": device != "npu",
        }
    return values


def write(run: Run) -> None:
    """Write the file into the run's directory."""
    files.write_text(run.accelerate, yaml.safe_dump(configuration(run.resolved()), sort_keys=False))
