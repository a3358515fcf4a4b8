"""reproduce: train a finished run again, and say whether the result lies where it should."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workbench import files
from workbench.compare import reproduction
from workbench.compare.report import words
from workbench.errors import ExitStatus, Problem, RunError
from workbench.launch import local
from workbench.recipe.resolved import Resolved
from workbench.runs import create, ingredients, manifest, planner, repeats, soundness
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup

_SHOWN = {
    "training_flops": words.flops,
    "device_seconds": words.seconds,
    "joules": words.joules,
    "usd": words.usd,
    "peak_memory_bytes": words.size,
    "evaluation_seconds": words.seconds,
}


def reproduce(name: str, root: Path) -> None:
    """Find what the run was made of, train it again (or go on with that), and hold the two side by side."""
    console = terminal.console()
    original = create.finished_run(root, name)
    resolved = _made_of(original)
    wanted = repeats.planned_again(original, resolved, root)
    again = wanted.find(root)
    if again is None or not wanted.is_done(root):
        if again is None:
            planner.refuse_misfit(wanted.resolved)
        _say_differences(console, original)
        again = repeats.opened(wanted, original, root)
        console.print(f"run {markup(str(again.path))}")
        status = local.train(again)
        if status:
            sys.exit(status)
    soundness.refuse_damaged([again])
    found = reproduction.figures(original, again)
    files.write_json(again.reproduction, found)
    _show(console, found)
    more = f"{shlex.quote(again.name)}{terminal.elsewhere(root)}"
    console.print(markup(f"once more: `workbench runs rm {more}`, then the same command"), style="dim")
    if not found["inside"]:
        sys.exit(ExitStatus.REFUSED)


def _made_of(original: Run) -> Resolved:
    """The run's resolved recipe, after a look at everything that it names.

    Raises:
        RunError: with everything that is not there, or is not what it was.
    """
    soundness.refuse_damaged([original])
    resolved = original.resolved()
    if not resolved.trains and resolved.suite is None:
        found = "neither trains anything nor is scored on anything"
        raise RunError(Problem(original.name, found, f"workbench eval {original.name} --suite NAME scores it"))
    problems = ingredients.problems(original) + ingredients.suite_problems(original)
    if problems:
        raise RunError(problems)
    return resolved


def _say_differences(console: Console, original: Run) -> None:
    """Other versions than the run was made with are no reason to refuse; they may be one for another result."""
    then = files.read_json(original.manifest)
    for field, (was, now) in reproduction.differing(then, then | {"versions": manifest.versions()}).items():
        console.print(markup(f"{field}: the run was made with {_brief(was)}, here is {_brief(now)}"), style="yellow")


def _brief(value: Any) -> str:
    return "none" if value is None else str(value)[:12]


def _show(console: Console, found: Mapping[str, Any]) -> None:
    if found["tasks"]:
        console.print(_tasks(found["tasks"]))
    adapters, loss = found["adapters"], found["last_loss"]
    if adapters:
        equal = "bit-equal" if adapters["equal"] else "not bit-equal"
        expected = "as expected" if adapters["equal"] == adapters["expected"] else "more than was expected"
        if adapters["expected"] and not adapters["equal"]:
            expected = "although nothing that is recorded differs: is it another model of processor?"
        console.print(f"adapters: {equal}, {expected}; last loss {loss['original']} and {loss['reproduction']}")
        for reason in adapters["because"]:
            console.print(markup(f"  not to be expected: {reason}"), style="dim")
    console.print(_costs(found["cost"]))
    if not found["tasks"] and not found["inside"]:
        console.print("there is no suite, so no interval to hold them against: `workbench eval` scores both")
    verdict = "[green]reproduced[/green]" if found["inside"] else "[red]not reproduced[/red]"
    console.print(f"{verdict}: {markup(found['original']['run'])} by {markup(found['reproduction']['run'])}")


def _tasks(tasks: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("task", "metric", "original", "95 % interval", "again", "difference", "95 % interval", ""):
        right = heading in ("original", "again", "difference")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for task in tasks:
        was, apart = task["original"], task["difference"]
        table.add_row(
            markup(task["id"]),
            task["metric"],
            f"{was['value']:.4f}",
            _ends(was, ""),
            f"{task['reproduced']:.4f}",
            f"{apart['value']:+z.4f}",
            _ends(apart, "+"),
            "[green]inside[/green]" if task["inside"] else "[red]outside[/red]",
        )
    return table


def _ends(found: Mapping[str, Any], sign: str) -> str:
    """An interval; nothing where it has no end, as over one cluster."""
    known = found["low"] is not None and found["high"] is not None
    return terminal.interval(found["low"], found["high"], sign) if known else ""


def _costs(cost: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("measured", "original", "again"):
        table.add_column(heading, justify="left" if heading == "measured" else "right", no_wrap=True)
    for key, write in _SHOWN.items():
        if any(value is not None for value in cost[key].values()):
            table.add_row(key.replace("_", " "), write(cost[key]["original"]), write(cost[key]["reproduction"]))
    return table
