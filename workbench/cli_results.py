"""The verbs by which results travel; as in `cli`, each imports what it needs when it is called."""

from __future__ import annotations

import typer

app = typer.Typer()
