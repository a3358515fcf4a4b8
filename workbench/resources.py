"""Where things lie: what the package ships, and where it keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """A shipped folder (`recipes`, `datasets`): inside an installed wheel, or at the top of a checkout."""
    inside = PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def embedded_base() -> Path:
    """The small base that comes with the workbench (safetensors, tokenizer, manifest)."""
    return PACKAGE / "embedded" / "base"


def cache_directory() -> Path:
    """Where tokenised rows and file hashes are kept; `WORKBENCH_CACHE` moves it. Safe to delete at any time."""
    chosen = os.environ.get("WORKBENCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "workbench"
