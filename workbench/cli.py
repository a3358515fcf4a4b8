"""The verbs. Each imports what it needs when it is called: `--help` answers at once, and nothing here imports torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench import cli_cluster, cli_results
from workbench.arguments import RUNS, Confounds, Overrides, RecipePath, Root, RunName

app = typer.Typer(
    name="workbench",
    help="A fine-tuning workbench: a recipe in, a proven adapter and the evidence for it out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _listed(words: list[str] | None) -> list[str]:
    """Names given one by one or with commas."""
    return [name.strip() for word in words or [] for name in word.split(",") if name.strip()]


def _version(asked: bool) -> None:
    if asked:
        from workbench.verbs import desk

        desk.version()
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A fine-tuning workbench: a recipe in, a proven adapter and the evidence for it out."""


@app.command()
def train(
    recipe: RecipePath,
    set_: Overrides = None,
    runs: Root = RUNS,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Make the run's directory, print the worker's command line, start nothing."),
    ] = False,
) -> None:
    """Train a recipe, prove the result and score it; the same command goes on where a stopped run left off."""
    from workbench.verbs import train as verb

    verb.train(recipe, set_ or [], runs, dry_run)


@app.command()
def check(recipe: RecipePath, set_: Overrides = None) -> None:
    """Say everything that is wrong with a recipe, without starting anything."""
    from workbench.verbs import desk

    desk.check(recipe, set_ or [])


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Compile something as well (minutes).")] = False,
) -> None:
    """Say what this machine has, what works on it (proved by doing it), and what is missing with its cure."""
    from workbench.verbs import doctor as verb

    verb.doctor(json, thorough)


@app.command()
def rehearse(
    recipe: RecipePath,
    set_: Overrides = None,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep what was made, in a new directory.")] = None,
    runs: Root = RUNS,
) -> None:
    """Go through every stage of a run in about a minute, on a small twin of the base with the longest of the real rows;
    all rows and items are read. Nothing stays but the tokenised rows, in the cache."""
    from workbench.verbs import rehearse as verb

    verb.rehearse(recipe, set_ or [], runs, keep)


@app.command()
def explain(
    field: Annotated[str, typer.Argument(help="Such as method.rank, recipe, study, or profile.")],
) -> None:
    """Say what a field of a recipe (or a study) means, its default and what it may be."""
    from workbench.verbs import explain as verb

    verb.explain(field)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from workbench.verbs import explain as verb

    verb.schema()


@app.command()
def bases(
    words: Annotated[list[str] | None, typer.Argument(help="Show only rows that hold all these words.")] = None,
    most: Annotated[float | None, typer.Option("--most", help="At most so many billion parameters.")] = None,
) -> None:
    """List the bases of the catalog: size, context, licence and what it restricts."""
    from workbench.verbs import desk

    desk.bases(words or [], most)


