"""The verbs for clusters; as in `cli`, each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.arguments import RUNS, Confounds, Overrides, Root, RunName

app = typer.Typer()


@app.command()
def prefetch(
    file: Annotated[
        Path, typer.Argument(metavar="RECIPE|STUDY", help="A recipe or study file, or the name of a shipped one.")
    ],
    set_: Overrides = None,
    runs: Root = RUNS,
) -> None:
    """Bring all that a recipe (or every arm of a study) reads from the hub into the store (HF_HOME), hashed and proved:
    base, tokenizer, rows, evaluation sets. Jobs then need no network (HF_HUB_OFFLINE=1). Called again, it verifies."""
    from workbench.verbs import prefetch as verb

    verb.prefetch(file, set_ or [], runs)


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(metavar="RECIPE|STUDY", help="A recipe or a study.")],
    set_: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the job's script, hand nothing in.")] = False,
    time: Annotated[
        str | None, typer.Option("--time", metavar="HH:MM:SS", help="Another limit than the profile's.")
    ] = None,
    allow_confounds: Confounds = False,
    runs: Root = RUNS,
) -> None:
    """Hand a run (or the missing runs of a study, and its verdict) to Slurm, with the cluster profile of its target."""
    from workbench.verbs import submit as verb

    verb.submit(file, set_ or [], runs, dry_run, time, allow_confounds)


@app.command()
def cancel(run: RunName, runs: Root = RUNS) -> None:
    """Stop a run, queued or running: it keeps the step in hand, and can be gone on with."""
    from workbench.verbs import watch as verb

    verb.cancel(run, runs)


@app.command()
def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    runs: Root = RUNS,
) -> None:
    """Print what a run (and its newest job) said."""
    from workbench.verbs import watch as verb

    verb.logs(run, follow, runs)
