"""A judgement into a folder: verdict.json, what the report shows beside it, and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import files
from workbench.compare.folder import EVIDENCE, REPORT, VERDICT
from workbench.compare.report import page
from workbench.compare.verdict import Judgement


def publish(judgement: Judgement, folder: Path) -> Path:
    """Write the files, each whole or not at all, and return the report's path.

    Raises:
        RunError: the folder cannot be written to.
    """
    verdict: dict[str, Any] = judgement.verdict
    files.write_json(folder / VERDICT, verdict)
    files.write_json(folder / EVIDENCE, judgement.evidence)
    files.write_text(folder / REPORT, page.render(verdict, judgement.evidence))
    return folder / REPORT
