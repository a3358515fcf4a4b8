"""The machine that the check runs on: what it is, how fast it multiplies, how its memory is measured."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl", "bitsandbytes", "datasets", "triton", "pydantic")
_WANTED = {"trl": "trl.trainer.utils", "bitsandbytes": "bitsandbytes"}
"""What is done without where it cannot be imported, and the module that is needed of it."""
_REPEATS, _PRODUCTS = 5, 10


def optional() -> dict[str, Any]:
    """The modules that may be missing: the module, or in words why there is none."""
    found: dict[str, Any] = {}
    for package, module in _WANTED.items():
        try:
            found[package] = importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - one that does not go with the others fails in its own ways
            found[package] = f"{package} cannot be imported: {type(error).__name__}: {str(error).splitlines()[0]}"
    trl = found["trl"]
    if not isinstance(trl, str) and not hasattr(trl, "add_fused_lm_head"):
        found["trl"] = f"trl {importlib.metadata.version('trl')} has no add_fused_lm_head"
    return found


def facts(device: str) -> dict[str, Any]:
    """Name, memory and versions."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "backend": "cpu",
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "driver": None,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "versions": versions,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "backend": "rocm" if torch.version.hip else "cuda",
            "memory_bytes": properties.total_memory,
            "free_bytes": torch.cuda.mem_get_info()[0],
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return found


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # a fact that nothing depends on
        return None
    return said.split()[0] if said.split() else None


def ceilings(device: str, small: bool) -> dict[str, float]:
    """The best rate of a square matrix product of random numbers, operations a second, by arithmetic."""
    found = {
        "bf16": _product_rate(device, torch.bfloat16, 512 if small else 8192, "highest"),
        "fp32": _product_rate(device, torch.float32, 512 if small else 4096, "highest"),
    }
    if device == "cuda":
        found["tf32"] = _product_rate(device, torch.float32, 512 if small else 4096, "high")
    torch.set_float32_matmul_precision("highest")
    return found


def _product_rate(device: str, dtype: torch.dtype, size: int, precision: str) -> float:
    torch.set_float32_matmul_precision(precision)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    into = torch.empty(size, size, device=device, dtype=dtype)

    def products() -> None:
        for _ in range(_PRODUCTS):
            torch.mm(left, right, out=into)

    times = [seconds(device, products) for _ in range(1 + _REPEATS)]
    return 2.0 * size**3 * _PRODUCTS / min(times[1:])


def seconds(device: str, work: Callable[[], object]) -> float:
    """How long some work takes, until the device has done it."""
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def is_out_of_memory(error: Exception) -> bool:
    """Whether something broke off for want of memory: torch's own error, or what libraries and the CPU say instead."""
    said = str(error)
    words = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in said for word in words)


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def clear(device: str) -> int:
    """Give back what nothing holds any more; the bytes of the device that are still allocated (workspaces)."""
    gc.collect()
    if device == "cpu":
        return 0
    torch.cuda.empty_cache()
    return int(torch.cuda.memory_allocated())


def peak(device: str, work: Callable[[], object]) -> dict[str, int]:
    """Bytes at the most while some work is done: of the device's allocator, or on a CPU of the tensors alive."""
    clear(device)
    if device == "cpu":
        return {"allocated_bytes": _cpu_peak(work)}
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
    }


def _cpu_peak(work: Callable[[], object]) -> int:
    """What lies there before, and the most that the profiler's memory events add up to on top of it (resident memory
    would also count what the allocator keeps)."""
    storages = {
        thing.untyped_storage()._cdata: thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu"
    }
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return int(sum(storages.values()) + most)
