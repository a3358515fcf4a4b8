"""A verdict on the terminal: the arms, the declared contrasts, and what may not be overlooked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workbench import documents
from workbench.compare.report import words
from workbench.visible import markup

_COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "inconclusive": "dim"}


def show(console: Console, verdict: Mapping[str, Any], report: Path) -> None:
    """Print a verdict, and where its report lies."""
    console.print(f"[bold]{markup(verdict['question'])}[/bold]")
    console.print(markup(verdict["sentence"]))
    _warn(console, verdict)
    console.print()
    console.print(_arms(verdict))
    for task in verdict["suite"]["tasks"]:
        table = _contrasts(verdict, task)
        if table.row_count:
            console.print()
            console.print(table)
    _transfer(console, verdict["transfer"])
    _footnotes(console, verdict)
    console.print(f"report: {markup(documents.display(report))}")


def _warn(console: Console, verdict: Mapping[str, Any]) -> None:
    for one in verdict["missing"]:
        where = f"{one['arm']}, seed {one['seed']}"
        console.print(f"[yellow]missing[/yellow] {markup(where)}: {markup(one['state'])}. {markup(one['reason'])}")
    for found in verdict["gate"]["confounds"]:
        values = "; ".join(f"{value} ({', '.join(arms)})" for value, arms in found["values"].items())
        console.print(f"[red]confound[/red] {markup(found['field'])}: {markup(values)}")


def _arms(verdict: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    tasks = verdict["suite"]["tasks"]
    table.add_column("arm", no_wrap=True)
    for task in tasks:
        table.add_column(f"{task['id']} ({words.unit(task['metric'])})", justify="right", no_wrap=True)
    for heading in ("tier", "seeds", "trained", "compute", "device", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm in verdict["arms"]:
        cost = arm["cost"] or {}
        table.add_row(
            markup(arm["name"]),
            *(_score(arm, task) for task in tasks),
            " ".join(str(tier) for tier in arm["tier"].values()),
            "-" if arm["deterministic"] else str(len(arm["seeds"])),
            words.count(cost.get("trainable_parameters")),
            words.flops(cost.get("training_flops")),
            words.seconds(cost.get("device_seconds")),
            words.size(cost.get("peak_memory_bytes")),
        )
    return table


def _score(arm: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    score = arm["scores"][task["id"]]
    found = words.interval(score["low"], score["high"], task["metric"])
    return f"{words.score(score['value'], task['metric'])} [dim]{found}[/dim]"


def _contrasts(verdict: Mapping[str, Any], task: Mapping[str, Any]) -> Table:
    better = "higher" if task["higher_is_better"] else "lower"
    counted = f"{task['items']:,} items in {task['clusters']:,} clusters"
    unit = words.difference_unit(task["metric"])
    table = Table(
        title=f"[bold]{markup(task['id'])}[/bold]  {unit}, {better} is better, {counted}",
        title_justify="left", title_style="", box=None, pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for heading in ("arm", "against", "verdict", "difference", "95 % interval", "p", ""):
        right = heading in ("difference", "p")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "", overflow="fold")
    told = [one for one in verdict["contrasts"] if one["task"] == task["id"] and one["family"] == "declared"]
    for one in told:
        table.add_row(
            markup(one["arm"]),
            markup(one["against"]),
            f"[{_COLOURS[one['word']]}]{one['word']}[/]",
            words.difference(one["difference"], task["metric"]),
            words.interval(one["low"], one["high"], task["metric"]),
            words.probability(one["p_adjusted"]),
            _marks(one, task),
        )
    return table


def _marks(one: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    marks = ["suggestive: one seed"] if one["suggestive"] else []
    marks += ["confounded"] if one["confounded"] else []
    marks += [f"both at the {one['at_bound']}"] if one["at_bound"] else []
    if one["word"] == "inconclusive":
        resolved = words.score(one["smallest_resolvable"], task["metric"])
        marks.append(f"could resolve {resolved} {words.difference_unit(task['metric'])}{_needed(one)}")
    return f"[dim]{markup('; '.join(marks))}[/dim]"


def _needed(one: Mapping[str, Any]) -> str:
    ways = [f"{one['items_needed']:,} items"] if one["items_needed"] else []
    ways += [f"{one['seeds_needed']} seeds"] if one["seeds_needed"] else []
    return f"; the margin would take {' or '.join(ways)}" if ways else ""


def _transfer(console: Console, transfer: Mapping[str, Any] | None) -> None:
    if not transfer:
        return
    console.print()
    doubt = "; one seed: suggestive at most" if transfer["suggestive"] else ""
    console.print(
        f"[bold]against from scratch[/bold], by {markup(transfer['task'])} ({transfer['kind']} ladder{doubt})"
    )
    for arm in transfer["arms"]:
        for name in ("data_equivalent", "multiplier", "compute_equivalent"):
            console.print(f"  {markup(arm['arm'])}  {name.replace('_', ' ')}: {markup(arm[name]['words'])}")


def _footnotes(console: Console, verdict: Mapping[str, Any]) -> None:
    notes: Sequence[str] = [
        "95 % intervals over items and seeds; declared contrasts share one error rate (Holm). All other pairs, "
        "fronts, items and the gate's findings are in the report."
    ]
    floors = [one["largest_difference"] for one in verdict["noise_floor"]]
    if floors:
        notes = [*notes, f"Noise floor: the same recipe and seed run again differs by at most {max(floors):.2g}."]
    if verdict["measured_under"]:
        under = ", ".join(verdict["measured_under"])
        notes = [
            *notes,
            f"Time, energy, money and memory were taken under differing {under}: they compare only roughly.",
        ]
    for note in notes:
        console.print(note, style="dim")
