"""The last files of a run, trained or only scored: what it cost, and that it is finished."""

from __future__ import annotations

import math
from typing import Any

from workbench import files
from workbench.runs.run import Run


def finish(run: Run) -> dict[str, Any]:
    """Write cost.json, then status.json (the last file of all), and return the final numbers."""
    evaluation = sum(files.read_json(run.results(suite))["evaluation_seconds"] for suite in run.suites())
    cost: dict[str, Any] = {"evaluation_seconds": evaluation, "joules": None, "energy_source": "none", "usd": None}
    if run.training.exists():
        cost = files.read_json(run.training)["cost"] | cost
    files.write_json(run.cost, cost)
    summary = _summary(run)
    files.write_json(run.status, {"status": "finished", **summary})
    return summary


def _summary(run: Run) -> dict[str, Any]:
    """The final numbers: scores by suite and task, and the last loss."""
    scores = {
        f"{suite}/{task}": {key: facts[key] for key in ("metric", "value", "low", "high")}
        for suite in run.suites()
        for task, facts in files.read_json(run.results(suite))["tasks"].items()
    }
    losses = [row["loss"] for row in files.read_jsonl(run.metrics)]
    last = losses[-1] if losses and math.isfinite(losses[-1]) else None
    return {"scores": scores, "steps": len(losses), "last_loss": last}
