"""`python -m workbench.worker.exact RESOLVED`: one training step traced at its true shapes, beside the closed form."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from workbench import bench

_GIB = 2.0**30


@dataclass(frozen=True)
class Exact:
    """Peaks of one device's training step, bytes, without what the framework takes."""

    traced: Any
    """`workbench.training.tracing.Traced`."""
    predicted_bytes: float
    rows: int
    length: int


def main() -> int:
    """Trace and print."""

    def work() -> None:
        bench.quiet_libraries()
        from workbench.recipe.resolved import Resolved

        resolved = Resolved.model_validate_json(sys.argv[1], strict=False)
        console = Console(highlight=False, soft_wrap=True)
        console.print("[dim]tracing one step at its true shapes ...[/dim]")
        found = trace_recipe(resolved)
        peak = found.traced.peak_bytes
        console.print(
            f"traced with micro-batches of {found.rows} x {found.length} tokens: [bold]{peak / _GIB:,.2f} GiB[/bold] at "
            f"the peak of training, {found.predicted_bytes / _GIB:,.2f} GiB by the closed form "
            f"({found.predicted_bytes / peak - 1:+.1%}); largest at {found.traced.largest_operation}"
        )

    return bench.ended(work)


def trace_recipe(resolved: Any) -> Exact:
    """One step of a recipe's largest expected micro-batch, traced and predicted.

    Raises:
        BaseError, MethodError: as building the model does; a recipe whose step cannot be traced (several devices, dpo).
    """
    from workbench.plan.jobs import job_of, target_of
    from workbench.plan.prediction import predict
    from workbench.recipe.architecture import architecture_of
    from workbench.recipe.lengths import lengths_of
    from workbench.training.skeleton import Skeleton, build
    from workbench.training.tracing import Step, trace

    model = architecture_of(resolved.base)
    job = job_of(resolved, model, lengths_of(resolved, model.context))
    batch = job.steps.expected
    setting = job.setting
    skeleton = Skeleton(
        config=_config(resolved),
        method=resolved.recipe.method,
        dtype=setting.arithmetic.weights,
        attention="eager" if setting.batch.attention == "eager" else "sdpa",
        checkpointing=setting.checkpointing,
    )
    step = Step(
        rows=batch.rows,
        length=batch.length,
        autocast=resolved.dtype,
        on_accelerator=resolved.target.device != "cpu",
    )
    return Exact(trace(build(skeleton), step), predict(job, target_of(resolved)).memory.training_bytes, *_shape(batch))
