"""One process on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from workbench.errors import ExitStatus
from workbench.runs.run import Run


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a bench process."""
    return [sys.executable, "-m", module, *arguments]


def run_bench(module: str, *arguments: str) -> int:
    """Run a bench process to its end and return its exit status. Ctrl-C reaches it; we wait for it to stop. A SIGTERM
    is passed on, and the status then says so, also where it came before the process could listen."""
    environment = dict(os.environ)
    # bench processes never phone home about use; nothing of the run depends on it
    environment.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    process = subprocess.Popen(command(module, *arguments), env=environment)
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        process.terminate()  # else it would work on without us

    before = signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            try:
                status = _status(process.wait())
            except KeyboardInterrupt:  # the terminal sent it to the child as well
                continue
            return ExitStatus.PREEMPTED if status and asked_to_stop else status
    finally:
        signal.signal(signal.SIGTERM, before)


def _status(code: int) -> int:
    return 128 + signal.Signals(-code).value if code < 0 else code


def train(run: Run) -> int:
    """Bring a run to its end: whatever of it is not done yet."""
    return run_bench("workbench.worker", str(run.path))
