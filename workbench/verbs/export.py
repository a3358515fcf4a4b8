"""export: a finished run as files for others, with a verdict on whether its forms are the same model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workbench import llama_cpp
from workbench.errors import ExitStatus, Problem, RunError
from workbench.launch import local
from workbench.runs import create, exports, ingredients, soundness
from workbench.runs.exports import Asked
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup


def export(name: str, out: Path | None, gguf: str | None, adapter_only: bool, root: Path) -> None:
    """Write an export, or find it; ends with status 3 where a shipped form fails."""
    run = create.finished_run(root, name)
    soundness.refuse_damaged([run])
    ingredients.refuse_another_base(run)
    asked = Asked(merged=not adapter_only, gguf=gguf.lower() if gguf is not None else None)
    _refuse_nonsense(run, asked)
    target = (out or run.path.parent / "exports" / run.name).resolve()  # a link may lead to a larger disk
    if target.is_relative_to(run.path.resolve()):
        raise RunError(Problem(str(target), "lies in the run's own directory", "name another directory with --out"))
    console = terminal.console()
    known = _known(target)
    if known is not None and known["made_from"] == exports.made_from(run, asked) and exports.is_whole(target, known):
        console.print(f"{markup(run.name)} is exported already", style="dim")
    else:
        console.print("loading the libraries ...", style="dim")
        status = local.run_bench("workbench.worker.export", str(run.path), str(target), json.dumps(asdict(asked)))
        if status:
            sys.exit(status)
        known = exports.report_in(target)
    assert known is not None, "the bench process wrote it last"
    _show(console, target, known)
    if known["failed"]:
        sys.exit(ExitStatus.REFUSED)


def _refuse_nonsense(run: Run, asked: Asked) -> None:
    """What can be said before anything starts."""
    if not run.resolved().trains:
        raise RunError(Problem(run.name, "trained nothing", "it is the base as it is: there is nothing to export"))
    if not asked.merged and asked.gguf is not None:
        raise RunError(Problem("--gguf", "is made from the merged model", "leave --adapter-only away"))
    if not asked.merged and not (run.adapter / "adapter_config.json").exists():
        raise RunError(Problem("--adapter-only", "the run trained every weight: it has no adapter", "leave it away"))
    if asked.gguf is not None:
        llama_cpp.find(asked.gguf)


def _known(target: Path) -> dict[str, Any] | None:
    """The report of what stands there; None where nothing does.

    Raises:
        RunError: there is something that no export wrote, and that would be lost.
    """
    if target.is_dir() and not any(target.iterdir()):
        return None
    report = exports.report_in(target)
    if report is None and target.exists():
        raise RunError(Problem(str(target), "is there, and is no export", "name another directory with --out"))
    foreign = exports.foreign(target, report) if report else []
    if foreign:
        found = f"holds what no export wrote, or what was changed since: {', '.join(foreign[:6])}"
        raise RunError(Problem(str(target), found, "move that away, or name another directory with --out"))
    return report


def _show(console: Console, target: Path, report: Mapping[str, Any]) -> None:
    """What was written where, and the verdict on every form."""
    console.print(f"[bold]{markup(report['title'])}[/bold]  {markup(str(target))}")
    for folder, files in _folders(target).items():
        size = sum(path.stat().st_size for path in files) / 2**20
        console.print(f"  {markup(folder):<10}[dim]{len(files)} files, {size:,.1f} MiB[/dim]")
    reference, compared = report["reference"], report["compared"]
    console.print(
        f"held against {markup(reference['what'])} on {compared['tokens']:,} tokens: {markup(compared['source'])}",
        style="dim",
    )
    if report["forms"]:
        console.print(_table(report))
    for one in report["forms"]:
        if one["verdict"] == "fail" and one["shipped"]:
            console.print(f"[bold red]FAIL[/bold red] {markup(one['form'])}: {markup('; '.join(one['reasons']))}")
    for note in report["notes"]:
        console.print(f"[yellow]licence[/yellow] {markup(note)}")
    console.print(f"reasons and limits: {markup(str(target / 'EQUIVALENCE.md'))}", style="dim")


def _folders(target: Path) -> dict[str, list[Path]]:
    folders = sorted(path for path in target.iterdir() if path.is_dir())
    return {f"{folder.name}/": [path for path in folder.rglob("*") if path.is_file()] for folder in folders}


def _table(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("form", no_wrap=True)
    for heading in ("tokens agree", "mean KL, nats", "largest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("scores", "verdict"):
        table.add_column(heading, no_wrap=True)
    for one in report["forms"]:
        numbers = ("-", "-", "-")
        if "tokens" in one:
            numbers = (f"{one['agreement']:.2%}", f"{one['mean_kl']:.1e}", f"{one['largest_kl']:.1e}")
        scores = ", ".join(f"{task['task']} {task['difference']:+z.4f} {task['word']}" for task in one["differences"])
        colour = "green" if one["verdict"] == "pass" else "red" if one["shipped"] else "yellow"
        verdict = one["verdict"] if one["shipped"] else f"{one['verdict']} (not shipped)"
        table.add_row(markup(one["form"]), *numbers, markup(scores or "-"), f"[{colour}]{verdict}[/]")
    return table
