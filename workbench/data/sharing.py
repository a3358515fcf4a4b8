"""A step's rows dealt out to the processes of a run. Which rows make a step does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from workbench.plan.cutting import deal

Rows = Sequence[dict[str, Any]]
Collator = Callable[[Rows], list[dict[str, Any]]]


class SharedCollator:
    """One process's micro-batches of a step, and behind them one that stands for no row and counts nothing: what a
    process without rows takes part in the exchange of gradients with."""

    def __init__(self, collator: Collator, rank: int, world: int) -> None:
        self.collator, self.rank, self.world = collator, rank, world

    def __call__(self, rows: Rows) -> list[dict[str, Any]]:
        lengths = [_length(row) for row in rows]
        mine = [rows[at] for at in deal(lengths, self.world)[self.rank]]
        shortest = rows[min(range(len(rows)), key=lambda at: lengths[at])]
        idle = self.collator([shortest])[0] | {"rows": [], "text_bytes": 0}
        return [*(self.collator(mine) if mine else []), idle]


def _length(row: dict[str, Any]) -> int:
    """Tokens of a row; of a pair, with the longer answer."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
