"""The last files of a run, trained or only scored: what it cost, and that it is finished."""

from __future__ import annotations

import math
from typing import Any

from workbench import files
from workbench.recipe.resolved import Resolved
from workbench.runs.run import Run

_HOUR_SECONDS = 3600.0


def finish(run: Run) -> None:
    """Write cost.json, then status.json (the last file of all)."""
    evaluation = sum(files.read_json(run.results(suite))["evaluation_seconds"] for suite in run.suites())
    cost: dict[str, Any] = {"joules": None, "energy_source": "none", "usd": None, "price_source": None}
    if run.training.exists():
        cost |= _trained(run)
    files.write_json(run.cost, cost | {"evaluation_seconds": evaluation})
    files.write_json(run.status, {"status": "finished", **_summary(run)})


def _trained(run: Run) -> dict[str, Any]:
    """What training took and what it left, with energy and money."""
    found = files.read_json(run.training)
    cost, parameters, resolved = found["cost"], found["parameters"], run.resolved()
    return {
        **cost,
        **_energy(cost, resolved),
        **_money(cost, resolved),
        "adapter_bytes": sum(file.stat().st_size for file in run.adapter.glob("*.safetensors")),
        "trainable_parameters": parameters["trainable"],
        "total_parameters": parameters["total"],
        "predicted": files.read_json(run.plan) if run.plan.exists() else None,
    }


def _energy(cost: dict[str, Any], resolved: Resolved) -> dict[str, Any]:
    """Joules as measured; else, by that name, the target's full power over the device's seconds: an upper estimate."""
    power = resolved.target.power_watts
    if cost.get("joules") is not None or power is None:
        return {}
    return {"joules": power * cost["device_seconds"], "energy_source": "target_estimate"}


def _money(cost: dict[str, Any], resolved: Resolved) -> dict[str, Any]:
    """Device hours at the target's price, with who says so and since when."""
    target = resolved.target
    if target.usd_per_hour is None:
        return {}
    source = ", ".join(fact for fact in (target.price_source, target.price_as_of) if fact)
    return {"usd": target.usd_per_hour * cost["device_seconds"] / _HOUR_SECONDS, "price_source": source}


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
