"""Checkpoints are complete or not there: written aside, flushed, sealed with the hash of every file, then renamed. The
hashes are checked before use: a disk may have lost what it had."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench import files, seals
from workbench.plan.disk import KEPT_CHECKPOINTS

_ASIDE = ".unfinished"


def aside(folder: Path) -> Path:
    """Where a checkpoint of `folder` is written until it is whole."""
    return folder / _ASIDE


def finish(folder: Path, step: int, beside: Mapping[str, Any]) -> None:
    """Make the checkpoint of a step that lies aside one of `folder`, and remove those that are not kept any more.

    Args:
        beside: more JSON files for it, by name.
    """
    fresh = aside(folder) / _name(step)
    for name, value in beside.items():
        files.write_json(fresh / name, value)
    hashes = {}
    for file in sorted(fresh.rglob("*")):
        if file.is_file():
            files.flush(file)
            hashes[file.relative_to(fresh).as_posix()] = seals.digest(file)
    files.write_json(fresh / seals.SEAL, {"step": step, "files": hashes})
    files.flush(fresh)
    place = folder / _name(step)
    if place.exists():  # walked once more, from an older one
        shutil.rmtree(place)
    fresh.rename(place)
    shutil.rmtree(aside(folder))
    files.flush(folder)
    for old in seals.newest_first(folder)[KEPT_CHECKPOINTS:]:
        shutil.rmtree(old)


def newest(folder: Path, say: Callable[[str], None]) -> tuple[Path, int] | None:
    """The newest checkpoint that is whole, with its step; those that are not are removed, saying so."""
    shutil.rmtree(aside(folder), ignore_errors=True)
    for path in seals.newest_first(folder):
        reason = seals.flaw(path)
        if reason is None:
            return path, seals.step(path)
        say(f"{path.name} is left out: {reason}")
        shutil.rmtree(path)
    return None


def _name(step: int) -> str:
    return f"checkpoint-{step}"  # as the library calls it
