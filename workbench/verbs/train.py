"""train, eval, generate, data show: the verbs that start a bench process."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workbench import files, place
from workbench.errors import Problem, RunError
from workbench.launch import local
from workbench.recipe import pin, resolve
from workbench.recipe.load import load
from workbench.recipe.resolved import ResolvedSuite
from workbench.runs import create, ledger, lock, planner
from workbench.runs.planned import is_scored, planned
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup

_LOOK_AGAIN_SECONDS = 2.0


def train(recipe: Path, overrides: Sequence[str], root: Path, dry_run: bool = False) -> None:
    """Resolve, make or find the run, and bring it to its end; a dry run only says by what command. A run's directory in
    place of a recipe is gone on with as it is."""
    console = terminal.console()
    if recipe.is_dir():
        if overrides:
            raise RunError(Problem(f"--set {overrides[0]}", "a run is frozen", "set it where you train the recipe"))
        run = create.named_run(root, str(recipe))
        _go_on(console, run, run.resolved().suite, dry_run)
        return
    resolved = resolve.resolve(load(recipe, overrides))
    if resolved.base.kind == "hub" or resolved.data.card.source.hub:
        console.print("looking up the base and the rows ...", style="dim")
    wanted = planned(resolved, root)
    known = wanted.find(root)
    if not known and not dry_run:
        planner.refuse_misfit(wanted.resolved)
    older = None if known else create.nearest(root, wanted.resolved, wanted.facts)
    if dry_run or not wanted.is_done(root):
        known = wanted.open(root)
    assert known is not None, "what is done is there"
    if older and not dry_run:
        console.print(markup(f"a new run: {', '.join(older[1])} differ from {older[0].name}"), style="dim")
    _go_on(console, known, wanted.resolved.suite, dry_run)


def _go_on(console: Console, run: Run, suite: ResolvedSuite | None, dry_run: bool) -> None:
    """Do what is left of a run.

    Args:
        suite: what it is to be scored on.
    """
    if dry_run:
        local.prepare(run)
        print(_typed(local.worker_command(run)))  # alone and unwrapped, to be pasted or piped
        return
    while place.in_step() and not run.resolved().trains and lock.is_held(run):
        time.sleep(_LOOK_AGAIN_SECONDS)  # a run that is trained on this base scores it for us
    if run.is_finished() and is_scored(run, suite):
        console.print(f"{markup(run.name)} is finished already; nothing to do")
        _show_result(console, run)
        return
    if place.in_step():
        local.prepare(run)
        local.become_worker(run)
    console.print(f"run {markup(str(run.path))}")
    console.print("loading the libraries ...", style="dim")
    status = local.train(run)
    if status:
        sys.exit(status)
    _show_result(console, run)


def _typed(command: Sequence[str]) -> str:
    """A command line for a shell; what begins with a dollar sign is left to it."""
    return " ".join(word if word.startswith("$") else shlex.quote(word) for word in command)


def _show_result(console: Console, run: Run) -> None:
    """The scores of the base and of the run."""
    resolved = run.resolved()
    if resolved.suite is None:
        console.print(f"finished; see it: {_show_command(run)}", style="dim")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("run", "task", "metric", "score", "95 % interval"):
        table.add_column(heading, justify="right" if heading == "score" else "left", no_wrap=True)
    shown = _with_base(run)
    for name, entry in zip(terminal.labels(shown), shown, strict=True):
        for task, facts in files.read_json(entry.results(resolved.suite.name))["tasks"].items():
            found = terminal.interval(facts["low"], facts["high"])
            table.add_row(markup(name), markup(task), facts["metric"], f"{facts['value']:.4f}", found)
    console.print(table)
    console.print(f"see it: {_show_command(run)}", style="dim")


def _show_command(run: Run) -> str:
    """`workbench show` of a run, as it can be pasted here."""
    return markup(f"workbench show {shlex.quote(run.name)}{terminal.elsewhere(run.path.parent)}")


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
    run = create.finished_run(root, name)
    resolve.find_suite(suite, Path.cwd(), "--suite")
    status = local.train(run, "--suite", suite, "--from", str(Path.cwd()))
    if status:
        sys.exit(status)


def generate(name: str, prompt: str | None, tokens: int, root: Path) -> None:
    """Answer prompts with the run's result and with its base."""
    run = create.finished_run(root, name)
    prompts = _prompts(prompt)
    with tempfile.TemporaryDirectory() as folder:  # a command line takes only so many bytes
        asked = Path(folder) / "prompts.json"
        files.write_json(asked, {"prompts": prompts})
        status = local.run_bench("workbench.worker.generate", str(run.path), str(asked), str(tokens))
    sys.exit(status)


def _prompts(prompt: str | None) -> list[str]:
    """The one that was given, else one a line of standard input."""
    try:
        prompts = [prompt] if prompt is not None else [line.rstrip("\n") for line in sys.stdin if line.strip()]
        "".join(prompts).encode()  # bytes that are no text come as halves of a pair
    except UnicodeError:
        raise RunError(Problem("prompt", "is not UTF-8 text", "is it a binary file?")) from None
    if not prompts:
        raise RunError(Problem("prompt", "there is none", "give one, or pipe one a line"))
    return prompts


def data_show(recipe: Path, rows: int, overrides: Sequence[str]) -> None:
    """Show rows as the model sees them."""
    resolved, _ = pin.pin(resolve.resolve(load(recipe, overrides)))
    sys.exit(local.run_bench("workbench.worker.show_data", resolved.model_dump_json(), str(rows)))
