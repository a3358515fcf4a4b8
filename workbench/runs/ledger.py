"""All run directories under one root, read as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import Problem, RunError
from workbench.runs import lock
from workbench.runs.run import Run

_DAMAGE = (RunError, OSError, KeyError, TypeError, ValueError)
"""What reading files that somebody else wrote into may raise."""
LEFT_BEHIND = "left-behind.jsonl"
"""Identities of finished runs that stayed where these runs come from, a line each: they tell how much was tried."""
_END_BYTES = 1 << 14
"""How much of a metrics file's end is looked at; a line of it has a few hundred bytes."""


@dataclass(frozen=True)
class Entry:
    """One run as a row of the ledger."""

    run: Run
    state: str
    """finished, running, failed, stopped or damaged."""
    base: str
    method: str
    seed: int | None
    step: int | None
    scores: dict[str, float]
    """`suite/task` -> the primary metric's value."""


def entries(root: Path) -> Iterator[Entry]:
    """The runs under `root`, by name; one whose files are damaged says so, and does not hide the others."""
    for path in sorted(root.glob("*/resolved.json")):
        run = Run(path.parent)
        try:
            yield entry(run)
        except _DAMAGE:
            yield Entry(run, "damaged", "-", "-", None, None, {})


def identities(root: Path) -> Iterator[dict[str, Any]]:
    """The identity of every finished run under `root`, and of those that a packed part of a ledger left behind."""
    for path in sorted(root.glob("*/status.json")):
        yield files.read_json(Run(path.parent).identity_file)
    yield from files.read_jsonl(root / LEFT_BEHIND)


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
    """finished, running, failed, stopped or damaged."""
    try:
        return _state(run)
    except _DAMAGE:
        return "damaged"


def _state(run: Run) -> str:
    if lock.is_held(run):
        return "running"
    if run.is_finished():
        return "finished"
    attempts = list(files.read_jsonl(run.attempts))
    failed = bool(attempts) and attempts[-1]["event"] == "end" and attempts[-1].get("status") not in (0, 75, 130)
    return "failed" if failed else "stopped"


def last_step(run: Run) -> int | None:
    """The last step that was logged.

    Raises:
        RunError: the last whole line is not JSON.
    """
    rows = last_rows(run, 1)
    return int(rows[-1]["step"]) if rows else None


def last_rows(run: Run, count: int) -> list[dict[str, Any]]:
    """The metrics of the last steps, at most so many. Only the file's end is read: a ledger holds many runs, and a run
    many lines.

    Raises:
        RunError: one of these lines is not JSON.
    """
    try:
        with run.metrics.open("rb") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - _END_BYTES)
            stream.seek(start)
            lines = stream.read().split(b"\n")
    except FileNotFoundError:
        return []
    whole = lines[1 if start else 0 : -1]  # what stands before the first and after the last newline may be torn
    return [files.parse_object(line, str(run.metrics)) for line in whole[-count:]]


def base_of(run: Run) -> Run | None:
    """The run that scored the untouched base which this run starts from, where it is in the same ledger."""
    facts = files.read_json(run.identity_file)
    held = facts["method"].get("quantization", "nf4") if facts["method"]["name"] == "qlora" else "none"
    double = facts["method"].get("double_quantization", True)
    for path in sorted(run.path.parent.glob("base-*/identity.json")):
        other = files.read_json(path)
        same = all(other[key] == facts[key] for key in ("base", "init", "dtype", "device"))
        same = same and other["method"].get("double_quantization", True) == double and not other["repeat"]
        if same and other["method"]["name"] == "none" and other["method"].get("quantization", "none") == held:
            return Run(path.parent)
    return None


def start_of(run: Run) -> Run | None:
    """The run whose adapter this one's training started from: where its recipe says, else beside it, as in a ledger that
    was moved as a whole. None: it started from none."""
    start = files.read_json(run.resolved_file)["recipe"]["method"].get("init_from")
    if start is None:
        return None
    path = Path(start)
    path = path.parent if path.name == run.adapter.name else path
    return Run(path if path.exists() else run.path.parent / path.name)
