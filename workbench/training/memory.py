"""Memory of this process on its device: the peak, and running out of it in words."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

from workbench.errors import Problem, TrainingError
from workbench.recipe.schema import Recipe

_GIB = 2**30
_RAN_OUT = re.compile(r"out of memory|DefaultCPUAllocator: (not enough|can't allocate) memory", re.IGNORECASE)
_ASKED = re.compile(r"tried to allocate ([\d.]+) (\w+)", re.IGNORECASE)


def accelerator(device: str) -> Any:
    """torch's module of a device kind (`torch.cuda`, `torch.npu`, ...), or None for the CPU."""
    return None if device == "cpu" else getattr(torch, device, None)


def peak_memory_bytes(device: str) -> int:
    """Most bytes held so far: of the device's allocator, or of the process on a CPU."""
    module = accelerator(device)
    if module is not None and hasattr(module, "max_memory_allocated"):
        return int(module.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def forget_peak(device: str) -> None:
    """Give back what the device's allocator keeps, and count its peak from now on. (A process's own peak stays.)"""
    module = accelerator(device)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        if module is not None and hasattr(module, name):
            getattr(module, name)()


@contextlib.contextmanager
def told(where: Callable[[], str], recipe: Recipe, device: str, stage: str | None = None) -> Iterator[None]:
    """Turn running out of memory into one problem.

    Args:
        where: asked when it happens, for the place that is named.
        stage: what was being done; None: a training step, whose part is read from where the error came from.

    Raises:
        TrainingError: what ran out in which stage, how much was asked for and how much there is, what to change.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        part = stage or _part_of_step(error)
        asked = _ASKED.search(str(error))
        wanted = f"{asked[1]} {asked[2]} were asked for, " if asked else ""
        found = f"memory ran out in the {part}: {wanted}{_there(device)}"
        raise TrainingError(Problem(where(), found, relief(recipe, part))) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Accelerators have a type of their own for it (some only the words), a CPU's allocator has words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _RAN_OUT.search(str(error)) is not None


def _part_of_step(error: BaseException) -> str:
    """Forward pass, backward pass or optimizer step, by the first frame that tells (recomputed activations belong to
    the backward pass)."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "backward":
            return "backward pass"
        if frame.f_code.co_name == "step" and "optim" in frame.f_code.co_filename.split("/"):
            return "optimizer step"
    return "forward pass"


def _there(device: str) -> str:
    module = accelerator(device)
    if module is not None and hasattr(module, "mem_get_info"):
        free, total = module.mem_get_info()
        return f"{free / _GIB:.2f} of {total / _GIB:.1f} GiB of the device are free"
    memory = psutil.virtual_memory()
    return f"{memory.available / _GIB:.2f} of {memory.total / _GIB:.1f} GiB of this machine are free"


def relief(recipe: Recipe, stage: str) -> str:
    """What a recipe can change so that a stage takes less memory, cheapest first."""
    target, method = recipe.target, recipe.method
    if stage == "evaluation":
        return f"lower evaluation.batch_size (it is {recipe.evaluation.batch_size}), or method qlora"
    ways = [f"lower target.micro_batch_tokens (it is {target.micro_batch_tokens}; a longer row stands alone)"]
    if not target.gradient_checkpointing:
        ways.append("target.gradient_checkpointing: true")
    ways.append("shorten rows (data.max_length)")
    if stage == "optimizer step" and recipe.training.optimizer == "adamw":
        ways.insert(0, "training.optimizer: adamw_8bit")
    if method.name == "full":
        ways.append("method lora or qlora")
    elif method.name != "qlora":
        ways.append("method qlora")
    if target.sharding != "fsdp":
        ways.append("target.sharding: fsdp over several devices")
    return ", or ".join(ways)
