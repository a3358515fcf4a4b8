"""The verbs by which results travel; as in `cli`, each imports what it needs when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.arguments import RUNS, Overrides, Root

app = typer.Typer()


@app.command()
def publish(
    name: Annotated[str, typer.Argument(metavar="RUN|STUDY", help="A finished run, or a study with a verdict.")],
    set_: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; of a study, write down its comparison views.")
    ] = False,
    runs: Root = RUNS,
) -> None:
    """Show a finished run (or a study, its runs and its comparison views) in W&B, or in the trackers that its recipe
    names or --set does (tracking.tensorboard={}), from its directory alone. Twice gives the same."""
    from workbench.verbs import publish as verb

    verb.publish(name, set_ or [], dry_run, runs)
