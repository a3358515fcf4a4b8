"""The verbs by which results travel; as in `cli`, each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.arguments import RUNS, Overrides, Root, RunName

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


@app.command()
def pack(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY|RUN...", help="A study's file or name, or runs by name.")
    ] = None,
    set_: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it; else packs/NAME.tar.gz in the runs' folder."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Hold a pack against its own list; write nothing.")
    ] = None,
    runs: Root = RUNS,
) -> None:
    """Put everything that is needed to check or to go on with a study, or runs, into one archive.

    In it: the hand-written files, rows, templates and local bases (what is on the hub by its commit only), the runs and
    those of their bases, verdict and report, PACK.json with the hash of every file, and a README with the commands. Not
    in it: what trackers keep, locks, checkpoints of finished runs. It is refused where a secret of this machine stands
    in any of it. The same things packed twice are the same bytes.
    """
    from workbench.verbs import pack as verb

    if check is not None:
        verb.check(check, names or [])
    else:
        verb.pack(names or [], set_ or [], out, runs)


@app.command()
def export(
    run: RunName,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; by default exports/RUN beside the runs.")
    ] = None,
    gguf: Annotated[
        str | None, typer.Option(metavar="TYPE", help="A GGUF file too, by llama.cpp's tools: f16, q8_0, q4_k_m, ...")
    ] = None,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="No merged model.")] = False,
    runs: Root = RUNS,
) -> None:
    """Write a finished run for others: the adapter, the merged model, cards that say what they are, and a report on
    whether they are the same model. Status 3 where one is not."""
    from workbench.verbs import export as verb

    verb.export(run, out, gguf, adapter_only, runs)
