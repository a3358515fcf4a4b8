"""The steps of a run as its metrics.jsonl tells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench import files
from workbench.plan.cost import Work, training_flops
from workbench.runs.run import Run

Row = dict[str, Any]


def completing(run: Run) -> Callable[[Row], Row]:
    """Gives a line of metrics.jsonl the operations of all steps so far, which runs of before 0.5 do not tell step by
    step; where nothing is known of them, the line as it is."""
    work = Work(**files.read_json(run.training)["work"]) if run.training.exists() else None

    def complete(row: Row) -> Row:
        if "training_flops" in row or work is None:
            return row
        return row | {"training_flops": training_flops(work, row["tokens"], row["squared_lengths"])}

    return complete


def rows(run: Run) -> list[Row]:
    """All steps, each with the operations up to it."""
    complete = completing(run)
    return [complete(row) for row in files.read_jsonl(run.metrics)]
