"""train, eval, generate, data show: the verbs that start a bench process."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workbench import files
from workbench.errors import Problem, RunError, UserError
from workbench.launch import local
from workbench.plan.prediction import GIB, Correction
from workbench.recipe import pin, resolve, settings
from workbench.recipe.load import load
from workbench.recipe.resolved import Resolved
from workbench.runs import create, ledger, planner
from workbench.runs.planned import planned
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup


def train(recipe: Path, overrides: Sequence[str], root: Path, dry_run: bool = False) -> None:
    """Resolve, make or find the run, and bring it to its end; a dry run only says by what command."""
    console = terminal.console()
    resolved = resolve.resolve(load(recipe, overrides))
    if resolved.base.kind == "hub" or resolved.data.card.source.hub:
        console.print("looking up the base and the rows ...", style="dim")
    wanted = planned(resolved, root)
    if dry_run:
        run = wanted.open(root)
        local.prepare(run)
        print(_typed(local.worker_command(run)))  # alone and unwrapped, to be pasted or piped
        return
    known = wanted.find(root)
    if known and wanted.is_done(root):
        console.print(f"{markup(known.name)} is finished already; nothing to do")
        _show_result(console, known)
        return
    if not known:
        _refuse_misfit(wanted.resolved)
    older = None if known else create.nearest(root, wanted.resolved, wanted.facts)
    run = wanted.open(root)
    if older:
        console.print(markup(f"a new run: {', '.join(older[1])} differ from {older[0].name}"), style="dim")
    console.print(f"run {markup(str(run.path))}")
    console.print("loading the libraries ...", style="dim")
    status = local.train(run)
    if status:
        sys.exit(status)
    _show_result(console, run)


def _refuse_misfit(resolved: Resolved) -> None:
    """Refuse what cannot fit even in its usual step with little overhead.

    Raises:
        RunError: says what is needed, what is there, and what makes it fit.
    """
    try:
        found = planner.predicted(resolved)
    except UserError:  # a base that cannot be counted at the desk: the pre-flight on the device will tell
        return
    has, needed = found.target.memory_bytes, found.device_bytes
    if has is None or needed.low <= has or found.lengths_source == "maximum":
        return  # without the rows' lengths nothing is proved: the pre-flight tries the real ones on the device
    fix = next(iter(planner.made_to_fit(resolved, Correction())), None)
    advice = "take a smaller base or a larger target" if fix is None else settings.options(fix.settings)
    raise RunError(
        Problem(
            "target",
            f"{resolved.target.name} has {has / GIB:.1f} GiB a device, and this needs {needed.low / GIB:.1f} to "
            f"{needed.high / GIB:.1f} (`workbench plan` shows of what)",
            f"what makes it fit: {advice}",
        )
    )


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
    root = run.path.parent
    elsewhere = "" if root.resolve() == Path("runs").resolve() else f" --runs {shlex.quote(str(root))}"
    return markup(f"workbench show {shlex.quote(run.name)}{elsewhere}")


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
    status = local.train(run, "--suite", suite, "--from", str(Path.cwd()))
    if status:
        sys.exit(status)


def generate(name: str, prompt: str | None, tokens: int, root: Path) -> None:
    """Answer prompts with the run's result and with its base."""
    run = create.named_run(root, name)
    if not run.is_finished():
        raise RunError(Problem(run.name, "is not finished", f"workbench train {run.recipe_file} finishes it"))
    prompts = _prompts(prompt)
    with tempfile.TemporaryDirectory() as folder:  # a command line takes only so many bytes
        asked = Path(folder) / "prompts.json"
        asked.write_text(json.dumps(prompts), encoding="utf-8")
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
