"""The verbs by which results travel; as in `cli`, each imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.arguments import RUNS, Root, RunName

app = typer.Typer()


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
