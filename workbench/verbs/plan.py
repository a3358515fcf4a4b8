"""plan: what a recipe will take, before anything is fetched or started; and matrices of what fits where."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workbench.errors import Problem, RecipeError, UserError
from workbench.launch import local
from workbench.plan.fixes import lean
from workbench.plan.memory import TRAINING_STAGES
from workbench.plan.prediction import GIB, Prediction, Range, usable_bytes
from workbench.recipe import hardware, resolve, rules, settings, variants
from workbench.recipe.architecture import architecture_of
from workbench.recipe.lengths import lengths_of
from workbench.recipe.load import load
from workbench.recipe.resolved import Resolved
from workbench.runs import planner
from workbench.verbs import terminal
from workbench.visible import markup

_COLOURS = {"fits": "green", "tight": "yellow", "does not fit": "red", "unknown": "dim"}
_SOURCES = {
    "rows": "as tokenised on this machine",
    "card": "as its card states them",
    "maximum": "not known: every row is counted as the longest one allowed; `workbench data show` counts them",
}
_STAGES = {"forward": "forward pass", "backward": "backward pass"}


def plan(recipe: Path, overrides: Sequence[str], root: Path, exact: bool, as_json: bool) -> None:
    """Predict one recipe on its own target."""
    resolved = resolve.resolve(load(recipe, overrides))
    found = list(planner.compared(root)) if root.is_dir() else []
    correction = planner.correction(found, resolved.target.name, resolved.recipe.method.name)
    prediction = planner.predicted(resolved, correction)
    if as_json:
        print(json.dumps(planner.as_words(prediction), indent=2))
        return
    console = terminal.console()
    _head(console, resolved)
    _memory(console, prediction)
    _verdict(console, resolved, prediction)
    _costs(console, prediction)
    for rule in rules.broken(resolved, "unwise"):
        console.print(f"[yellow]unwise[/yellow] {markup(rule.reason)}")
        console.print(f"       [dim]{markup(rule.advice(resolved))}[/dim]")
    if prediction.verdict in ("tight", "does not fit"):
        _fixes(console, resolved, prediction)
    if exact:
        sys.stdout.flush()
        status = local.run_bench("workbench.worker.exact", resolved.model_dump_json())
        if status:
            sys.exit(status)


def _head(console: Console, resolved: Resolved) -> None:
    model = architecture_of(resolved.base)
    lengths = lengths_of(resolved, model.context)
    made, row = resolved.recipe, resolved.target
    memory = f", {row.memory_gib:g} GiB" if row.memory_gib else ""
    number = made.target.devices * made.target.nodes
    several = f"{number} x " if number > 1 else ""
    shared = f" ({made.target.sharding})" if number > 1 else ""
    console.print(
        f"[bold]{markup(resolved.name)}[/bold]: {made.objective.name} with {made.method.name} on "
        f"{markup(resolved.base.row or resolved.base.location)} ({_count(model.parameters)} parameters), "
        f"{resolved.dtype} on {several}{markup(row.name)}{memory}{shared}"
    )
    number_of = f"{lengths.examples:,} rows of about {lengths.mean_tokens():,.0f} tokens, " if lengths.examples else ""
    console.print(f"[dim]rows: {number_of}longest {lengths.longest:,} ({_SOURCES[lengths.source]})[/dim]")


def _memory(console: Console, prediction: Prediction) -> None:
    """What stays, and the stages, which take turns: the largest of them counts."""
    found, needed = prediction.memory, prediction.device_bytes
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("memory of one device", no_wrap=True)
    table.add_column("GiB", justify="right", no_wrap=True)
    table.add_column("")
    for name, size in found.stays.items():
        if size:
            table.add_row(name, _gib(size), "")
    table.add_row("framework", _gib(prediction.framework_bytes), "[dim]context and libraries[/dim]")
    for name, size in found.stages.items():
        if not size:
            continue
        largest = name == found.largest_stage
        style = "bold" if largest else "dim"
        parts = ", ".join(f"{part} {_gib(value)}" for part, value in found.details.items() if value)
        of_it = f": {parts}" if name in TRAINING_STAGES else ""
        note = f"[dim]the largest stage{of_it}[/dim]" if largest else ""
        table.add_row(f"[{style}]+ {_STAGES.get(name, name)}[/{style}]", f"[{style}]{_gib(size)}[/{style}]", note)
    span = f"[bold]{_gib(needed.low)} to {_gib(needed.high)}[/bold]"
    table.add_row("[bold]in all[/bold]", f"[bold]{_gib(needed.expected)}[/bold]", span)
    console.print(table)


def _verdict(console: Console, resolved: Resolved, prediction: Prediction) -> None:
    colour = _COLOURS[prediction.verdict]
    words: str = prediction.verdict
    if prediction.target.memory_bytes is None:
        words = "unknown: the target states no memory; name a device (`workbench targets`)"
    else:
        has = prediction.target.memory_bytes
        words += f" on {resolved.target.name} ({_gib(has)} GiB, {_gib(usable_bytes(has))} of them usable)"
    console.print(f"[{colour}]{markup(words)}[/{colour}]")


def _costs(console: Console, prediction: Prediction) -> None:
    facts: dict[str, str] = {}
    if prediction.seconds is None:
        facts["time"] = f"not known: {_why_no_time(prediction)}"
    elif prediction.seconds.expected:
        facts["time"] = _duration(prediction.seconds)
    if prediction.usd:
        facts["money"] = f"{_range(prediction.usd, 2)} USD"
    if prediction.joules:
        facts["energy"] = f"{_range(prediction.joules.times(1 / 3.6e6), 2)} kWh at full power"
    if prediction.model_flops:
        facts["compute"] = f"{prediction.model_flops:.3g} FLOPs"
    facts["disk"] = f"{_size(prediction.download_bytes)} for the base, {_size(prediction.run_bytes)} for the run"
    for name, value in facts.items():
        console.print(f"{name:<8} {value}")
    if prediction.correction.runs:
        found = prediction.correction
        console.print(
            f"[dim]corrected by {found.runs} finished runs on this target: memory x {found.memory:.2f}, "
            f"time x {found.seconds:.2f}[/dim]"
        )


def _fixes(console: Console, resolved: Resolved, prediction: Prediction) -> None:
    found = planner.made_to_fit(resolved, prediction.correction)
    if not found:
        parts = prediction.memory
        part, size = max([*parts.stays.items(), *parts.stages.items()], key=lambda one: one[1])
        console.print(
            f"no change of this recipe that was tried makes it fit (the largest part is {part}, {_gib(size)} GiB); "
            "take a smaller base or a larger target"
        )
        return
    console.print("what makes it fit, the least costly first:")
    for fix in found:
        takes = fix.prediction
        figures = [f"{_gib(takes.device_bytes.expected)} GiB"]
        figures += [_short(takes.seconds.expected)] if takes.seconds else []
        figures += [f"{takes.usd.expected:,.2f} USD"] if takes.usd else []
        costs = [*(change.costs for change in fix.changes), "another result" if fix.is_another else "the same result"]
        console.print(f"  {markup(settings.options(fix.settings))}", soft_wrap=True)
        console.print(f"      [dim]{', '.join(figures)}: {markup(', '.join(costs))}[/dim]")


def _why_no_time(prediction: Prediction) -> str:
    if prediction.target.device.peak_tflops is None:
        return "the target states no peak rate"
    return "neither training.steps nor the number of rows is (`workbench data show` counts them)"


def matrix(recipe: Path, overrides: Sequence[str], targets: Sequence[str], bases: Sequence[str], as_json: bool) -> None:
    """Predict a recipe on several targets or bases (`all`, or names), a line each."""
    if targets and bases:
        raise RecipeError(
            Problem("--targets", "goes with one base, and --bases with one target", "name it by --target")
        )
    resolved = resolve.resolve(load(recipe, overrides)) if not targets else _on_any_target(recipe, overrides)
    asked: list[tuple[str, Resolved]]
    if bases:
        names = resolve.known_bases() if "all" in bases else bases
        asked = [(name, variants.on_base(resolved, name)) for name in names]
    else:
        known = hardware.known_targets(recipe.absolute().parent)
        unknown = [name for name in targets if name != "all" and name not in known]
        if unknown:
            raise RecipeError(Problem("--targets", f"no target is called {unknown[0]!r}", "see `workbench targets`"))
        names = [name for name in known if name not in _GENERIC] if "all" in targets else targets
        asked = [(name, variants.on_target(resolved, known[name])) for name in names]
    rows = [(name, one, _attempt(one)) for name, one in asked]
    if as_json:
        print(json.dumps([{"name": name, **_line(found)} for name, _, found in rows], indent=2))
        return
    _table(terminal.console(), rows, "base" if bases else "target")


_GENERIC = ("cuda", "rocm", "intel-xpu", "apple-mps")
"""Rows without a memory of their own."""


def _on_any_target(recipe: Path, overrides: Sequence[str]) -> Resolved:
    """The recipe, legal or not on the target that it names: others are asked about."""
    return resolve.looked_up(load(recipe, overrides))


def _attempt(resolved: Resolved) -> Prediction | str:
    """A prediction, or why there is none."""
    broken = rules.broken(resolved, "illegal")
    if broken:
        return f"illegal: {broken[0].reason}"
    try:
        return planner.predicted(resolved)
    except UserError as error:
        return error.problems[0].found


def _line(found: Prediction | str) -> dict[str, Any]:
    return {"refused": found} if isinstance(found, str) else planner.as_words(found)


def _table(console: Console, rows: Sequence[tuple[str, Resolved, Prediction | str]], what: str) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(what, no_wrap=True)
    for heading in ("has GiB", "needs", "at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("would fit", no_wrap=True)
    for heading in ("time", "USD", "kWh"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, resolved, found in rows:
        has = f"{resolved.target.memory_gib:g}" if resolved.target.memory_gib else "-"
        if isinstance(found, str):
            table.add_row(markup(name), has, "", "", f"[dim]{markup(found)}[/dim]")
            continue
        needed, colour = found.device_bytes, _COLOURS[found.verdict]
        table.add_row(
            markup(name),
            f"{found.target.memory_bytes / GIB:.0f}" if found.target.memory_bytes else "-",
            _gib(needed.expected),
            _gib(needed.high),
            f"[{colour}]{found.verdict}[/{colour}]",
            "" if found.verdict in ("fits", "unknown") else _would_fit(resolved),
            _short(found.seconds.expected) if found.seconds else "-",
            f"{found.usd.expected:,.2f}" if found.usd else "-",
            f"{found.joules.expected / 3.6e6:,.2f}" if found.joules else "-",
        )
    console.print(table)


def _would_fit(resolved: Resolved) -> str:
    for words, changed in lean(resolved, planner.longest(resolved)):
        leaner = variants.with_settings(resolved, changed)
        if leaner is not None and planner.predicted(leaner).verdict == "fits":
            return words
    return "[dim]no[/dim]"


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f}"


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"


def _range(found: Range, digits: int) -> str:
    return f"{found.expected:,.{digits}f} ({found.low:,.{digits}f} to {found.high:,.{digits}f})"


def _duration(found: Range) -> str:
    return f"{_short(found.expected)} ({_short(found.low)} to {_short(found.high)})"


def _short(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} s"
