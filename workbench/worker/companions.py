"""How the processes of one run end together: nobody outlives the launcher, and what all of them meet is told once."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

from workbench.errors import LostError

_TOLD_SECONDS = 3.0
"""How long a process leaves it to the main one to tell an error that they share. That one then ends, and the launcher
ends the others."""
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Be killed when the launcher of this process is gone: it would wait for the others for ever, and hold the run."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # gone already
        os.kill(os.getpid(), signal.SIGKILL)


def follow(act: Callable[[], None]) -> None:
    """Do a companion's part of the work. Its errors are told only where the main process does not tell them."""
    try:
        act()
    except LostError:
        raise SystemExit(LostError.exit_status) from None
    except BaseException:
        time.sleep(_TOLD_SECONDS)
        raise