@app.command()
def plan(
    recipe: RecipePath,
    set_: Overrides = None,
    targets: Annotated[
        list[str] | None, typer.Option("--targets", metavar="NAMES", help="A line for each target: all, or names.")
    ] = None,
    bases: Annotated[
        list[str] | None, typer.Option("--bases", metavar="NAMES", help="A line for each base: all, or names.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", metavar="NAME", help="Short for --set target=NAME.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Trace a step at its true shapes as well (a minute).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    runs: Root = RUNS,
) -> None:
    """Say what a recipe will take, before anything is fetched or started: memory, time, money, energy, disk."""
    from workbench.verbs import plan as verb

    chosen = [*(set_ or []), *([f"target.name={target}"] if target else [])]
    if targets or bases:
        verb.matrix(recipe, chosen, _listed(targets), _listed(bases), as_json)
    else:
        verb.plan(recipe, chosen, runs, exact, as_json)


@app.command()
def targets(
    words: Annotated[list[str] | None, typer.Argument(help="Show only rows that hold all these words.")] = None,
) -> None:
    """List the hardware of the catalog: memory, bandwidth, rates, power and price."""
    from workbench.verbs import desk

    desk.targets(words or [])


@app.command()
def rules(
    words: Annotated[list[str] | None, typer.Argument(help="Show only rules that hold all these words.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/rules.md.")] = False,
) -> None:
    """List the combinations that are refused or unwise: why, what to do instead, and where that was read."""
    from workbench.verbs import rules as verb

    verb.rules(words or [], markdown)


@app.command(name="runs")
def runs_(
    action: Annotated[str | None, typer.Argument(help="rm RUN..., or prune (removes what was never finished).")] = None,
    names: Annotated[list[str] | None, typer.Argument(help="Runs to remove.")] = None,
    planner: Annotated[bool, typer.Option("--planner", help="Show how far the planner was off.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="A live table, with the cluster's queue.")] = False,
    runs: Root = RUNS,
) -> None:
    """List the runs; remove some (`runs rm RUN`), or all that never finished (`runs prune`)."""
    from workbench.verbs import ledger

    if planner:
        ledger.planner_errors(runs)
    elif watch:
        from workbench.verbs import watch as verb

        verb.watch(runs)
    else:
        ledger.runs(action, names or [], runs)


@app.command()
def show(run: RunName, runs: Root = RUNS) -> None:
    """Show one run: what it is made of, what it got, what it cost."""
    from workbench.verbs import ledger

    ledger.show(run, runs)


@app.command()
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file, or the name of a shipped one.")],
    set_: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only list the runs, with their cost.")] = False,
    judge: Annotated[bool, typer.Option("--judge", help="Train nothing: judge the runs that are finished.")] = False,
    allow_confounds: Confounds = False,
    runs: Root = RUNS,
) -> None:
    """Train and score every arm over every seed, and say which is better; the same command goes on after a stop."""
    from workbench.verbs import study as verb

    verb.study(file, set_ or [], plan, judge, allow_confounds, runs)


@app.command()
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="The first is what the others are held against.")
    ],
    suite: Annotated[str | None, typer.Option(help="Which suite; by default one that all were scored on.")] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="FIELD", help="What is meant to differ: --vary method,base.init"),
    ] = None,
    allow_confounds: Confounds = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the report and verdict.json go.")] = None,
    runs: Root = RUNS,
) -> None:
    """Put finished runs side by side: paired differences, intervals, and a word for each. Runs of one recipe with
    several seeds are one arm."""
    from workbench.verbs import compare as verb

    verb.compare(names, suite, vary or [], allow_confounds, runs, out)


@app.command(name="eval")
def evaluate(
    run: RunName, suite: Annotated[str, typer.Option(help="A suite's name or file.")], runs: Root = RUNS
) -> None:
    """Score a finished run on another suite."""
    from workbench.verbs import train as verb

    verb.evaluate(run, suite, runs)


@app.command()
def generate(
    run: RunName,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; without it, each line of standard input.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer, tokens.")] = 128,
    runs: Root = RUNS,
) -> None:
    """Answer a prompt with the run's result and with its base, side by side."""
    from workbench.verbs import train as verb

    verb.generate(run, prompt, tokens, runs)


data_app = typer.Typer(help="Look at the rows of a recipe.", no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(data_app, name="data")


@data_app.command(name="show")
def data_show(
    recipe: RecipePath,
    rows: Annotated[int, typer.Option(min=0, help="How many rows.")] = 3,
    set_: Overrides = None,
) -> None:
    """Show rows as the model sees them, counted and not counted tokens apart, and the length histogram."""
    from workbench.verbs import train as verb

    verb.data_show(recipe, rows, set_ or [])


for _more in (cli_cluster.app, cli_results.app):
    app.add_typer(_more)  # without a name: its verbs stand beside the others


def main() -> None:
    """Entry point of the `workbench` command."""
    from workbench import bench

    sys.exit(bench.alone(lambda: bench.ended(_call)))


def _call() -> None:
    """Run the verb. Typer leaves without a word when it is interrupted; what interrupted it is told by our caller."""
    try:
        app()
    except SystemExit as leaving:
        interrupted = leaving.__context__.__cause__ if leaving.__context__ else None
        if isinstance(interrupted, KeyboardInterrupt):
            raise interrupted from None
        raise
