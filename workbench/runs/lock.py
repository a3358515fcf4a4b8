"""One process at a time works on a run, also where machines share its file system.

Where the system's lock (flock) reaches every machine it says all there is to say, and falls when its holder dies. Many
cluster file systems keep it to one machine, or have none: there the holder also shows a sign of life, the file's time,
and a holder on another machine that shows none for a while is dead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from workbench import files
from workbench.errors import ExitStatus, Problem, RunError
from workbench.runs.run import Run

LEASE_SECONDS = 30.0
"""A holder on another machine without a sign of life for so long is dead."""
_SIGN_SECONDS = 5.0
_FIRST_SIGN_SECONDS = 1.0
"""Two that took the same free lock on machines without a common flock find out so soon."""
_TRIES = 10
_PAUSE_SECONDS = 0.02
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems without it answer."""


@dataclass(frozen=True)
class Holder:
    """Who works on a run."""

    host: str
    pid: int
    since: str
    token: str
    """Tells this hold from every other one."""
    job: str | None = None
    """Of the scheduler, where it is one."""

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


@contextlib.contextmanager
def held(run: Run) -> Iterator[None]:
    """Hold the run's lock.

    Raises:
        RunError: another process holds it; says which.
    """
    try:
        stream = run.lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise RunError(files.unwritable(run.lock, error)) from error
    with stream:
        taken = _taken(stream)
        other = read_holder(run)
        if taken is False or (other is not None and _lives_elsewhere(run.lock, other, bool(taken))):
            found = f"is being worked on by {other or 'another process'}"
            raise RunError(Problem(str(run.path), found, "wait for it, or end it first"))
        mine = Holder(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), uuid.uuid4().hex, own_job())
        try:
            _write(stream, json.dumps(asdict(mine)))
        except OSError as error:
            raise RunError(files.unwritable(run.lock, error)) from error
        ended = threading.Event()
        threading.Thread(target=_show_life, args=(run, mine, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            with contextlib.suppress(OSError):  # a full disk or a lost mount: then the lock looks like a crash
                _write(stream, "")


def own_job() -> str | None:
    """The scheduler's name of the job that we are in."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _write(stream: TextIO, text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
    stream.flush()


def _taken(stream: TextIO) -> bool | None:
    """Take the system's lock; None where this file system has none. Somebody who only looks (`is_held`) has it for an
    instant, so one refusal says nothing."""
    for attempt in range(_TRIES):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS if attempt < _TRIES - 1 else 0)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            return None
        else:
            return True
    return False


def _lives_elsewhere(path: Path, other: Holder, has_flock: bool) -> bool:
    """Whether a holder that did not let go lives where our flock does not reach; waits until that is known."""
    if other.host == socket.gethostname():
        return not has_flock and files.is_alive(other.pid)
    if other.job is not None and other.job == own_job():
        return False  # the same job, requeued: what ran before it is gone
    first = path.stat().st_mtime_ns
    while _age_seconds(path) < LEASE_SECONDS:
        time.sleep(_FIRST_SIGN_SECONDS)
        if path.stat().st_mtime_ns != first:
            return True
    return False


def _age_seconds(path: Path) -> float:
    """Since the last sign of life, by the clock of the file system: machines' own clocks differ."""
    probe = path.with_name(f".{path.name}-clock-{uuid.uuid4().hex}")
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()


def _show_life(run: Run, mine: Holder, ended: threading.Event) -> None:
    """Renew the lock's time until we let go; end this process at once where somebody took the run for abandoned (this
    machine slept, or was cut off)."""
    wait = _FIRST_SIGN_SECONDS
    while not ended.wait(wait):
        wait = _SIGN_SECONDS
        try:
            other = read_holder(run)
            if not ended.is_set() and other is not None and other != mine:
                print(f"{run.name} was taken over by {other}; this process ends", file=sys.stderr, flush=True)
                os._exit(ExitStatus.USER)  # whatever is written from here on would harm the other's work
            os.utime(run.lock)
        except OSError:
            continue  # the file system does not answer now; if it stays so, the work itself will tell


def read_holder(run: Run) -> Holder | None:
    """Who holds the lock, or held it last without letting go."""
    try:
        return Holder(**json.loads(run.lock.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_held(run: Run) -> bool:
    """Whether some process works on the run now. Looking needs no right to write, and two may look at once."""
    if not run.lock.is_file():
        return False
    with run.lock.open(encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            other = read_holder(run)
            if other is not None and other.host == socket.gethostname():
                return files.is_alive(other.pid)
    other = read_holder(run)
    elsewhere = other is not None and other.host != socket.gethostname()
    return elsewhere and time.time() - run.lock.stat().st_mtime < LEASE_SECONDS
