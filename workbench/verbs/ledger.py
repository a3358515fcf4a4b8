"""runs and show."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from workbench import files
from workbench.errors import Problem, RunError
from workbench.launch import queue
from workbench.plan.prediction import GIB
from workbench.recipe.trackers import NAMES
from workbench.runs import create, ledger, lock, planner
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup


def runs(action: str | None, names: Sequence[str], root: Path) -> None:
    """List, remove or prune."""
    console = terminal.console()
    if action is None:
        _list(console, root)
    elif action == "rm" and names:
        chosen = list(dict.fromkeys(create.named_run(root, name) for name in names))
        queued = queue.live_jobs(chosen)
        for run in chosen:
            if run.path in queued:
                found = f"waits or runs as job {queued[run.path].number}"
                raise RunError(Problem(run.name, found, "end it first: `workbench cancel` it"))
            _remove(console, run)
    elif action == "prune" and not names:
        unfinished = [entry.run for entry in ledger.entries(root) if entry.state in ("failed", "stopped")]
        queued = queue.live_jobs(unfinished)
        for run in unfinished:
            if run.path in queued:
                console.print(f"{markup(run.name)} waits as job {queued[run.path].number}, and stays")
            else:
                _remove(console, run)
        console.print(f"{len(unfinished) - len(queued)} runs removed")
    else:
        raise RunError(Problem(f"runs {action}", "is not understood", "runs | runs rm RUN... | runs prune"))


def _list(console: Console, root: Path) -> None:
    rows = list(ledger.entries(root))
    if not rows:
        console.print(f"no runs in {root}; `workbench train recipes/quickstart.yaml` makes one")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("run", min_width=max(len(entry.run.name) for entry in rows))  # never cut: other verbs take it
    for heading in ("state", "base", "method", "seed", "step", "scores"):
        table.add_column(heading, overflow="fold")
    found, answered = queue.look(entry.run for entry in rows if entry.state != "damaged")
    words = {one.run.path: one.word for one in found}
    for entry in rows:
        scores = "  ".join(f"{name} {value:.4f}" for name, value in entry.scores.items())
        state = terminal.state(words.get(entry.run.path, entry.state))
        step = str(entry.step) if entry.step is not None else "-"
        seed = str(entry.seed) if entry.seed is not None else "-"
        table.add_row(markup(entry.run.name), state, markup(entry.base), entry.method, seed, step, markup(scores))
    console.print(table)
    if not answered:
        console.print(terminal.NO_ANSWER, style="dim")


def planner_errors(root: Path) -> None:
    """How far the planner was off, run by run and in the median of each target and method."""
    console = terminal.console()
    found = list(planner.compared(root))
    if not found:
        console.print(f"no finished run in {root} was planned")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for heading in ("GiB planned", "measured", "off by", "seconds planned", "measured", "off by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            markup(one.run.name),
            markup(one.target),
            f"{one.predicted_bytes / GIB:.2f}",
            f"{one.measured_bytes / GIB:.2f}",
            _off(one.memory_ratio),
            f"{one.predicted_seconds:,.1f}" if one.predicted_seconds else "-",
            f"{one.measured_seconds:,.1f}",
            _off(one.seconds_ratio),
        )
    console.print(table)
    for target, method in dict.fromkeys((one.target, one.method) for one in found):
        alike = [one for one in found if (one.target, one.method) == (target, method)]
        memory = _off(median(one.memory_ratio for one in alike))
        seconds = [one.seconds_ratio for one in alike if one.seconds_ratio is not None]
        console.print(
            f"{markup(target)}, {method}, {len(alike)} runs: memory off by {memory}"
            + (f", time by {_off(median(seconds))}" if seconds else "")
            + (", which `workbench plan` corrects for" if planner.correction(found, target, method).runs else "")
        )


def _off(ratio: float | None) -> str:
    """A measured figure against the planned one, as a difference."""
    return "-" if ratio is None else f"{ratio - 1:+.0%}"


def _remove(console: Console, run: Run) -> None:
    if lock.is_held(run):
        raise RunError(Problem(run.name, "is running", "end it first: `workbench cancel` it"))
    shutil.rmtree(run.path)
    console.print(f"removed {markup(run.name)}")


def show(name: str, root: Path) -> None:
    """One run in full."""
    console = terminal.console()
    run = create.named_run(root, name)
    entry = ledger.entry(run)
    state = terminal.state(queue.look([run])[0][0].word)
    console.print(f"[bold]{markup(run.name)}[/bold]  {state}  {markup(str(run.path))}")
    facts: dict[str, str] = {"base": entry.base, "method": entry.method, "seed": str(entry.seed)}
    if run.manifest.exists():
        manifest = files.read_json(run.manifest)
        facts["base content"] = manifest["base"]["revision"] or f"{len(manifest['base']['files'])} files, hashed"
        facts["licence"] = manifest["base"]["licence"]
        facts["versions"] = ", ".join(f"{key} {value}" for key, value in manifest["versions"].items())
    if run.data.exists():
        account = files.read_json(run.data)
        dropped = sum(account["rows_dropped"].values())
        facts["rows"] = f"{account['rows_in']:,} in = {account['rows_trained']:,} trained + {dropped:,} left out"
    if run.proof.exists():
        proof = files.read_json(run.proof)
        facts["proof"] = (
            f"{proof['places']} places moved, {proof['trained_parameters']:,} parameters trained, "
            f"saved files {proof['saved_against_memory']:.1g} away from the model in memory"
        )
    if run.cost.exists():
        facts["cost"] = _cost(files.read_json(run.cost))
    for kind, tracker in NAMES.items():
        if run.tracked(kind).exists():
            facts[tracker] = _tracked(files.read_json(run.tracked(kind)))
    for key, value in facts.items():
        console.print(f"  [dim]{key:<13}[/dim]{markup(value)}")
    for name_of_score, score in entry.scores.items():
        console.print(f"  {markup(name_of_score)}  {score:.4f}")
    for attempt in files.read_jsonl(run.attempts):
        status = f" with status {attempt['status']}" if "status" in attempt else ""
        console.print(f"  [dim]{attempt['time']} {attempt['event']} on {attempt['host']}{status}[/dim]")


def _tracked(taken: dict[str, Any]) -> str:
    """How far a tracker has come with a run."""
    parts = [f"{taken['state']} at step {taken['step']}", taken["address"] or "", taken["problem"] or ""]
    return "; ".join(part for part in parts if part)


def _cost(cost: dict[str, float]) -> str:
    if "training_flops" not in cost:
        return f"{cost.get('evaluation_seconds', 0):.1f} s of scoring"
    return (
        f"{cost['training_flops']:.3g} FLOPs, {cost['tokens']:,} tokens, {cost['device_seconds']:.1f} device seconds, "
        f"peak memory {cost['peak_memory_bytes'] / 2**30:.2f} GiB"
    )
