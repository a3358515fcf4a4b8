"""The worker on this machine: in place of one process, or once for each device through torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from rich.console import Console

from workbench.bench import ASKING, STOPPING
from workbench.errors import ExitStatus, Problem, RunError
from workbench.launch import accelerate_config
from workbench.recipe.schema import Target
from workbench.runs.run import Run

WORKER = "workbench.worker"
TORCHRUN = "torch.distributed.run"
_SEVERAL = "workbench.worker.several"
"""torchrun with its failures in our words and statuses."""


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a bench process."""
    return [sys.executable, "-m", module, *arguments]


def worker_command(run: Run, *arguments: str) -> list[str]:
    """The command line that works on a run on this machine, as a person would type it; of several nodes, what each of
    them runs (with `$NODE_RANK`, and where the first one is: `$MASTER_ADDR`, `$MASTER_PORT`)."""
    shape = _torchrun_shape(run.resolved().recipe.target)
    worker = (str(run.path.absolute()), *arguments)
    return command(TORCHRUN, *shape, "-m", WORKER, *worker) if shape else command(WORKER, *worker)


def _torchrun_shape(target: Target) -> Sequence[str]:
    """torchrun's options; none where one process is enough."""
    if target.devices * target.nodes == 1:
        return ()
    processes = ("--nproc-per-node", str(target.devices))
    if target.nodes == 1:
        return ("--standalone", "--nnodes", "1", *processes, "--local-addr", "127.0.0.1")
    place = ("--node-rank", "$NODE_RANK", "--master-addr", "$MASTER_ADDR", "--master-port", "$MASTER_PORT")
    return ("--nnodes", str(target.nodes), *processes, *place)


def become_worker(run: Run) -> NoReturn:
    """Turn this process into a worker on the run: srun started it as one, and its signals are to reach that."""
    line = command(WORKER, str(run.path))
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)  # kept over the change, until the worker can answer
    os.execve(line[0], line, _environment({}))


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Bench processes never phone home about use; nothing of the run depends on it."""
    defaults = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {name: value for name, value in {**defaults, **os.environ, **changes}.items() if value is not None}


def run_bench(module: str, *arguments: str, environment: Mapping[str, str | None] | None = None) -> int:
    """Run a bench process to its end and return its exit status. Ctrl-C reaches it; we wait for it to stop. SIGTERM and
    SIGUSR1 are passed on, and the status then says so, also where they came before the process could listen.

    Args:
        environment: what is other than here (None: not set).
    """
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)  # inherited: until the process can answer in words
    process = subprocess.Popen(command(module, *arguments), env=_environment(environment or {}))
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        process.terminate()  # else it would work on without us

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        while True:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, heard)
                code = process.wait()
            except KeyboardInterrupt:  # the terminal sent it to the child as well
                continue
            if code and asked_to_stop:
                return ExitStatus.PREEMPTED
            if code < 0:
                Console(stderr=True, highlight=False, soft_wrap=True).print(ended_by("it", -code), style="red")
            return 128 - code if code < 0 else code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ended_by(who: str, number: int) -> str:
    """What is told of a process that a signal ended: it could not say so itself."""
    hints = {
        signal.SIGKILL: " (is the memory full?)",
        signal.SIGBUS: " (a lost mount, or a full disk, under a file that was being read?)",
    }
    name = signal.Signals(number)
    return f"{who} was ended by {name.name}{hints.get(name, '')}; the same command does what is left"


def prepare(run: Run) -> None:
    """Write what a run is started with into its directory: accelerate's configuration, for whoever wants it."""
    accelerate_config.write(run)


def train(run: Run, *arguments: str) -> int:
    """Bring a run to its end: whatever of it is not done yet.

    Args:
        arguments: of the worker, after the run's directory.

    Raises:
        RunError: it is for several nodes.
    """
    target = run.resolved().recipe.target
    if target.nodes > 1:
        raise RunError(
            Problem(
                "target.nodes",
                f"{target.nodes} nodes are not started from one of them",
                "`workbench submit` hands it to Slurm; `workbench train RECIPE --dry-run` prints what a node runs",
            )
        )
    prepare(run)
    shape = _torchrun_shape(target)
    worker = (str(run.path), *arguments)
    return run_bench(_SEVERAL, *shape, "-m", WORKER, *worker) if shape else run_bench(WORKER, *worker)
