"""runs --watch, cancel and logs: runs that are on their way, on this machine or in a cluster's queue."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from workbench import files
from workbench.compare.report import words
from workbench.errors import Problem, RunError
from workbench.launch import queue, slurm
from workbench.launch.queue import Queued
from workbench.plan import steps
from workbench.runs import create, jobs, ledger, lock
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup

_EVERY_SECONDS = 3.0
_LOOK_SECONDS = 0.5
_RECENT_STEPS = 20
"""Steps from whose pace the time left is told."""
_COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "preempted": "magenta",
            "queued": "blue"}  # fmt: skip


def watch(root: Path) -> None:
    """A live table on a terminal, plain tables where something changed elsewhere; until nothing runs or waits, or
    Ctrl-C."""
    console = terminal.console()
    if not any(root.glob("*/resolved.json")):
        console.print(f"no runs in {root}; `workbench train recipes/quickstart.yaml` makes one")
        return
    with contextlib.suppress(KeyboardInterrupt):
        _watch(console, root)


def _watch(console: Console, root: Path) -> None:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            while True:
                table, is_over = _table(root)
                live.update(table, refresh=True)
                if is_over:
                    return
                time.sleep(_EVERY_SECONDS)
    before: list[str] = []
    while True:
        table, is_over = _table(root)
        found = [str(cell) for column in table.columns[:2] for cell in column.cells]
        if found != before:
            console.print(table)
            before = found
        if is_over:
            return
        time.sleep(_EVERY_SECONDS)


def _table(root: Path) -> tuple[Table, bool]:
    """The table, and whether everything has ended."""
    found, answered = queue.look(Run(path.parent) for path in sorted(root.glob("*/resolved.json")))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("run", "state", "step", "loss", "left", "job", "where"):
        table.add_column(heading, justify="right" if heading in ("step", "loss", "left") else "left", no_wrap=True)
    for one in found:
        word = one.word
        step, loss, left = _progress(one.run, word == "running")
        state = f"[{_COLOURS[word]}]{word}[/]"
        table.add_row(markup(one.run.name), state, step, loss, left, one.job.job if one.job else "-", _where(one))
    if not answered and any(one.job for one in found):
        table.caption = "Slurm does not answer; states are those of the directories alone"
    return table, not any(one.word in ("running", "queued", "preempted") for one in found)


def _where(one: Queued) -> str:
    """The machine that works on it, or why it waits."""
    holder = lock.read_holder(one.run) if one.word == "running" else None
    if one.state is not None and one.state.name in ("PENDING", "RUNNING"):
        if one.state.name == "RUNNING":
            return markup(f"{one.state.nodes}, {one.state.time_left} to the limit")
        return markup("waits" if one.state.reason in ("", "None") else f"waits: {one.state.reason}")
    if holder is not None:
        return markup(holder.host)
    return markup(one.state.name.lower()) if one.state is not None and one.word in ("failed", "stopped") else "-"


def _progress(run: Run, is_running: bool) -> tuple[str, str, str]:
    """Step of how many, loss, and the time left at the pace of the last steps."""
    rows = ledger.last_rows(run, _RECENT_STEPS)
    if not rows:
        return "-", "-", "-"
    total = _total_steps(run)
    last = rows[-1]
    step = f"{last['step']:,}" + (f"/{total:,}" if total else "")
    left = "-"
    if is_running and total and len(rows) > 1:
        pace = (last["seconds"] - rows[0]["seconds"]) / (last["step"] - rows[0]["step"])
        left = words.seconds(pace * (total - last["step"])) if total > last["step"] else "scoring"
    return step, f"{last['loss']:.4f}", left


def _total_steps(run: Run) -> int | None:
    """Optimizer steps of the whole run; None before its rows are known."""
    if not run.data.exists():
        return None
    training = run.resolved().recipe.training
    examples = files.read_json(run.data)["examples"]
    return steps.length(examples, training.batch_size, training.epochs, training.steps).steps


def cancel(name: str, root: Path) -> None:
    """Stop a run, wherever it runs or waits.

    Raises:
        RunError: it neither runs nor waits, or works on another machine that no scheduler knows of.
    """
    console, run = terminal.console(), create.named_run(root, name)
    live = queue.live_jobs([run]).get(run.path)
    if live is not None:
        slurm.cancel([live.job])
        console.print(f"job {live.job} is cancelled; `workbench submit` goes on with {markup(run.name)}")
        return
    if not lock.is_held(run):
        raise RunError(Problem(run.name, "neither runs nor waits", "`workbench runs` shows its state"))
    holder = lock.read_holder(run)
    if holder is None or holder.host != socket.gethostname():
        raise RunError(Problem(run.name, f"is being worked on by {holder or 'another process'}", "end it there"))
    os.kill(holder.pid, signal.SIGTERM)
    console.print(f"process {holder.pid} was asked to stop: it keeps the step in hand; the same command goes on")


def logs(name: str, follow: bool, root: Path) -> None:
    """Print the run's log and what its newest job printed beside it.

    Raises:
        RunError: there is nothing yet.
    """
    run = create.named_run(root, name)
    console = terminal.console()
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(run)
        return
    path = _said_in(run)
    if path is None:
        raise RunError(Problem(run.name, "has said nothing yet", f"`workbench logs {run.name} -f` waits for it"))
    console.print(f"{path}:", style="dim", markup=False)
    sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))


def _said_in(run: Run) -> Path | None:
    """What the newest job printed, which is the run's own log and all that went wrong around it; else that log."""
    newest = [Path(job.output) for job in jobs.jobs_of(run)[-1:]]
    return next((path for path in (*newest, run.log) if path.exists()), None)


def _follow(run: Run) -> None:
    """Print what is added, until the run neither works nor waits."""
    stream: TextIO | None = None
    while True:
        is_over = queue.look([run])[0][0].word in ("finished", "failed", "stopped")
        deadline = time.monotonic() + _EVERY_SECONDS
        while True:
            path = _said_in(run)
            if stream is None and path is not None:
                stream = path.open(encoding="utf-8", errors="replace")
            sys.stdout.write(stream.read() if stream else "")
            sys.stdout.flush()
            if is_over or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        if is_over:
            return
