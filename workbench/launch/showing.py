"""The command line of the process that shows runs in a tracker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.recipe.tracking import Tracking
from workbench.runs.run import Run

MODULE = "workbench.tracking"


@dataclass(frozen=True)
class Shown:
    """A run that is to be shown, and what it does not know of itself."""

    run: Run
    study: str | None = None
    arm: str | None = None


def arguments(
    kind: str, tracking: Tracking, shown: Sequence[Shown], root: Path, live: bool = False, study: Path | None = None
) -> list[str]:
    """What the process is started with.

    Args:
        kind: the tracker's field in the recipe.
        root: where runs are kept.
        live: whether the runs are being worked on by who starts it.
        study: the folder of a judged study, which is shown after its runs.
    """
    job: dict[str, Any] = {
        "settings": getattr(tracking, kind).model_dump(mode="json"),
        "runs": [{"path": str(one.run.path.absolute()), "study": one.study, "arm": one.arm} for one in shown],
        "root": str(root.absolute()),
        "live": live,
        "study": str(study.absolute()) if study else None,
    }
    return [kind, json.dumps(job)]
