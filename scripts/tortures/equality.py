"""What must hold of a run's files: after every end each is whole, and in the end all are the undisturbed run's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from workbench import files
from workbench.errors import RunError
from workbench.runs.run import without_measured

OWN = ("checkpoints", "log", "lock", "attempts.jsonl")
"""What tells how a run went; two equal runs differ in it."""
APPENDED = ("metrics.jsonl", "attempts.jsonl")
"""May end in a torn line."""
_HEADER = 8


def unwhole(runs: Path, damaged: Collection[Path] = ()) -> list[str]:
    """What is half-written under a root of runs. Files that are being written have hidden names, or lie in a folder
    that has one; a checkpoint counts once it is sealed, and only the newest: older ones are being removed.

    Args:
        damaged: checkpoints that somebody else broke.
    """
    found = []
    for path in sorted(runs.rglob("*")):
        inside = path.relative_to(runs)
        if path.is_file() and not _is_hidden(inside) and "checkpoints" not in inside.parts:
            flaw = _flaw(path)
            found += [f"{inside}: {flaw}"] if flaw else []
    for folder in sorted(runs.glob("*/checkpoints")):
        sealed = sorted(folder.glob("checkpoint-*/sealed.json"), key=lambda path: _step(path.parent))
        if sealed and sealed[-1].parent not in damaged:
            found += [f"{sealed[-1].parent.relative_to(runs)}: {flaw}" for flaw in _unsealed(sealed[-1].parent)]
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _flaw(path: Path) -> str | None:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            list(files.read_jsonl(path))
            if path.name not in APPENDED and not path.read_bytes().endswith(b"\n"):
                return "its last line is torn"
        elif path.suffix == ".yaml":
            if not isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
                return "is not a mapping"
        elif path.suffix == ".safetensors":
            return _safetensors_flaw(path)
    except (ValueError, yaml.YAMLError, RunError) as error:
        return str(error).splitlines()[0]
    return None


def _safetensors_flaw(path: Path) -> str | None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER), "little")
        if not 0 < length <= size - _HEADER:
            return f"its header is of {length} bytes, and the file of {size}"
        header = json.loads(stream.read(length))
    end = max((facts["data_offsets"][1] for name, facts in header.items() if name != "__metadata__"), default=0)
    return None if _HEADER + length + end == size else f"{_HEADER + length + end} bytes are announced, {size} are there"


def _unsealed(checkpoint: Path) -> Iterator[str]:
    """How a checkpoint differs from its seal."""
    for name, digest in json.loads((checkpoint / "sealed.json").read_text())["files"].items():
        file = checkpoint / name
        if not file.exists():
            yield f"{name} is missing"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            yield f"{name} is not what was sealed"


def leftovers(place: Path) -> list[str]:
    """Temporary files, and checkpoints that were not finished, below a folder."""
    found = [path.relative_to(place) for path in sorted(place.rglob("*"))]
    hidden = [str(path) for path in found if _is_hidden(path) and not _is_empty_folder(place / path)]
    checkpoints = [path for path in found if path.name.startswith("checkpoint-") and path.parent.name == "checkpoints"]
    return hidden + [f"{path} has no seal" for path in checkpoints if not (place / path / "sealed.json").exists()]


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def differences(whole: Path, other: Path, steps: int) -> list[str]:
    """How a root of finished runs differs from the undisturbed one: files bit for bit, JSON but for what is measured.

    Args:
        steps: lines that the trained run's metrics have.
    """
    names = [_compared(root) for root in (whole, other)]
    found = [f"{name} is missing" for name in sorted(names[0].keys() - names[1].keys())]
    found += [f"{name} is not in the undisturbed run" for name in sorted(names[1].keys() - names[0].keys())]
    for name in sorted(names[0].keys() & names[1].keys()):
        one, two = (_content(paths[name]) for paths in names)
        if one != two:
            found.append(f"{name} differs{_where(one, two)}")
    for path in sorted(other.glob("quickstart-*/metrics.jsonl")):
        lines = path.read_bytes().count(b"\n")
        found += [f"metrics.jsonl has {lines} lines, not {steps}"] if lines != steps else []
    return found


def _compared(root: Path) -> dict[str, Path]:
    """Files by their place under the root."""
    found = {}
    for folder, _, names in os.walk(root):
        for path in (Path(folder) / name for name in names):
            inside = path.relative_to(root)
            if inside.parts[1] not in OWN and not _is_hidden(inside):
                found[inside.as_posix()] = path
    return found


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".json":
            return without_measured(files.read_json(path))
        if path.suffix == ".jsonl":
            return [without_measured(row) for row in files.read_jsonl(path)]
    except RunError as error:
        return f"damaged: {error}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _where(one: Any, two: Any, place: str = "") -> str:
    """The first place where two values differ, with both."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in [*one, *(key for key in two if key not in one)]:
            if one.get(key) != two.get(key):
                return _where(one.get(key), two.get(key), f"{place}.{key}")
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for number, (left, right) in enumerate(zip(one, two, strict=True)):
            if left != right:
                return _where(left, right, f"{place}[{number}]")
    return f" at {place or 'the whole of it'}: {str(one)[:120]} / {str(two)[:120]}"
