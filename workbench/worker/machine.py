"""What this machine has, as far as the operating system says: nothing heavy is imported."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "liger-kernel", "flash-attn",
    "torch_npu",
)  # fmt: skip
DEVICE_FILES = {
    "cuda": ("/dev/nvidia0", "an NVIDIA GPU"),
    "rocm": ("/dev/kfd", "an AMD GPU"),
    "npu": ("/dev/davinci0", "an Ascend NPU"),
}
"""Backend -> the file that its driver makes, and whose it is."""
CANN_SETTINGS = Path("/usr/local/Ascend/ascend-toolkit/set_env.sh")
"""The script that puts Ascend's libraries on the loader's path, where the toolkit is usually installed."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def facts() -> dict[str, Any]:
    """Processor, memory and disk."""
    memory = psutil.virtual_memory()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "instruction_sets": _instruction_sets(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "threads": os.cpu_count(),
        "allowed_threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_limit(memory.total),
        "free_memory_bytes": memory.available,
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "disk": str(Path.cwd()),
    }


def versions() -> dict[str, str | None]:
    """Python and the packages that training depends on; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found | {"CANN": cann_version()}


def cann_version() -> str | None:
    """The version of Ascend's toolkit, where its folder says so."""
    home = Path(os.environ.get("ASCEND_TOOLKIT_HOME", "/usr/local/Ascend/ascend-toolkit/latest"))
    for file in (home / "version.cfg", *sorted(home.glob("*/ascend_toolkit_install.info"))):
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            named = [line for line in lines if "version" in line.lower() and "=" in line]
            return named[-1].partition("=")[2].strip(" []") if named else "of an unknown version"
    return None


def drivers_seen() -> dict[str, str]:
    """Backend -> whose device file there is."""
    return {backend: owner for backend, (file, owner) in DEVICE_FILES.items() if Path(file).exists()}


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _processor() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _instruction_sets() -> list[str]:
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return [name for name in _INSTRUCTION_SETS if name in flags]


def _memory_limit(total: int) -> int:
    """The container's limit where it is below the machine's memory."""
    if sys.platform != "linux" or not _CGROUP_LIMIT.is_file():
        return total
    limit = _CGROUP_LIMIT.read_text(encoding="utf-8").strip()
    return min(total, int(limit)) if limit.isdigit() else total
