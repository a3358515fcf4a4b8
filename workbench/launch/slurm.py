"""Asking Slurm: submit, look, cancel. Everything goes through its own commands, as a person would type them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import Problem, RunError

_PATIENCE_SECONDS = 60.0
_OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "DEADLINE",
         "BOOT_FAIL", "REVOKED")  # fmt: skip
"""States that a job does not leave again (but by being put back by hand)."""


@dataclass(frozen=True)
class JobState:
    """What Slurm says of a job."""

    name: str
    """PENDING, RUNNING, COMPLETED, ..."""
    reason: str = ""
    """Why it waits."""
    nodes: str = ""
    time_left: str = ""
    """Until its limit."""

    @property
    def is_live(self) -> bool:
        """Whether it runs or will."""
        return self.name not in _OVER


def is_here() -> bool:
    """Whether this machine has Slurm's commands."""
    return shutil.which("sbatch") is not None


def refuse_absence() -> None:
    """Refuse to submit from a machine without Slurm.

    Raises:
        RunError: says where to submit from.
    """
    if not is_here():
        advice = "on the cluster's login node; --dry-run prints the script anywhere"
        raise RunError(Problem("sbatch", "there is no Slurm on this machine", advice))


def submit(script: Path) -> str:
    """Hand a script in; the job's number.

    Raises:
        RunError: Slurm refuses it; with its own words.
    """
    done = _asked("sbatch", "--parsable", str(script))
    if done.returncode:
        words = " ".join(done.stderr.replace("sbatch: error: ", "").split())
        advice = "mend the profile (slurm/*.yaml), or wait where Slurm itself is down"
        raise RunError(Problem(str(script), f"Slurm refuses it: {words}", advice))
    return done.stdout.strip().partition(";")[0]


def would_take(script: Path) -> str:
    """What Slurm says of a script without taking it: where and when it would run, or why not."""
    done = _asked("sbatch", "--test-only", str(script))
    return " ".join(done.stderr.split())


def cancel(jobs: Sequence[str]) -> None:
    """End jobs.

    Raises:
        RunError: with Slurm's own words.
    """
    done = _asked("scancel", *jobs)
    if done.returncode:
        raise RunError(Problem(f"job {', '.join(jobs)}", " ".join(done.stderr.split()), "squeue --me lists yours"))


def states(jobs: Iterable[str]) -> dict[str, JobState] | None:
    """What is known of jobs, by number (`12`, or `12_3` in an array); those that Slurm has forgotten are left out. None
    where it does not answer."""
    wanted = set(jobs)
    if not wanted or not is_here():
        return {}
    done = _asked("squeue", "-h", "-r", "-t", "all", "--me", "-o", "%i|%T|%r|%N|%L")
    if done.returncode:
        return None
    rows = (line.split("|") for line in done.stdout.splitlines())
    found = {row[0]: JobState(*row[1:5]) for row in rows if row[0] in wanted}
    return found | _accounted(wanted - found.keys())


def _accounted(jobs: set[str]) -> dict[str, JobState]:
    """What accounting knows of jobs that left the queue; nothing where there is none."""
    if not jobs or shutil.which("sacct") is None:
        return {}
    done = _asked("sacct", "-X", "-n", "-P", "-o", "JobID,State,NodeList", "-j", ",".join(sorted(jobs)))
    if done.returncode:
        return {}
    rows = (line.split("|") for line in done.stdout.splitlines())
    # a state may say by whom: `CANCELLED by 1000`
    return {row[0]: JobState(row[1].split()[0], nodes=row[2]) for row in rows if row[0] in jobs and row[1]}


def _asked(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} did not answer in {_PATIENCE_SECONDS:.0f} s")
