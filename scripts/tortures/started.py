"""A command as a real process, with all that it starts; nothing outlives the script."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

import psutil

WORKER = "workbench.worker"
PATIENCE_SECONDS = 240.0
"""For a whole run on a busy machine; longer means that it hangs."""
_ADOPT = 36
"""PR_SET_CHILD_SUBREAPER."""
_LOOK_SECONDS = 0.01


class HangError(Exception):
    """Processes did not end."""


def adopt_orphans() -> None:
    """Be the parent of every process whose own has died, to find and end it."""
    ctypes.CDLL(None).prctl(_ADOPT, 1, 0, 0, 0)


def offspring() -> list[psutil.Process]:
    """All processes under this one. Orphans that ended are taken note of: until then they would look alive."""
    found = []
    mine = os.getpid()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
            elif process.ppid() == mine and process.pid not in Started.commands:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
    return found


def end_all() -> None:
    """Kill every process under this one."""
    until = time.monotonic() + 10
    while (found := offspring()) and time.monotonic() < until:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(_LOOK_SECONDS)


class Started:
    """A started command; its output, and what it started itself, may be looked at while it runs."""

    commands: set[int] = set()
    """Process ids that `subprocess` waits for."""

    def __init__(self, line: Sequence[str], environment: Mapping[str, str]) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            line, env=environment, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        Started.commands.add(self.process.pid)
        self._said = bytearray()
        # a file would be under the limits that a full disk is played by
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout
        while part := self.process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
            self._said += part

    def said(self) -> str:
        """What it and its children wrote so far."""
        return self._said.decode(errors="replace")

    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.began

    def status(self) -> int | None:
        """Its exit status as a shell shows it; None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def ranks(self) -> list[psutil.Process]:
        """The processes that work on the run, by rank; without the command and torchrun."""
        found = []
        for process in offspring():
            with contextlib.suppress(psutil.NoSuchProcess):
                words = process.cmdline()
                if WORKER in words and f"{WORKER}.several" not in words:
                    found.append((int(process.environ().get("RANK", 0)), process.pid, process))
        return [process for _, _, process in sorted(found, key=lambda one: one[:2])]

    def wait(self) -> int:
        """Its exit status.

        Raises:
            HangError: it does not end.
        """
        while (status := self.status()) is None:
            if self.seconds() > PATIENCE_SECONDS:
                raise HangError(f"the command had not ended after {PATIENCE_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)
        return status

    def outlived(self, seconds: float) -> bool:
        """Whether something that it started is there so many seconds later."""
        until = time.monotonic() + seconds
        while (left := bool(offspring())) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        return left

    def wait_for_all(self) -> None:
        """Until nothing that it started is left, and all is heard.

        Raises:
            HangError: something does not end.
        """
        while left := offspring():
            if self.seconds() > PATIENCE_SECONDS:
                raise HangError(f"{len(left)} processes of the run had not ended after {PATIENCE_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)
        self._listener.join(timeout=10)
        Started.commands.discard(self.process.pid)
