"""Peak memory of this process on its device."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch


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
