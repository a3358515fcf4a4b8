"""The lock where the system's own does not reach: another machine, a file system without flock, a requeued job."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import RunError
from workbench.runs import lock
from workbench.runs.lock import Holder
from workbench.runs.run import Run

FAR = Holder("node7", 4711, "2026-11-28 08:00:00", "there", job="88")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of a second and a half, signs of life often."""
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.5)
    monkeypatch.setattr(lock, "_SIGN_SECONDS", 0.1)
    monkeypatch.setattr(lock, "_FIRST_SIGN_SECONDS", 0.1)


def left_by(run: Run, holder: Holder, seconds_ago: float = 0.0) -> None:
    """The lock as a holder leaves it that never let go."""
    run.lock.write_text(json.dumps(asdict(holder)))
    then = time.time() - seconds_ago
    os.utime(run.lock, (then, then))


@contextmanager
def alive(run: Run) -> Iterator[None]:
    """A holder elsewhere that goes on showing signs of life."""
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(0.1):
            os.utime(run.lock)

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def refused(run: Run) -> str:
    with pytest.raises(RunError) as caught, lock.held(run):
        pass
    return str(caught.value)


def test_a_live_holder_on_another_machine_is_named_with_its_job(run: Run, short: None) -> None:
    left_by(run, FAR)
    with alive(run):
        assert lock.is_held(run)
        assert "is being worked on by process 4711 on node7, job 88, since 2026-11-28 08:00:00" in refused(run)
    assert lock.read_holder(run) == FAR, "a refusal leaves the lock as it was"


def test_a_holder_that_crashed_on_another_machine_is_waited_out(run: Run, short: None) -> None:
    left_by(run, FAR)
    assert lock.is_held(run), "nobody can know yet"
    began = time.monotonic()
    with lock.held(run):
        assert time.monotonic() - began > 1.0
        holder = lock.read_holder(run)
        assert holder is not None and holder.pid == os.getpid()


def test_one_that_crashed_long_ago_is_not_waited_for(run: Run) -> None:
    left_by(run, FAR, seconds_ago=2 * lock.LEASE_SECONDS)
    assert not lock.is_held(run)
    began = time.monotonic()
    with lock.held(run):
        assert time.monotonic() - began < lock.LEASE_SECONDS / 2


def test_a_requeued_job_takes_over_from_itself_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(run, FAR)
    monkeypatch.setenv("SLURM_JOB_ID", "88")
    began = time.monotonic()
    with lock.held(run):
        assert time.monotonic() - began < lock.LEASE_SECONDS / 2


def test_tasks_of_one_array_are_several_jobs(run: Run, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_JOB_ID", "91"), ("SLURM_ARRAY_JOB_ID", "88"), ("SLURM_ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(name, value)
    left_by(run, FAR)
    with alive(run):
        assert "job 88" in refused(run)
    with lock.held(run):
        holder = lock.read_holder(run)
        assert holder is not None and holder.job == "88_3"


def test_a_holder_shows_signs_of_life(run: Run, short: None) -> None:
    with lock.held(run):
        os.utime(run.lock, (0, 0))
        deadline = time.monotonic() + 10
        while run.lock.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert run.lock.read_text() == ""


def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lustre without its flock option answers."""

    def answer(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", answer)


def test_a_file_system_without_flock_is_locked_all_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch)
    with lock.held(run):
        assert lock.is_held(run)
        assert f"is being worked on by process {os.getpid()} on " in refused(run)
    assert not lock.is_held(run)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    holder = lock.Holder(os.uname().nodename, gone.pid, "now", "gone")
    left_by(run, holder)
    assert not lock.is_held(run)
    with lock.held(run):
        pass


TAKEN_OVER = """
import json, sys, time
from pathlib import Path
from workbench.runs import lock
from workbench.runs.run import Run
lock._SIGN_SECONDS = lock._FIRST_SIGN_SECONDS = 0.1
run = Run(Path(sys.argv[1]))
with lock.held(run):
    print("ready", flush=True)
    time.sleep(60)
print("it went on")
"""


def test_who_was_taken_for_dead_ends_before_it_harms_the_other(run: Run) -> None:
    """A machine that slept, or was cut off, comes back."""
    line = [sys.executable, "-c", TAKEN_OVER, str(run.path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        left_by(run, FAR)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "was taken over by process 4711 on node7, job 88" in errors
    assert output == ""
    assert lock.read_holder(run) == FAR
