"""Directories that `workbench export` wrote: what one was made from, and whether it is still whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench import files, fingerprint
from workbench.errors import RunError
from workbench.runs import soundness
from workbench.runs.run import Run

REPORT = "equivalence.json"
"""The file by which such a directory is known; it names all others with their hashes."""
FORMAT = 1


@dataclass(frozen=True)
class Asked:
    """What an export is to hold beside the adapter."""

    merged: bool = True
    gguf: str | None = None
    """llama.cpp's name of a type; None: no GGUF file."""


def made_from(run: Run, asked: Asked) -> dict[str, Any]:
    """All that an export depends on: the result, its scores and what was asked for."""
    return {
        "run": run.name,
        "asked": asdict(asked),
        "result": soundness.result_files(run),
        "scores": {suite: fingerprint.of_file(run.results(suite)) for suite in run.suites()},
    }


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file by its relative path, the report itself left out."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path != folder / REPORT)
    return fingerprint.of_files(paths, folder)


def report_in(folder: Path) -> dict[str, Any] | None:
    """The report of an export; None where the directory is none."""
    try:
        found = files.read_json(folder / REPORT)
    except RunError:
        return None
    return found if found.get("format") == FORMAT else None


def is_whole(folder: Path, report: dict[str, Any]) -> bool:
    """Whether every file is there as it was written."""
    return bool(report["files"].items() <= contents(folder).items())


def foreign(folder: Path, report: dict[str, Any]) -> list[str]:
    """Files that no export wrote, or not as they are now."""
    return sorted(name for name, _ in contents(folder).items() - report["files"].items())
