"""trackio: a dashboard on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.errors import Problem, RunError
from workbench.recipe.tracking import Trackio
from workbench.tracking.batches import Batches
from workbench.tracking.record import Closing, Opening, Point


class TrackioTracker:
    """One trackio run a workbench run, written anew whenever the run is shown: its history is that of the run.

    It writes to trackio's storage itself. `trackio.init` would ask the hub who we are, start a thread, and tell of what
    it cannot write by a warning alone.
    """

    def __init__(self, settings: Trackio, root: Path) -> None:
        self._project = settings.project
        self._directory = Path(settings.directory or os.environ.get("TRACKIO_DIR") or root / "trackio")
        os.environ["TRACKIO_DIR"] = str(self._directory)  # read once, when the package is imported
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        if trackio.utils.get_storage_mode() != "sqlite":
            advice = "state one on a disk of this machine, or publish the run later, where the dashboard is shown"
            found = f"{self._directory} is on a network file system, where its database is not safe"
            raise RunError(Problem("tracking.trackio.directory", found, advice))
        self._storage: Any = SQLiteStorage
        self._table: Any = trackio.Table
        self._batches = Batches(self._send)
        self._run = ""
        self._config: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """What `trackio show` is to be told."""
        return f"TRACKIO_DIR={self._directory} trackio show --project {self._project}"

    def start(self, opening: Opening) -> int:
        """Put away an earlier record of the run."""
        self._storage.validate_project_name(self._project)
        self._run = opening.id
        self._config = {
            **opening.config,
            "tags": list(opening.tags),
            "job_type": opening.job_type,
            "_Group": opening.group,
            "_Created": datetime.now(UTC).isoformat(),
        }
        self._storage.init_db(self._project)
        if not self._storage.delete_run(self._project, self._run, run_id=self._run):
            found = f"the earlier record of {self._run} cannot be removed from {self._directory}"
            raise RunError(Problem("tracking.trackio", found, "end what else writes to it, and publish the run again"))
        return 0

    def log(self, point: Point) -> None:
        """One row of the history."""
        self._batches.add(point)

    def _send(self, points: Sequence[Point]) -> None:
        self._write([dict(point.values) for point in points], [point.step for point in points])

    def _write(self, rows: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> None:
        self._storage.bulk_log(
            self._project, self._run, list(rows), steps=list(steps), config=self._config, run_id=self._run
        )

    def finish(self, closing: Closing | None) -> None:
        """What was found on the way, and the tables, beside the last point."""
        self._batches.flush()
        if closing is None:
            return
        self._config |= closing.config
        self._config |= {key: value for key, value in closing.summary.items() if key not in closing.last.values}
        tables = {
            name: {"_type": self._table.TYPE, "_value": self._table(list(table.columns), list(table.rows)).data}
            for name, table in closing.tables.items()
        }
        self._write([tables], [closing.last.step])
