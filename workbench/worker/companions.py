"""How the processes of one run end together: nobody outlives the launcher, and what all of them meet is told once."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

from workbench import bench, files
from workbench.errors import ExitStatus, LostError
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


def follow(act: Callable[[], None], run: Run) -> int:
    """Do a companion's part of the work and return its exit status. Its errors are told only where the main process
    does not tell them."""
    try:
        act()
    except LostError:
        return LostError.exit_status
    except BaseException as error:
        until = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < until:
            status = _status_of_main(run)
            if status:
                return status
            time.sleep(_LOOK_SECONDS)
        return bench.ended(lambda: _raise(error))
    return ExitStatus.DONE


def _status_of_main(run: Run) -> int | None:
    """How this attempt's main process has ended; None while it works."""
    last = next(reversed(list(files.read_jsonl(run.attempts))), {"event": "start"})
    return int(last["status"]) if last["event"] == "end" else None


def _raise(error: BaseException) -> None:
    raise error
