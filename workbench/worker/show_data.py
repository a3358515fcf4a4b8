"""`python -m workbench.worker.show_data RESOLVED ROWS`: rows as the model sees them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from workbench import bench
from workbench.visible import visible

_BAR_WIDTH = 40


def main() -> int:
    """Tokenise (or take from the cache) and show."""

    def work() -> None:
        bench.quiet_libraries()
        from workbench.progress import Progress
        from workbench.recipe.resolved import Resolved
        from workbench.runs.run import Run
        from workbench.worker.setup import rows_of, set_up

        resolved = Resolved.model_validate_json(sys.argv[1], strict=False)
        with tempfile.TemporaryDirectory() as folder, Progress() as progress:
            ready = set_up(Run(Path(folder)), resolved, resolved.suite, progress)
            prepared = rows_of(ready)
        console = Console(highlight=False)
        for at in range(min(int(sys.argv[2]), len(prepared.rows))):
            _row(console, ready.tokenizer, prepared.rows[at])
        _histogram(console, prepared.account)

    return bench.ended(work)


def _row(console: Console, tokenizer: Any, row: dict[str, Any]) -> None:
    console.rule(Text(visible(row["row"])), align="left", style="dim")
    if "labels" in row:
        console.print(_coloured(tokenizer, row["input_ids"], [label >= 0 for label in row["labels"]]))
        return
    for side in ("chosen", "rejected"):
        ids = row["prompt_ids"] + row[f"{side}_ids"]
        console.print(Text(f"{side}: ", style="bold"), end="")
        console.print(_coloured(tokenizer, ids, [at >= len(row["prompt_ids"]) for at in range(len(ids))]))


def _coloured(tokenizer: Any, ids: list[int], counted: list[bool]) -> Text:
    """Counted tokens green on the text's own lines, the others dim; runs of like tokens are decoded together."""
    text = Text()
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or counted[at] != counted[start]:
            text.append(visible(tokenizer.decode(ids[start:at])), style="green" if counted[start] else "dim")
            start = at
    return text


def _histogram(console: Console, account: dict[str, Any]) -> None:
    lengths = {int(edge): count for edge, count in account["lengths_up_to"].items()}
    most = max(lengths.values())
    console.rule("tokens a row", align="left", style="dim")
    for edge, count in lengths.items():
        console.print(f"  up to {edge:>6}  {'#' * max(1, round(_BAR_WIDTH * count / most))} {count:,}")
    console.print(
        f"{account['rows_in']:,} rows in, {account['rows_trained']:,} trained, {account['examples']:,} examples, "
        f"{account['counted_tokens']:,} of {account['tokens']:,} tokens counted, longest {account['longest_tokens']:,}"
    )
    console.print("[green]counted in the loss[/green]  [dim]not counted[/dim]")


if __name__ == "__main__":
    sys.exit(main())
