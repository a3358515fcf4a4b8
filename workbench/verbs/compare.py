"""compare: finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workbench.compare.statistics import Estimate
from workbench.compare.table import TaskTable
from workbench.compare.table import compare as compare_runs
from workbench.runs import create
from workbench.runs.run import Run


def compare(names: Sequence[str], suite: str | None, root: Path) -> None:
    """Print one table a task."""
    chosen = [create.named_run(root, name) for name in names]
    suite, tables = compare_runs(chosen, suite)
    console = Console(highlight=False, soft_wrap=True)
    for one in tables:
        _print(console, suite, one, chosen)
    console.print(
        "intervals: 95 %, BCa bootstrap over clusters of items; one seed each, so suggestive at most", style="dim"
    )


def _print(console: Console, suite: str, one: TaskTable, runs: Sequence[Run]) -> None:
    better = "higher" if one.higher_is_better else "lower"
    items = one.cells[0].score
    title = f"{suite} / {one.task}: {one.metric} ({better} is better; {items.items} items in {items.clusters} clusters)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("run", min_width=max(len(run.name) for run in runs))  # never cut: other verbs take it
    for heading in ("score", "95 % interval", f"minus {runs[0].name}", "95 % interval", ""):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for run, cell in zip(runs, one.cells, strict=True):
        if cell.difference is None:
            table.add_row(run.name, f"{cell.score.value:.4f}", _interval(cell.score), "", "", "")
            continue
        table.add_row(
            run.name,
            f"{cell.score.value:.4f}",
            _interval(cell.score),
            f"{cell.difference.value:+.4f}",
            _interval(cell.difference, "+"),
            _verdict(cell.difference, one.higher_is_better),
        )
    console.print(table)


def _interval(estimate: Estimate, sign: str = "") -> str:
    return rf"\[{estimate.low:{sign}.4f}, {estimate.high:{sign}.4f}]"


def _verdict(difference: Estimate, higher_is_better: bool) -> str:
    if not difference.excludes_zero():
        return "[dim]not resolved[/dim]"
    return "[green]better[/green]" if (difference.value > 0) == higher_is_better else "[red]worse[/red]"
