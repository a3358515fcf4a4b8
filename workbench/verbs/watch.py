"""runs --watch, cancel and logs: runs that are on their way, on this machine or in a cluster's queue."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections import Counter
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
_ON_THEIR_WAY = ("running", "preempted", "queued")
_ORDER = (*_ON_THEIR_WAY, "failed", "damaged", "stopped", "finished")
_LINES_ASIDE = 4
"""Of a terminal: the heading, the caption, the prompt."""
_RECENT_STEPS = 20
"""Steps from whose pace the time left is told."""


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
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                table, is_over = _table(root, console.height - _LINES_ASIDE)
                live.update(table, refresh=True)
                if is_over:
                    return
                time.sleep(_EVERY_SECONDS)
    before: list[str] = []
    while True:
        table, is_over = _table(root, None)
        found = [str(cell) for column in table.columns[:2] for cell in column.cells]
        if found != before:
            console.print(table)
            before = found
        if is_over:
            return
        time.sleep(_EVERY_SECONDS)


def _table(root: Path, most: int | None) -> tuple[Table, bool]:
    """The table, and whether everything has ended.

    Args:
        most: rows that fit; what is on its way goes first, and the rest is counted. None: all, by name.
    """
    listed = [entry.run for entry in ledger.entries(root) if entry.state != "damaged"]
    found, answered = queue.look(listed)
    rows = [(one.word, one.run.name, _cells(one)) for one in found] + _verdicts(root)
    if most is not None:
        rows.sort(key=lambda row: (_ORDER.index(row[0]), row[1]))
    shown = rows if most is None or len(rows) <= most else rows[:most]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    for heading in ("run", "state", "step", "loss", "left", "job", "where"):
        table.add_column(heading, justify="right" if heading in ("step", "loss", "left") else "left", no_wrap=True)
    for word, name, cells in shown:
        table.add_row(markup(name), terminal.state(word), *cells)
    told = [] if answered else [terminal.NO_ANSWER]
    if left_out := Counter(word for word, _, _ in rows[len(shown) :]):
        told.append("and " + ", ".join(f"{count} {word}" for word, count in left_out.items()))
    table.caption = "\n".join(told) or None
    return table, not any(word in _ON_THEIR_WAY for word, _, _ in rows)


def _cells(one: Queued) -> tuple[str, ...]:
    return (*_progress(one.run, one.word == "running"), one.number, _where(one))


def _verdicts(root: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """The jobs that are to judge studies and have not ended."""
    newest = {}
    for path in sorted(root.glob("studies/*/jobs/verdicts.jsonl")):
        for row in files.read_jsonl(path):
            newest[path.parent.parent.name] = str(row["job"])
    states = slurm.states(newest.values()) or {}
    return [
        ("running" if state.name == "RUNNING" else "queued", f"{name}: the verdict", ("-", "-", "-", job, "-"))
        for name, job in newest.items()
        if (state := states.get(job)) is not None and state.is_live
    ]


def _where(one: Queued) -> str:
    """The machine that works on it, or why it waits."""
    if one.word == "running":
        if one.state is not None and one.state.name == "RUNNING":
            return markup(f"{one.state.nodes}, {one.state.time_left} to the limit")
        holder = lock.read_holder(one.run)
        return markup(holder.host) if holder else "-"
    if one.is_live and one.state is not None:
        return markup("waits" if one.state.reason in ("", "None") else f"waits: {one.state.reason}")
    return markup(f"workbench logs {one.run.name}") if one.word == "failed" else "-"


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
        slurm.cancel([live.number])
        console.print(f"job {live.number} is cancelled; once it has ended, `workbench submit` goes on with it")
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
    text = path.read_text(encoding="utf-8", errors="replace")
    sys.stdout.write(text)
    if not text:
        console.print("(nothing)", style="dim")


def _said_in(run: Run) -> Path | None:
    """What the newest job printed, which is the run's own log and all that went wrong around it; else that log."""
    newest = [Path(job.output) for job in jobs.jobs_of(run)[-1:] if job.output]
    return next((path for path in (*newest, run.log) if path.exists()), None)


def _follow(run: Run) -> None:
    """Print what is added, until the run neither works nor waits; of a run that waits, what its job will say."""
    stream: TextIO | None = None
    followed: Path | None = None
    while True:
        one = queue.look([run])[0][0]
        is_over = one.word not in _ON_THEIR_WAY
        deadline = time.monotonic() + _EVERY_SECONDS
        while True:
            output = Path(one.job.output) if one.job is not None and one.job.output else None
            path = output if output is not None and one.is_live else _said_in(run)
            if path is not None and path != followed and path.exists():
                stream, followed = path.open(encoding="utf-8", errors="replace"), path
            sys.stdout.write(stream.read() if stream else "")
            sys.stdout.flush()
            if is_over or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        if is_over:
            return
