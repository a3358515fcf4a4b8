"""Content hashes: of JSON values and of files. The same content has the same fingerprint wherever it lies."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench import files, resources
from workbench.errors import RunError

_BLOCK_BYTES = 1 << 22


def of_value(value: Any) -> str:
    """sha256 (hex) of a JSON value in canonical form: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_text(text: str) -> str:
    """sha256 (hex) of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def of_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, remembered by path, size and modification time (large weights are read once)."""
    stat = path.stat()
    key = of_value([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    note = resources.cache_directory() / "hashes" / key[:2] / key
    with contextlib.suppress(OSError):
        return note.read_text(encoding="utf-8")
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    with contextlib.suppress(RunError):  # without the note the file is only read again the next time
        files.write_text(note, digest.hexdigest())
    return digest.hexdigest()


def of_files(paths: Iterable[Path], relative_to: Path) -> dict[str, str]:
    """sha256 by path relative to a directory, in sorted order."""
    return {path.relative_to(relative_to).as_posix(): of_file(path) for path in sorted(paths)}
