"""Runs joined with the scheduler's queue: what became of each, in one word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workbench import files
from workbench.errors import ExitStatus, Problem, RunError
from workbench.launch import slurm
from workbench.launch.slurm import JobState
from workbench.runs import jobs, ledger
from workbench.runs.jobs import Job
from workbench.runs.run import Run

_STOPPED = (ExitStatus.PREEMPTED, ExitStatus.INTERRUPTED, None)
"""How an attempt ends that can be gone on with; None: without a word, as by a lost node."""


@dataclass(frozen=True)
class Queued:
    """A run, its newest job, and what the scheduler says of that."""

    run: Run
    job: Job | None
    state: JobState | None
    """None: there is no job, or the scheduler has forgotten it, or does not answer."""

    @property
    def is_live(self) -> bool:
        """Whether its job runs or will."""
        return self.state is not None and self.state.is_live

    @property
    def is_ending(self) -> bool:
        """Whether its job is being ended, so that another one may follow."""
        return self.state is not None and self.state.name == "COMPLETING"

    @property
    def number(self) -> str:
        """Of its job."""
        return self.job.job if self.job else "-"

    @property
    def word(self) -> str:
        """queued, running, preempted (it waits to go on), finished, failed, stopped or damaged."""
        known = ledger.state(self.run)
        if known in ("finished", "running", "damaged"):
            return known
        if self.is_live:
            assert self.state is not None
            if self.state.name in ("RUNNING", "CONFIGURING", "COMPLETING"):
                return "running"
            return "preempted" if self.run.attempts.exists() else "queued"
        if known == "failed" or (self.state is not None and _failed(self.run, self.state)):
            return "failed"
        return "stopped"


def _failed(run: Run, state: JobState) -> bool:
    """Whether a job that is over did badly what nobody asked for."""
    if state.name in ("COMPLETED", "CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL", "REVOKED"):
        return False
    attempts = list(files.read_jsonl(run.attempts))
    return not attempts or attempts[-1].get("status") not in _STOPPED


def look(runs: Iterable[Run]) -> tuple[list[Queued], bool]:
    """Every run with its newest job, and whether the scheduler answered (where there is one and runs have jobs)."""
    listed = list(runs)
    newest = {run.path: known[-1] for run in listed if (known := jobs.jobs_of(run))}
    found = slurm.states(job.job for job in newest.values())
    states = found or {}
    made = []
    for run in listed:
        own = newest.get(run.path)
        made.append(Queued(run, own, states.get(own.job) if own else None))
    return made, found is not None


def live_jobs(runs: Iterable[Run]) -> dict[Path, Queued]:
    """Those whose job runs or waits, by the run's directory.

    Raises:
        RunError: the scheduler does not answer, so nobody knows.
    """
    found, answered = look(runs)
    if not answered:
        unknown = ", ".join(one.job.job for one in found if one.job is not None)
        raise RunError(Problem("Slurm", f"does not answer, and may hold these jobs: {unknown}", "try again later"))
    return {one.run.path: one for one in found if one.is_live}
