"""Weights & Biases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import wandb

from workbench.recipe.trackers import mode
from workbench.recipe.tracking import Wandb
from workbench.tracking import vocabulary
from workbench.tracking.record import Artifact, Closing, Opening, Point

_LONGEST_TAG = 64
"""Characters that W&B takes."""
_PREEMPTED = 75


class WandbTracker:
    """One W&B run a workbench run, under the same id however often it is shown.

    Online, a run that is there already is gone on with after the last step that the server holds. Offline nobody knows
    what the server holds: a record is whole in itself, and takes the place of an earlier one.
    """

    def __init__(self, settings: Wandb, live: bool) -> None:
        """Args:
        live: whether the run is being worked on by the process above this one, whose use of the machine is shown too.
        """
        self._settings, self._live = settings, live
        self._mode = mode(settings)
        self._run: Any = None
        self._before: list[Path] = []
        """Earlier records of this run."""

    @property
    def address(self) -> str | None:
        """The run's page, or the folder that `wandb sync` takes."""
        if self._run is None:
            return None
        return self._run.url if self._mode == "online" else str(Path(self._run.dir).parent)

    def start(self, opening: Opening) -> int:
        """Begin the W&B run, or go on with it."""
        self._before = sorted(opening.directory.glob(f"wandb/offline-run-*-{opening.id}"))
        os.environ.setdefault("WANDB_SILENT", "true")
        # what artifacts are made of must still be there when an offline run is sent
        os.environ.setdefault("WANDB_DATA_DIR", str(opening.directory / "wandb" / "data"))
        self._run = wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            group=self._settings.group or opening.group,
            tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys([*self._settings.tags, *opening.tags])],
            name=opening.id,
            id=opening.id,
            job_type=opening.job_type,
            resume="allow" if self._mode == "online" else None,
            mode=self._mode,
            dir=str(opening.directory),
            config=dict(opening.config),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_save_requirements=False,
                x_disable_meta=True, x_disable_machine_info=True,  # of the run's machine its manifest tells
                x_disable_stats=not self._live, x_stats_pid=os.getppid(),
            ),
        )  # fmt: skip
        self._define()
        return max(int(self._run.starting_step) - 1, 0)

    def _define(self) -> None:
        for axis in vocabulary.AXES:
            self._run.define_metric(axis)
        for key in vocabulary.WALK:
            if key.axis is not None:
                self._run.define_metric(key.name, step_metric=key.axis)
        for pattern, axis in vocabulary.PATTERNS.items():
            self._run.define_metric(pattern, step_metric=axis)

    def log(self, point: Point) -> None:
        """One row of the history."""
        self._run.log(point.values, step=point.step)

    def finish(self, closing: Closing | None) -> None:
        """Tables, artifacts and the summary, and the end."""
        if closing is None:
            self._run.mark_preempting()
            self._run.finish(exit_code=_PREEMPTED)
            return
        self._run.config.update(dict(closing.config), allow_val_change=True)
        self._run.summary.update(dict(closing.summary))
        for name, table in closing.tables.items():
            rows = wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
            self._run.summary[name] = rows
        for artifact in closing.artifacts:
            self._log_artifact(artifact)
        self._run.finish(exit_code=0)
        self._forget(self._before)

    def _log_artifact(self, artifact: Artifact) -> None:
        made = wandb.Artifact(artifact.name, artifact.kind, metadata=dict(artifact.metadata))
        by_reference = not artifact.paths or (artifact.kind == "model" and not self._settings.upload_adapter)
        if by_reference and artifact.reference is not None:
            made.add_reference(artifact.reference, name="reference", checksum=False)
        for name, path in ({} if by_reference else artifact.paths).items():
            made.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        if not artifact.used:
            self._run.log_artifact(made)
        elif self._mode == "online":
            self._run.use_artifact(made)
        else:
            # `use_artifact` refuses to work offline; this is the part of it that needs no server
            self._run._log_artifact(made, is_user_created=True, use_after_commit=True)

    def _forget(self, records: Iterable[Path]) -> None:
        for record in records:
            shutil.rmtree(record)
