"""The files in the folder of a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import files

VERDICT, EVIDENCE, REPORT = "verdict.json", "evidence.json", "report.html"


def is_judged(folder: Path) -> bool:
    """Whether a folder holds a verdict, with what its report shows beside it."""
    return (folder / VERDICT).exists() and (folder / EVIDENCE).exists()


def verdict_in(folder: Path) -> dict[str, Any]:
    """The verdict that a folder holds.

    Raises:
        RunError: it holds none, or that is damaged.
    """
    return files.read_json(folder / VERDICT)
