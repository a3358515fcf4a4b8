"""check, bases and targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from workbench import __version__
from workbench.catalog.bases import BaseRow
from workbench.catalog.bases import bases as all_bases
from workbench.catalog.targets import TargetRow
from workbench.errors import Problem, UserError
from workbench.recipe import hardware, resolve, rules
from workbench.recipe.load import load
from workbench.verbs import terminal
from workbench.visible import markup, visible


def check(recipe: Path, overrides: Sequence[str]) -> None:
    """Load and resolve; silence is not an answer, so say what the recipe means, and what in it is unwise."""
    loaded = load(recipe, overrides)
    resolved = resolve.resolve(loaded)
    made = resolved.recipe
    suite = f", scored on {resolved.suite.name}" if resolved.suite else ", not scored"
    scratch = " from scratch" if made.base.init == "random" else ""
    console = terminal.console()
    console.print(
        f"[green]ok[/green] {resolved.name}: {made.objective.name} with {made.method.name} on "
        f"{markup(resolved.base.row or resolved.base.location)}{scratch}, "
        f"rows of {markup(resolved.data.name + suite)}; {resolved.dtype} on {resolved.target.name}"
    )
    for rule in rules.broken(resolved, "unwise"):
        where = visible(loaded.document.where(rule.field))
        console.print(Text.assemble(("unwise", "yellow"), " ", (where, "bold"), ": ", rule.reason))
        console.print(Text(f"       {rule.advice(resolved)}", style="dim"))


def version() -> None:
    """Print the workbench's own version."""
    print(f"workbench {__version__}")


def bases(words: Sequence[str], most: float | None) -> None:
    """The catalog as a table."""
    chosen = [row for row in all_bases().values() if _matches(row, words, most)]
    if not chosen:
        raise UserError(
            Problem("bases", f"none matches {' '.join(words) or 'that'}", "`workbench bases` lists them all")
        )
    console = terminal.console()
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "parameters", "active", "context", "tuning", "licence", "hub"):
        table.add_column(heading, justify="right" if heading in ("parameters", "active", "context") else "left")
    for row in chosen:
        terms = row.licences()
        licence = " + ".join(term.id for term in terms) + ("" if all(t.commercial_use is True for t in terms) else " *")
        table.add_row(
            row.name,
            _billions(row.parameters),
            _billions(row.active_parameters),
            f"{row.context:,}",
            row.tuning,
            licence,
            row.hub,
        )
    console.print(table)
    restricted = {term.id: term for row in chosen for term in row.licences() if term.commercial_use is not True}
    for term in restricted.values():
        console.print(f"\n* [bold]{term.id}[/bold] ({term.name})")
        for restriction in term.restrictions:
            console.print(f"  - {restriction}", markup=False, style="dim")


def targets(words: Sequence[str]) -> None:
    """The catalog of hardware as a table, with the nearest `targets.yaml`'s own rows."""
    chosen = [row for row in hardware.known_targets(Path.cwd()).values() if _names(row, words)]
    if not chosen:
        raise UserError(Problem("targets", f"none matches {' '.join(words)}", "`workbench targets` lists them all"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    for heading in ("GiB", "GB/s", "bf16 TFLOP/s", "fp16", "fp32", "W", "USD/h"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in chosen:
        rates = (row.peak_tflops.get("bf16"), row.peak_tflops.get("fp16"), row.peak_tflops.get("fp32"))
        numbers = (row.memory_gib, row.gigabytes_per_second, *rates, row.power_watts, row.usd_per_hour)
        shown = ("-" if number is None else f"{number:g}" for number in numbers)
        table.add_row(row.name, row.capabilities().title, *shown)
    terminal.console().print(table)


def _names(row: TargetRow, words: Sequence[str]) -> bool:
    text = f"{row.name} {row.device} {row.capabilities().title}".lower()
    return all(word.lower() in text for word in words)


def _matches(row: BaseRow, words: Sequence[str], most: float | None) -> bool:
    text = " ".join((row.name, row.family, row.hub, row.tuning, row.licence, row.architecture)).lower()
    return all(word.lower() in text for word in words) and (most is None or row.parameters <= most * 1e9)


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f} B"
