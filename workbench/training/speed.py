"""What the hardware is given to train fast with. Nothing here changes a result beyond float noise."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch

from workbench.errors import Problem, TrainingError
from workbench.plan.cost import Work
from workbench.plan.cutting import start_cost_tokens
from workbench.recipe.resolved import Resolved

_NO_WORKERS = ("cpu", "mps")
"""Where a process that makes batches would take the arithmetic's own cores, or cannot be forked."""


@dataclass(frozen=True)
class Choices:
    """What was chosen; the run keeps it."""

    optimizer: str
    """transformers' name of it."""
    kernels: Literal["torch", "liger"]
    compile: bool
    tf32: bool
    """Whether products of fp32 matrices (the adapters' under bf16) are rounded to TensorFloat-32."""
    start_tokens: int
    """What starting a micro-batch costs, in tokens that are computed meanwhile: padding that is worth avoiding."""
    workers: int
    """Processes that make the next steps' batches."""
    pinned_memory: bool
    """Whether batches lie where the device fetches them without a copy."""

    def arguments(self) -> dict[str, Any]:
        """The trainer's arguments that say so."""
        # Liger's fused loss would replace the forward that TRL's own fused head stands in.
        liger = {"use_liger_kernel": True, "liger_kernel_config": {"fused_linear_cross_entropy": False}}
        return {
            "optim": self.optimizer,
            "torch_compile": self.compile,
            "dataloader_num_workers": self.workers,
            "dataloader_pin_memory": self.pinned_memory,
            **(liger if self.kernels == "liger" else {}),
        }


def chosen(resolved: Resolved, work: Work) -> Choices:
    """What suits a run's target and this environment.

    Args:
        work: what one token of the run's model passes through.

    Raises:
        TrainingError: the recipe asks for kernels that are not there.
    """
    device = resolved.target.device
    return Choices(
        optimizer=_optimizer(resolved),
        kernels=_kernels(resolved),
        compile=resolved.recipe.target.compile,
        tf32=tf32(resolved),
        start_tokens=_start_tokens(resolved, work),
        workers=0 if device in _NO_WORKERS else 1,
        pinned_memory=device not in _NO_WORKERS,
    )


def tf32(resolved: Resolved) -> bool:
    """Only where arithmetic is bf16 anyway: TensorFloat-32 keeps three bits more. An fp32 run stays exact."""
    return resolved.dtype == "bf16" and resolved.target.capabilities().tf32 == "yes"


def settle_products(resolved: Resolved) -> None:
    """Set how this process multiplies fp32 matrices: the same in training and in scoring, whichever process does it."""
    torch.set_float32_matmul_precision("high" if tf32(resolved) else "highest")


def _optimizer(resolved: Resolved) -> str:
    name = resolved.recipe.training.optimizer
    if name == "adamw":
        return "adamw_torch_fused" if resolved.target.capabilities().fused_adamw == "yes" else "adamw_torch"
    return {"adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}[name]


def _kernels(resolved: Resolved) -> Literal["torch", "liger"]:
    asked = resolved.recipe.target.kernels
    backend = resolved.target.capabilities()
    missing = (
        Problem("target.kernels", f"{backend.title} has no Liger kernels", "use kernels: auto")
        if backend.liger != "yes"
        else Problem("target.kernels", "the package of Liger's kernels is not installed", "pip install liger-kernel")
        if find_spec("liger_kernel") is None
        else None
    )
    if asked == "liger" and missing:
        raise TrainingError(missing)
    return "torch" if asked == "torch" or missing else "liger"


def _start_tokens(resolved: Resolved, work: Work) -> int:
    threads = torch.get_num_threads() if resolved.target.device == "cpu" else None
    return start_cost_tokens(work, threads, resolved.target.peak_tflops.get(resolved.dtype))
