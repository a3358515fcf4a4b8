"""The seal of a checkpoint: the hash of every file of it, written last. What is sealed and unharmed is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

from workbench import files
from workbench.errors import RunError

SEAL = "sealed.json"
"""Written last into a checkpoint."""


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a run, whole or not."""
    return sorted(folder.glob("checkpoint-*"), key=step, reverse=True)


def step(path: Path) -> int:
    """The step that a checkpoint was taken after."""
    return int(path.name.rpartition("-")[2])


def flaw(path: Path) -> str | None:
    """Why a checkpoint cannot be gone on from; None where it is whole."""
    if not (path / SEAL).exists():
        return "it was not finished"
    try:
        sealed = files.read_json(path / SEAL)["files"].items()
    except (RunError, AttributeError):
        return "its seal is damaged"
    for name, sha256 in sealed:
        file = path / name
        if not file.exists() or digest(file) != sha256:
            return f"{name} is damaged"
    return None


def digest(file: Path) -> str:
    """sha256 (hex) of a file's bytes as they are now, whatever is remembered of it."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
