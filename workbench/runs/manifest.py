"""What a run was made of: revisions, hashes, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from workbench import __version__, fingerprint, resources

_PACKAGES = (
    "torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "bitsandbytes", "safetensors",
    "numpy", "jinja2", "lm_eval", "flash_attn", "liger_kernel",
)  # fmt: skip


_SOURCES = ("bases.py", "data", "methods", "training", "evaluation", "worker", "plan")
"""The parts of this package that train and score."""


@cache
def sources() -> str:
    """sha256 over the code that trains and scores: a version number says nothing of a working copy."""
    parts = [resources.PACKAGE / name for name in _SOURCES]
    paths = [path for part in parts for path in (sorted(part.rglob("*.py")) if part.is_dir() else [part])]
    return fingerprint.of_value([path.read_text(encoding="utf-8") for path in paths])


def versions() -> dict[str, str]:
    """Versions of this package and of those that a result depends on."""
    found = {"workbench": __version__, "sources": sources(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the workbench's own checkout, with `+changes` where files differ from it; None outside of one."""
    where = resources.PACKAGE.parent
    if not (where / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=where,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def hardware(device_name: str, threads: int) -> dict[str, Any]:
    """The machine as seen by the run."""
    return {
        "device": device_name,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "threads": threads,
    }
