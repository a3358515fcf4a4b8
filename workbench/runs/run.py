"""One run directory: the only module that knows its paths."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workbench import files
from workbench.errors import Problem, RunError
from workbench.recipe.resolved import Resolved
from workbench.runs import places

MEASURED = frozenset(
    {
        "seconds",
        "tokens_per_second",
        "memory_bytes",
        "peak_memory_bytes",
        "preflight_peak_memory_bytes",
        "started",
        "ended",
        "devices",
        "device_seconds",
        "wall_seconds",
        "joules",
        "energy_source",
        "energy_note",
        "usd",
        "price_source",
        "host",
        "pid",
        "hardware",
        "time",
        "attempts",
        "evaluation_seconds",
        "predicted",
    }
)
"""Fields of run files that are measured resources, or say how those were measured: two equal runs differ in them, and
in nothing else."""


@dataclass(frozen=True)
class Run:
    """The paths of a run directory, and what may be read from them."""

    path: Path

    @property
    def name(self) -> str:
        """The directory's name: recipe, identity, seed."""
        return self.path.name

    @property
    def recipe_file(self) -> Path:
        """The recipe as it was asked for, in YAML."""
        return self.path / "recipe.yaml"

    @property
    def resolved_file(self) -> Path:
        """What it became."""
        return self.path / "resolved.json"

    @property
    def identity_file(self) -> Path:
        """The values that the identity was hashed from."""
        return self.path / "identity.json"

    @property
    def manifest(self) -> Path:
        """What the run was made of."""
        return self.path / "manifest.json"

    @property
    def accelerate(self) -> Path:
        """accelerate's configuration, equal to how the run is started."""
        return self.path / "accelerate.yaml"

    @property
    def metrics(self) -> Path:
        """One line a step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Resumable states."""
        return self.path / "checkpoints"

    @property
    def preflight(self) -> Path:
        """What was tried before the first step, and what it took."""
        return self.path / "preflight.json"

    @property
    def adapter(self) -> Path:
        """The result: an adapter, or a plain model."""
        return self.path / "adapter"

    @property
    def probe(self) -> Path:
        """Logits of the trained model in memory on a few rows: what the saved files must give again."""
        return self.path / "probe.safetensors"

    @property
    def training(self) -> Path:
        """What training ended with: counts, places moved, operations a token; written before the adapter."""
        return self.path / "training.json"

    @property
    def pissa_start(self) -> Path:
        """The adapter as PiSSA initialised it (only there while such a run trains)."""
        return self.path / "pissa-start"

    @property
    def proof(self) -> Path:
        """What was proved of the adapter."""
        return self.path / "proof.json"

    @property
    def data(self) -> Path:
        """The account of the rows."""
        return self.path / "data.json"

    @property
    def attempts(self) -> Path:
        """Every start and end."""
        return self.path / "attempts.jsonl"

    @property
    def jobs(self) -> Path:
        """The scheduler's jobs that were submitted for it."""
        return self.path / "jobs.jsonl"

    @property
    def job_script(self) -> Path:
        """The script of the newest of them."""
        return self.path / "job.sh"

    @property
    def log(self) -> Path:
        """What the worker printed."""
        return self.path / "log"

    @property
    def lock(self) -> Path:
        """Held while a process works on the run."""
        return self.path / "lock"

    @property
    def origin(self) -> Path:
        """The run that this one was made to reproduce, where it was."""
        return self.path / "origin.json"

    @property
    def reproduction(self) -> Path:
        """What came of it: both runs' figures side by side."""
        return self.path / "reproduction.json"

    @property
    def plan(self) -> Path:
        """What was predicted before it ran."""
        return self.path / "plan.json"

    @property
    def cost(self) -> Path:
        """What it cost."""
        return self.path / "cost.json"

    def tracked(self, kind: str) -> Path:
        """How far a tracker has come with the run."""
        return self.path / "tracking" / f"{kind}.json"

    @property
    def status(self) -> Path:
        """Written last; its absence means "not finished"."""
        return self.path / "status.json"

    def evaluation(self, suite: str) -> Path:
        """The folder of one suite's scores."""
        return self.path / "eval" / suite

    def items(self, suite: str) -> Path:
        """One row an item."""
        return self.evaluation(suite) / "items.jsonl"

    def contamination(self, suite: str) -> Path:
        """Which of a suite's items stand in the trained rows, where preparing the rows did not look for them."""
        return self.evaluation(suite) / "contamination.json"

    def results(self, suite: str) -> Path:
        """The metrics with their intervals; written after the items, so it is the folder's completeness marker."""
        return self.evaluation(suite) / "results.json"

    def suites(self) -> list[str]:
        """The suites that the run is scored on, completely."""
        return sorted(path.parent.name for path in self.path.glob("eval/*/results.json"))

    def is_finished(self) -> bool:
        """Whether the run ended as it should."""
        return self.status.exists()

    def resolved(self) -> Resolved:
        """The resolved recipe, with the places where what it names lies now.

        Raises:
            RunError: the file is missing or damaged.
        """
        values = places.here(self.path.absolute(), files.read_json(self.resolved_file))
        try:
            return Resolved.model_validate(values, strict=False)
        except ValidationError as error:
            first = error.errors()[0]
            found = f"is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise RunError(Problem(str(self.resolved_file), found, files.DAMAGED)) from error

    def note_attempt(self, event: str, **facts: Any) -> None:
        """Append a start or an end, with its reason, to attempts.jsonl."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        files.append_line(self.attempts, {"event": event, "time": stamp, "host": socket.gethostname(), **facts})


def without_measured(value: Any) -> Any:
    """A run file's value without the measured resources: what two equal runs have in common."""
    if isinstance(value, dict):
        return {key: without_measured(inner) for key, inner in value.items() if key not in MEASURED}
    if isinstance(value, list):
        return [without_measured(inner) for inner in value]
    return value
