"""The verbs by which results travel; as in `cli`, each imports what it needs when it is called."""

from __future__ import annotations

import typer

from workbench.arguments import RUNS, Root, RunName

app = typer.Typer()


@app.command()
def reproduce(run: RunName, runs: Root = RUNS) -> None:
    """Train a finished run again from its directory, as a run of its own, and say whether it comes out the same.

    Refused where base, rows, template or suite are not what they were; other versions are only said. Status 0 where
    every task's new value lies inside the run's 95 % interval, 3 where one does not. The same command again goes on
    with a stopped reproduction, and of a finished one gives the verdict without training; to train once more, remove
    it first (`workbench runs rm`). Other repeats of the recipe, such as an A/A arm, are left alone.
    """
    from workbench.verbs import reproduce as verb

    verb.reproduce(run, runs)
