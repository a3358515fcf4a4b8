"""How the processes of one run end together: nobody outlives the launcher, and what all of them meet is told once."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

from workbench import files
from workbench.errors import LostError
from workbench.runs.run import Run

_PATIENCE_SECONDS = 5.0
"""How long a process leaves it to the main one to tell an error that they share."""
_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Be killed when the launcher of this process is gone: it would wait for the others for ever, and hold the run."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # gone already
        os.kill(os.getpid(), signal.SIGKILL)


def follow(act: Callable[[], None], run: Run) -> None:
    """Do a companion's part of the work. Its errors go on only where the main process does not tell them.

    Raises:
        SystemExit: with the status of what is told elsewhere.
    """
    try:
        act()
    except LostError as lost:
        raise SystemExit(lost.exit_status) from None
    except BaseException:
        status = _status_of_main(run)
        if status:
            raise SystemExit(status) from None
        raise


def _status_of_main(run: Run) -> int | None:
    """How this attempt's main process has ended; None where it goes on working."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        noted = list(files.read_jsonl(run.attempts))
        if noted and noted[-1]["event"] == "end":
            return int(noted[-1]["status"])
        time.sleep(_LOOK_SECONDS)
    return None
