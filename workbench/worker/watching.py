"""Real worker processes on a run in miniature: watched through the files that they leave, one of them killed."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from workbench import seals
from workbench.errors import Problem
from workbench.launch import local
from workbench.runs.run import Run
from workbench.worker.stage_lines import Lines

_PAUSE_SECONDS = 0.01
_SHOWN_LINES = 12
_GOING_ON = re.compile(r"going on from step (\d+)")

Milestones = Sequence[tuple[str, Callable[[], bool]]]
"""Stages in order, each with how its end shows."""


def first_half(run: Run, base: bool) -> Milestones:
    """Up to the first whole checkpoint.

    Args:
        base: whether the untouched base is scored first.
    """
    scored = ("base scored", lambda: any(Run(path).is_finished() for path in run.path.parent.glob("base-*")))
    return [
        *([scored] if base else []),
        ("prepare", run.data.exists),
        ("train", lambda: run.metrics.exists() and b"\n" in run.metrics.read_bytes()),
        ("checkpoint", lambda: any(run.checkpoints.glob(f"*/{seals.SEAL}"))),
    ]


def second_half(run: Run, suite: str | None) -> Milestones:
    """From the checkpoint to the end."""
    scored = [("evaluate", run.results(suite).exists)] if suite else []
    return [("continue", run.training.exists), ("save", run.adapter.exists), ("prove", run.proof.exists), *scored]


def follow(run: Run, folder: Path, milestones: Milestones, lines: Lines, kill: bool) -> bool:
    """Start a worker on the run and tell its stages as they end; with `kill`, kill -9 it at the last of them.

    Args:
        folder: of the rehearsal: the worker's own cache and output.

    Returns:
        Whether all went well.
    """
    temporary = folder / "temporary"  # a killed process leaves what it made there
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {
        "WORKBENCH_CACHE": str(folder / "cache"),
        "TMPDIR": str(temporary),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    said = folder / "output.txt"
    waiting = list(milestones)
    since = time.monotonic()
    with said.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            local.command("workbench.worker", str(run.path)), env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            ended = False
            while waiting and not ended:
                ended = process.poll() is not None  # asked before the files: what it left last is seen
                while waiting and waiting[0][1]():
                    name, now = waiting.pop(0)[0], time.monotonic()
                    lines.ok(name, now - since, _note(run, name))
                    since = now
                time.sleep(_PAUSE_SECONDS)
            if kill:
                process.kill()
            status = process.wait()
        finally:
            process.kill()
            process.wait()
    if not waiting and (kill or status == 0):
        return True
    name = waiting[0][0] if waiting else "finish"
    lines.fail(name, time.monotonic() - since, [Problem(f"worker (exit {status})", _error_in(said))])
    return False


def _note(run: Run, stage: str) -> str:
    if stage == "checkpoint":
        return "the worker is killed (-9) here"
    found = _GOING_ON.search(run.log.read_text(encoding="utf-8")) if stage == "continue" else None
    return f"a second worker went on from step {found[1]}" if found else ""


def _error_in(said: Path) -> str:
    """What the worker said was wrong: from its first error on, else its last words."""
    lines = [line.rstrip() for line in said.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    first = next((at for at, line in enumerate(lines) if line.startswith("error ")), max(0, len(lines) - _SHOWN_LINES))
    return "\n".join(line.removeprefix("error ") for line in lines[first : first + _SHOWN_LINES]) or "it said nothing"
