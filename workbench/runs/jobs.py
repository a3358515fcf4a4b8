"""The scheduler's jobs of a run, as its directory records them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from workbench import files
from workbench.errors import Problem, RunError
from workbench.runs.run import Run


@dataclass(frozen=True)
class Job:
    """One job that was submitted for a run."""

    job: str
    """Its number; `12_3` in an array."""
    profile: str
    """Of the cluster."""
    script: str
    output: str
    """Where what it prints goes, beside the run's own log; empty where that is not known."""


def note(run: Run, job: Job) -> None:
    """Add a job to the run's record."""
    files.append_line(run.jobs, asdict(job) | {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def jobs_of(run: Run) -> list[Job]:
    """All jobs of a run, the newest last; also those that somebody submitted by hand, once they began.

    Raises:
        RunError: the record is damaged.
    """
    try:
        known = [Job(**{name: row[name] for name in Job.__dataclass_fields__}) for row in files.read_jsonl(run.jobs)]
    except KeyError as error:
        raise RunError(Problem(str(run.jobs), f"is damaged: a job without {error}", "remove that file")) from error
    begun = [row.get("job") for row in files.read_jsonl(run.attempts) if row.get("event") == "start"]
    recorded = {job.job for job in known}
    return known + [Job(number, "", "", "") for number in dict.fromkeys(begun) if number and number not in recorded]
