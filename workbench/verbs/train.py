"""train, eval, generate, data show: the verbs that start a bench process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workbench import files
from workbench.errors import Problem, RunError
from workbench.launch import local
from workbench.recipe import pin, resolve
from workbench.recipe.identity import identity
from workbench.recipe.load import load
from workbench.recipe.resolved import Resolved, ResolvedSuite
from workbench.runs import create, ledger
from workbench.runs.run import Run
from workbench.verbs import terminal


def train(recipe: Path, overrides: Sequence[str], root: Path) -> None:
    """Resolve, make or find the run, and bring it to its end."""
    console = terminal.console()
    resolved = _start_found(resolve.resolve(load(recipe, overrides)), root)
    if resolved.base.kind == "hub" or resolved.data.card.source.hub:
        console.print("looking up the base and the rows ...", style="dim")
    resolved, contents = pin.pin(resolved)
    facts = identity(resolved, contents)
    known = create.find(root, resolved, facts)
    if known and known.is_finished() and _is_scored(known, resolved.suite):
        console.print(f"{known.name} is finished already; nothing to do")
        _show_result(console, known)
        return
    older = None if known else create.nearest(root, resolved, facts)
    run = create.open_run(root, resolved, contents)
    if older:
        console.print(f"a new run: {', '.join(older[1])} differ from {older[0].name}", style="dim")
    console.print(f"run {run.path}")
    status = local.train(run)
    if status:
        sys.exit(status)
    _show_result(console, run)


def _start_found(resolved: Resolved, root: Path) -> Resolved:
    """`method.init_from` as the directory of the run that it names."""
    start = getattr(resolved.recipe.method, "init_from", None)
    if start is None or Path(start).is_absolute():
        return resolved
    method = resolved.recipe.method.model_copy(update={"init_from": str(create.named_run(root, start).path.absolute())})
    return resolved.model_copy(update={"recipe": resolved.recipe.model_copy(update={"method": method})})


def _is_scored(run: Run, suite: ResolvedSuite | None) -> bool:
    """Whether the run was scored on the suite as it is now (else the worker looks at the items themselves)."""
    if suite is None:
        return True
    return suite.name in run.suites() and files.read_json(run.results(suite.name))["content"] == pin.suite_content(
        suite
    )


def _show_result(console: Console, run: Run) -> None:
    """The scores of the base and of the run."""
    resolved = run.resolved()
    if resolved.suite is None:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("run", "task", "metric", "score", "95 % interval"):
        table.add_column(heading, justify="right" if heading == "score" else "left", no_wrap=True)
    shown = _with_base(run)
    for name, entry in zip(terminal.labels(shown), shown, strict=True):
        for task, facts in files.read_json(entry.results(resolved.suite.name))["tasks"].items():
            found = terminal.interval(facts["low"], facts["high"])
            table.add_row(name, task, facts["metric"], f"{facts['value']:.4f}", found)
    console.print(table)
    console.print(f"see it: workbench show {run.name}", style="dim")


def _with_base(run: Run) -> list[Run]:
    """The base's own run, where it is scored on the same suite, then the run."""
    resolved = run.resolved()
    suite = resolved.suite
    if suite is None or not resolved.trains:
        return [run]
    base = ledger.base_of(run)
    return [base, run] if base is not None and base.results(suite.name).exists() else [run]


def evaluate(name: str, suite: str, root: Path) -> None:
    """Score a finished run on another suite."""
    run = create.named_run(root, name)
    if not run.is_finished():
        raise RunError(Problem(run.name, "is not finished", f"workbench train {run.recipe_file} finishes it"))
    resolve.find_suite(suite, Path.cwd(), "--suite")
    status = local.run_bench("workbench.worker", str(run.path), "--suite", suite, "--from", str(Path.cwd()))
    if status:
        sys.exit(status)


def generate(name: str, prompt: str | None, tokens: int, root: Path) -> None:
    """Answer prompts with the run's result and with its base."""
    run = create.named_run(root, name)
    if not run.is_finished():
        raise RunError(Problem(run.name, "is not finished", f"workbench train {run.recipe_file} finishes it"))
    prompts = [prompt] if prompt is not None else [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not prompts:
        raise RunError(Problem("prompt", "there is none", "give one, or pipe one a line"))
    sys.exit(local.run_bench("workbench.worker.generate", str(run.path), json.dumps(prompts), str(tokens)))


def data_show(recipe: Path, rows: int, overrides: Sequence[str]) -> None:
    """Show rows as the model sees them."""
    resolved, _ = pin.pin(resolve.resolve(load(recipe, overrides)))
    sys.exit(local.run_bench("workbench.worker.show_data", resolved.model_dump_json(), str(rows)))
