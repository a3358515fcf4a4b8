"""The files in the folder of a verdict."""

from __future__ import annotations

from pathlib import Path

VERDICT, EVIDENCE, REPORT = "verdict.json", "evidence.json", "report.html"


def is_judged(folder: Path) -> bool:
    """Whether a folder holds a verdict, with what its report shows beside it."""
    return (folder / VERDICT).exists() and (folder / EVIDENCE).exists()
