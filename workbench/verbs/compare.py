"""compare: finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from workbench.compare.statistics import Estimate
from workbench.compare.table import TaskTable
from workbench.compare.table import compare as compare_runs
from workbench.runs import create
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup


def compare(names: Sequence[str], suite: str | None, root: Path) -> None:
    """Print one table a task."""
    chosen = [create.named_run(root, name) for name in names]
    suite, tables = compare_runs(chosen, suite)
    screen = terminal.console()
    for one in tables:
        screen.print(_table(suite, one, chosen))
        screen.print()
    screen.print(
        "95 % intervals: BCa bootstrap over clusters of items. One seed each: suggestive at most.", style="dim"
    )


def _table(suite: str, one: TaskTable, runs: Sequence[Run]) -> Table:
    names = [markup(name) for name in terminal.labels(runs)]
    better = "higher" if one.higher_is_better else "lower"
    items = one.cells[0].score
    counted = f"{items.items} items in {items.clusters} clusters"
    table = Table(
        title=f"[bold]{markup(suite)} / {markup(one.task)}[/bold]  {one.metric}, {better} is better, {counted}",
        title_justify="left", title_style="", box=None, pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    table.add_column("run", no_wrap=True, min_width=max(map(len, names)))  # never cut: other verbs take it
    table.add_column("score", justify="right")
    table.add_column("95 % interval", no_wrap=True)
    if len(runs) > 1:
        table.add_column(f"minus {names[0]}", justify="right")
        table.add_column("95 % interval", no_wrap=True)
        table.add_column("")
    for name, cell in zip(names, one.cells, strict=True):
        row = [name, f"{cell.score.value:.4f}", terminal.interval(cell.score.low, cell.score.high)]
        if cell.difference is not None:
            row += [f"{cell.difference.value:+.4f}", terminal.interval(cell.difference.low, cell.difference.high, "+"),
                    _verdict(cell.difference, one.higher_is_better)]  # fmt: skip
        table.add_row(*row)
    return table


def _verdict(difference: Estimate, higher_is_better: bool) -> str:
    if not difference.excludes_zero():
        return "[dim]not resolved[/dim]"
    return "[green]better[/green]" if (difference.value > 0) == higher_is_better else "[red]worse[/red]"
