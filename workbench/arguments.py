"""What verbs of the command line share: the types of their arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field: --set method.rank=8")
]
Root = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run directories are kept.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name (or its beginning), or its directory.")]
Confounds = Annotated[
    bool, typer.Option("--allow-confounds", help="Show numbers although runs differ in more than is declared, marked.")
]
RUNS = Path("runs")
"""Where run directories are kept, if nothing else is said."""
