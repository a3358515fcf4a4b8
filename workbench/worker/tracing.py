"""A recipe's training step, traced: the exact mode of `workbench plan`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import bases, files
from workbench.bases import Loading
from workbench.errors import BaseError, Problem
from workbench.plan.jobs import job_of
from workbench.plan.lengths import MicroBatch
from workbench.plan.prediction import memory_of
from workbench.recipe.architecture import architecture_of, config_of
from workbench.recipe.lengths import lengths_of
from workbench.recipe.resolved import Resolved
from workbench.training.skeleton import Skeleton, build
from workbench.training.tracing import Step, Traced, trace


@dataclass(frozen=True)
class Exact:
    """The peak of one device's training step, without what the framework takes."""

    traced: Traced
    predicted_bytes: float
    """By the closed form."""
    batch: MicroBatch


def trace_recipe(resolved: Resolved) -> Exact:
    """Trace the largest micro-batch that a recipe is expected to make.

    Raises:
        BaseError: the base's configuration is not on this machine.
        MethodError: the method does not fit the base.
    """
    config = config_of(resolved.base)
    if config is None:
        raise BaseError(
            Problem(
                resolved.base.location,
                "its config.json is not on this machine, and a trace builds the real model",
                f"hf download {resolved.base.location} config.json",
            )
        )
    model = architecture_of(resolved.base)
    job = job_of(resolved, model, lengths_of(resolved, model.context))
    setting, batch = job.setting, job.steps.expected
    skeleton = Skeleton(
        config=_configuration(config, resolved.recipe.base.trust_remote_code),
        method=resolved.recipe.method,
        dtype=setting.arithmetic.weights,
        attention="eager" if setting.batch.attention == "eager" else "sdpa",
        checkpointing=setting.checkpointing,
    )
    step = Step(batch.rows, batch.length, autocast=resolved.dtype, on_accelerator=resolved.target.device != "cpu")
    return Exact(trace(build(skeleton), step), memory_of(job, batch).training_bytes, batch)


def _configuration(config: dict[str, Any], trusted: bool) -> Any:
    """A config.json's values as transformers' configuration."""
    with tempfile.TemporaryDirectory() as folder:
        files.write_json(Path(folder) / "config.json", config)
        return bases.load_config(Loading(Path(folder), trust_remote_code=trusted))
