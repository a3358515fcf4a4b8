"""Checkpoints are complete or not there: a seal with the hash of every file is written last, and checked before use."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from workbench import files
from workbench.errors import RunError

SEAL = "sealed.json"
"""Written last into a checkpoint."""


def seal_newest(folder: str | Path, step: int) -> None:
    """Flush every file of `checkpoint-STEP` to disk, then write its seal."""
    path = Path(folder) / f"checkpoint-{step}"
    hashes = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            files.flush(file)
            hashes[file.relative_to(path).as_posix()] = _digest(file)
    files.write_json(path / SEAL, {"step": step, "files": hashes})


def newest(folder: Path, say: Callable[[str], None]) -> tuple[Path, int] | None:
    """The newest checkpoint that is whole, with its step; those that are not are removed, saying so."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        reason = _flaw(path)
        if reason is None:
            return path, int(path.name.rpartition("-")[2])
        say(f"{path.name} is left out: {reason}")
        shutil.rmtree(path)
    return None


def _flaw(path: Path) -> str | None:
    if not (path / SEAL).exists():
        return "it was not finished"
    try:
        sealed = files.read_json(path / SEAL)["files"].items()
    except (RunError, TypeError, KeyError, AttributeError):
        return "its seal is damaged"
    for name, digest in sealed:
        file = path / name
        if not file.exists() or _digest(file) != digest:
            return f"{name} is damaged"
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
