"""One process at a time works on a run. The lock is the system's, so it falls when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import TextIO

from workbench import files
from workbench.errors import Problem, RunError
from workbench.runs.run import Run

_TRIES = 10
_PAUSE_SECONDS = 0.02


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
        if not _taken(stream):
            stream.seek(0)
            found = f"is being worked on by {_holder(stream.read())}"
            raise RunError(Problem(str(run.path), found, "wait for it, or end it first"))
        stream.seek(0)
        stream.truncate()
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        stream.write(json.dumps(holder))
        stream.flush()
        yield


def _taken(stream: TextIO) -> bool:
    """Take the lock. Somebody who only looks (`is_held`) has it for an instant, so one refusal says nothing."""
    for attempt in range(_TRIES):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS if attempt < _TRIES - 1 else 0)
        else:
            return True
    return False


def is_held(run: Run) -> bool:
    """Whether some process works on the run now. Looking needs no right to write, and two may look at once."""
    if not run.lock.exists():
        return False
    with run.lock.open(encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _holder(text: str) -> str:
    try:
        facts = json.loads(text)
    except ValueError:
        return "another process"
    return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
