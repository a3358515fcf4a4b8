"""All run directories under one root, read as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.runs import lock
from workbench.runs.run import Run


@dataclass(frozen=True)
class Entry:
    """One run as a row of the ledger."""

    run: Run
    state: str
    """finished, running, failed or stopped."""
    base: str
    method: str
    seed: int
    step: int | None
    scores: dict[str, float]
    """`suite/task` -> the primary metric's value."""


def entries(root: Path) -> Iterator[Entry]:
    """The runs under `root`, by name."""
    for path in sorted(root.glob("*/resolved.json")):
        yield entry(Run(path.parent))


def entry(run: Run) -> Entry:
    """One run as a row."""
    resolved: dict[str, Any] = files.read_json(run.resolved_file)
    recipe = resolved["recipe"]
    return Entry(
        run=run,
        state=state(run),
        base=resolved["base"]["row"] or Path(resolved["base"]["location"]).name,
        method=recipe["method"]["name"] + (" from scratch" if recipe["base"]["init"] == "random" else ""),
        seed=recipe["seed"],
        step=last_step(run),
        scores={
            f"{suite}/{task}": result["value"]
            for suite in run.suites()
            for task, result in files.read_json(run.results(suite))["tasks"].items()
        },
    )


def state(run: Run) -> str:
    """finished, running, failed or stopped."""
    if lock.is_held(run):
        return "running"
    if run.is_finished():
        return "finished"
    attempts = list(files.read_jsonl(run.attempts))
    failed = bool(attempts) and attempts[-1]["event"] == "end" and attempts[-1].get("status") not in (0, 75, 130)
    return "failed" if failed else "stopped"


def last_step(run: Run) -> int | None:
    """The last step that was logged."""
    steps = [row["step"] for row in files.read_jsonl(run.metrics)]
    return steps[-1] if steps else None


def base_of(run: Run) -> Run | None:
    """The run that scored the untouched base which this run starts from, where it is in the same ledger."""
    facts = files.read_json(run.identity_file)
    held = facts["method"].get("quantization", "nf4") if facts["method"]["name"] == "qlora" else "none"
    for path in sorted(run.path.parent.glob("base-*/identity.json")):
        other = files.read_json(path)
        same = all(other[key] == facts[key] for key in ("base", "init", "dtype", "device"))
        if same and other["method"]["name"] == "none" and other["method"].get("quantization", "none") == held:
            return Run(path.parent)
    return None
