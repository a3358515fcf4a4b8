"""`python -m workbench.worker.several ...`: torchrun and its options, but telling in words which process ended a run,
and passing its exit status on (torchrun shows a traceback and makes every failure a 1)."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from types import FrameType

import psutil
import torch.distributed.run
from rich.console import Console
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from workbench.errors import ExitStatus
from workbench.launch import local

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def main() -> int:
    """Start the processes, pass signals on to them once, and end as the one did that ended first."""
    logging.disable(logging.ERROR)  # torchrun's own account of a failure; ours is below
    for number in _STOPPING:
        signal.signal(number, _pass_on)
    options = torch.distributed.run.parse_args(sys.argv[1:])  # type: ignore[no-untyped-call]
    # the others are ours: torchrun gives processes half a minute to stop, and a checkpoint may take longer
    options.signals_to_handle = "SIGHUP,SIGQUIT"
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(int(options.nproc_per_node))))
    with tempfile.TemporaryDirectory(prefix="workbench-torchrun-") as folder:
        options.log_dir = folder  # torchrun makes one for its own files, and leaves it
        try:
            torch.distributed.run.run(options)  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            return _told(error.failures)
    return ExitStatus.DONE


def _threads(processes: int) -> int:
    """Of each process: its share of the cores (torchrun would say one)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


def _pass_on(number: int, frame: FrameType | None) -> None:
    """The processes have sessions of their own, so no terminal reaches them."""
    children = psutil.Process().children()
    if not children:
        sys.exit(128 + number)
    for child in children:
        child.send_signal(number)


def _told(failures: dict[int, ProcessFailure]) -> int:
    """The status of the process that ended first; one that was killed could not say so itself.

    Args:
        failures: by rank, of the processes that had ended badly when torchrun looked. Those that only lost the others,
            or were ended with them, are not the cause.
    """

    def is_follower(failure: ProcessFailure) -> bool:
        return failure.exitcode in (ExitStatus.LOST, -signal.SIGTERM)

    rank, first = min(failures.items(), key=lambda item: (is_follower(item[1]), item[1].timestamp, item[0]))
    if first.exitcode == ExitStatus.LOST:
        return ExitStatus.INTERNAL
    if first.exitcode > 0:
        return first.exitcode
    words = local.ended_by(f"process {rank} of the run", -first.exitcode)
    Console(stderr=True, highlight=False, soft_wrap=True).print(words, style="red", markup=False)
    return 128 - first.exitcode


if __name__ == "__main__":
    sys.exit(main())
