"""What a ledger's finished runs say of the planner: predicted and measured, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import Problem, RunError, UserError
from workbench.plan.fixes import Fix, fixes
from workbench.plan.jobs import job_of, target_of
from workbench.plan.prediction import GIB, Correction, Prediction, predict
from workbench.recipe import settings, variants
from workbench.recipe.architecture import architecture_of
from workbench.recipe.lengths import lengths_of
from workbench.recipe.resolved import Resolved
from workbench.recipe.settings import Settings
from workbench.runs.run import Run

_ENOUGH_RUNS = 3
"""Measured runs before the planner goes by them."""


@dataclass(frozen=True)
class Compared:
    """One run's prediction and what it took."""

    run: Run
    target: str
    method: str
    predicted_bytes: float
    measured_bytes: float
    predicted_seconds: float | None
    measured_seconds: float

    @property
    def memory_ratio(self) -> float:
        """Measured over predicted."""
        return self.measured_bytes / self.predicted_bytes

    @property
    def seconds_ratio(self) -> float | None:
        """Measured over predicted; None where no time was predicted."""
        return self.measured_seconds / self.predicted_seconds if self.predicted_seconds else None


def predicted(resolved: Resolved, correction: Correction = Correction()) -> Prediction:
    """What a recipe will take.

    Raises:
        BaseError: the base's architecture is not known on this machine.
        MethodError: targets that match nothing on it.
    """
    model = architecture_of(resolved.base)
    return predict(job_of(resolved, model, lengths_of(resolved, model.context)), target_of(resolved), correction)


def longest(resolved: Resolved) -> int:
    """Tokens of a recipe's longest row, as far as it is known."""
    return lengths_of(resolved, architecture_of(resolved.base).context).longest


def made_to_fit(resolved: Resolved, correction: Correction) -> list[Fix]:
    """The least costly changes that make a recipe fit its target."""

    def with_settings(settings: Settings) -> Prediction | None:
        changed = variants.with_settings(resolved, settings)
        try:
            return predicted(changed, correction) if changed else None
        except UserError:
            return None

    return fixes(resolved, longest(resolved), with_settings, lambda prediction: prediction.verdict == "fits")


def refuse_misfit(resolved: Resolved) -> None:
    """Refuse what cannot fit even in its usual step with little overhead.

    Raises:
        RunError: says what is needed, what is there, and what makes it fit.
    """
    try:
        found = predicted(resolved)
    except UserError:  # a base that cannot be counted at the desk: the pre-flight on the device will tell
        return
    has, needed = found.target.memory_bytes, found.device_bytes
    if has is None or needed.low <= has or found.lengths_source == "maximum":
        return  # without the rows' lengths nothing is proved: the pre-flight tries the real ones on the device
    fix = next(iter(made_to_fit(resolved, Correction())), None)
    advice = "take a smaller base or a larger target" if fix is None else settings.options(fix.settings)
    raise RunError(
        Problem(
            "target",
            f"{resolved.target.name} has {has / GIB:.1f} GiB a device, and this needs {needed.low / GIB:.1f} to "
            f"{needed.high / GIB:.1f} (`workbench plan` shows of what)",
            f"what makes it fit: {advice}",
        )
    )


def as_words(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain values: what plan.json and cost.json hold of it."""
    seconds, usd, joules = prediction.seconds, prediction.usd, prediction.joules
    return {
        "target": prediction.target.name,
        "lengths": prediction.lengths_source,
        "devices": prediction.target.num_devices,
        "verdict": prediction.verdict,
        "memory_bytes": {
            "low": prediction.device_bytes.low,
            "expected": prediction.device_bytes.expected,
            "high": prediction.device_bytes.high,
        },
        "allocated_bytes": prediction.allocated_bytes,
        "memory_parts_bytes": {**prediction.memory.stays, **prediction.memory.details},
        "stages_bytes": dict(prediction.memory.stages),
        "device_seconds": seconds.expected * prediction.target.num_devices if seconds else None,
        "seconds": seconds.expected if seconds else None,
        "joules": joules.expected if joules else None,
        "usd": usd.expected if usd else None,
        "training_flops": prediction.model_flops,
        "disk_bytes": prediction.run_bytes,
    }


def write_plan(run: Run, resolved: Resolved) -> None:
    """Write plan.json: what is predicted of a run as far as its rows are known now, without a ledger's corrections (they
    are made from such plans). A base that cannot be counted leaves none."""
    try:
        files.write_json(run.plan, as_words(predicted(resolved)))
    except UserError:
        run.plan.unlink(missing_ok=True)


def compared(root: Path) -> Iterator[Compared]:
    """Every finished run under `root` that was planned and trained."""
    for path in sorted(root.glob("*/cost.json")):
        run = Run(path.parent)
        cost = files.read_json(path)
        plan = cost.get("predicted")
        if not plan or not cost.get("peak_memory_bytes") or not run.is_finished():
            continue
        resolved = files.read_json(run.resolved_file)
        yield Compared(
            run=run,
            target=resolved["target"]["name"],
            method=resolved["recipe"]["method"]["name"],
            predicted_bytes=plan["allocated_bytes"],
            measured_bytes=cost["peak_memory_bytes"],
            predicted_seconds=plan["device_seconds"],
            measured_seconds=cost["device_seconds"],
        )


def correction(found: Sequence[Compared], target: str, method: str) -> Correction:
    """The medians over the runs of one method on one target; nothing where there are too few."""
    alike = [one for one in found if one.target == target and one.method == method]
    if len(alike) < _ENOUGH_RUNS:
        return Correction()
    ratios = [one.seconds_ratio for one in alike if one.seconds_ratio is not None]
    return Correction(
        memory=statistics.median(one.memory_ratio for one in alike),
        seconds=statistics.median(ratios) if ratios else 1.0,
        runs=len(alike),
    )
