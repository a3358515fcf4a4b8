"""MLflow: on a server, in a database, or in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

# read when the package is imported; without the second it takes no folder, which is all that it can write without
# sqlalchemy
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its seven take five minutes where no server answers

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient

from workbench.errors import Problem, RunError
from workbench.recipe.tracking import Mlflow
from workbench.tracking import vocabulary
from workbench.tracking.batches import Batches
from workbench.tracking.record import Closing, Opening, Point

_ID = "workbench.run"
"""The tag by which a run is found again."""
_LONGEST_PARAMETER, _LONGEST_TAG = 500, 5000
"""Characters that every server takes."""
_MOST_METRICS, _MOST_VALUES = 1000, 100
"""Metrics, and parameters or tags, that it takes at once."""


class MlflowTracker:
    """One MLflow run a workbench run, found again by its tag and gone on with after the last step that it holds:
    MLflow forgets no metric and takes no change of a parameter. Where one has changed, a tag of its name says so.

    A score's interval is in tags: in a folder a metric cannot stand beside others that its key is the beginning of.
    """

    def __init__(self, settings: Mlflow, root: Path) -> None:
        uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or (root / "mlruns").as_uri()
        if uri.split(":")[0].split("+")[0] in DATABASE_ENGINES and util.find_spec("sqlalchemy") is None:
            found = "a database needs the packages sqlalchemy and alembic"
            raise RunError(Problem("tracking.mlflow.uri", found, "pip install sqlalchemy alembic, or state a folder"))
        self._uri = uri
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment_name = settings.experiment
        self._experiment = self._run = ""
        self._batches = Batches(self._send)

    @property
    def address(self) -> str:
        """The run's page on a server, else where the runs are kept."""
        on_server = self._run and self._uri.startswith("http")
        page = f"{self._uri.rstrip('/')}/#/experiments/{self._experiment}/runs/{self._run}"
        return page if on_server else self._uri

    def start(self, opening: Opening) -> int:
        """Begin the MLflow run, or go on with it."""
        self._experiment = self._named_experiment()
        found = self._client.search_runs([self._experiment], f"tags.`{_ID}` = '{opening.id}'", max_results=1)
        run = found[0] if found else self._client.create_run(
            self._experiment, run_name=opening.id, tags={_ID: opening.id}
        )  # fmt: skip
        self._run = run.info.run_id
        self._client.update_run(self._run, status="RUNNING")
        self._describe(opening.config, {"group": opening.group, "job_type": opening.job_type,
                                        **{f"tag.{tag}": "true" for tag in opening.tags}})  # fmt: skip
        return self._last_step(run.data.metrics)

    def _last_step(self, held: Mapping[str, float]) -> int:
        """The last one that is held whole; of a study, which makes no steps, its one point's."""
        key = vocabulary.STEP if vocabulary.STEP in held else next(iter(held), None)
        steps = [metric.step for metric in self._client.get_metric_history(self._run, key)] if key else []
        return max(steps, default=0)

    def _named_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment_name)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment_name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run may have made it meanwhile
                    raise
            found = self._client.get_experiment_by_name(self._experiment_name)
        return str(found.experiment_id)

    def _describe(self, config: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Parameters, and tags for what is none or cannot be any more."""
        told = {key: str(value)[:_LONGEST_PARAMETER] for key, value in config.items() if value is not None}
        held = self._client.get_run(self._run).data.params
        params = [Param(key, value) for key, value in told.items() if key not in held]
        changed = {key: value for key, value in told.items() if held.get(key, value) != value}
        marks = [RunTag(key, str(value)[:_LONGEST_TAG]) for key, value in {**tags, **changed}.items()]
        for some in _chunks(params, _MOST_VALUES):
            self._client.log_batch(self._run, params=some)
        for some in _chunks(marks, _MOST_VALUES):
            self._client.log_batch(self._run, tags=some)

    def log(self, point: Point) -> None:
        """Its numbers, at its step."""
        self._batches.add(point)

    def _send(self, points: Sequence[Point]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(key, float(value), now, point.step) for point in points for key, value in _ordered(point)]
        for some in _chunks(metrics, _MOST_METRICS):
            self._client.log_batch(self._run, metrics=some)

    def finish(self, closing: Closing | None) -> None:
        """The summary, and the end; an interrupted run is marked as killed, until it goes on."""
        self._batches.flush()
        if closing is None:
            self._client.set_terminated(self._run, "KILLED")
            return
        held = self._client.get_run(self._run).data.metrics
        since = {key: value for key, value in closing.last.values.items() if held.get(key) != value}
        self._send([Point(closing.last.step, since)])  # scores that came after it was shown before
        rest = {key: value for key, value in closing.summary.items() if key not in held | since}
        self._describe(closing.config, rest)
        self._client.set_terminated(self._run, "FINISHED")


def _ordered(point: Point) -> list[tuple[str, float]]:
    """The step last: where it is held, the others are too."""
    return sorted(point.values.items(), key=lambda pair: pair[0] == vocabulary.STEP)


def _chunks(items: Sequence[Any], most: int) -> Iterator[list[Any]]:
    yield from (list(items[at : at + most]) for at in range(0, len(items), most))
