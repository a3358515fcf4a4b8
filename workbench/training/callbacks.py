"""What is recorded of every step, and shown of it: of all processes together, by the main one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from workbench import collective, files, place
from workbench.plan.cost import Work, training_flops
from workbench.progress import Bar
from workbench.training.energy import Meter
from workbench.training.memory import peak_memory_bytes
from workbench.training.steps import WholeSteps

TOTALS = ("examples", "tokens", "counted_tokens", "text_bytes", "squared_lengths", "seconds", "device_seconds")
"""Fields of a metrics row that grow over the run."""


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Appends one line a step to metrics.jsonl and moves the progress bar."""

    def __init__(
        self, path: Path, bar: Bar, work: Work, device: str, meter: Meter, after_step: Callable[[], None]
    ) -> None:
        """Args:
        after_step: called once a row is written.
        """
        self.path, self.bar, self.work, self.device, self.meter = path, bar, work, device, meter
        self.after_step = after_step
        self.trainer: WholeSteps | None = None
        rows = list(files.read_jsonl(path))
        last = rows[-1] if rows else {}
        self.totals: dict[str, float] = {name: last.get(name, last.get("seconds", 0)) for name in TOTALS}
        self.joules: float | None = rows[-1].get("joules") if rows else 0.0
        """Energy of all steps; None as soon as one of them was not measured, for then nobody knows it."""
        self.peak_memory_bytes = max((row["peak_memory_bytes"] for row in rows), default=0)
        """The most of all processes that walked a part of the run."""
        self._since = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Start the clock and the meter."""
        self._since = time.monotonic()
        self.meter.taken()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Called once a step (logging_steps=1) and once at the end, where there is no `loss`."""
        if logs is None or "loss" not in logs or self.trainer is None:
            return
        facts = self.trainer.facts
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        self.totals["examples"] += facts.examples
        self.totals["tokens"] += facts.tokens
        self.totals["counted_tokens"] += facts.counted
        self.totals["text_bytes"] += facts.text_bytes
        self.totals["squared_lengths"] += facts.squared_lengths
        self.totals["seconds"] = round(self.totals["seconds"] + seconds, 4)
        measured = collective.gather((self.meter.taken(), peak_memory_bytes(self.device)))
        self.totals["device_seconds"] = round(self.totals["device_seconds"] + seconds * len(measured), 4)
        joules = [joules for joules, _ in measured if joules is not None]
        is_known = self.joules is not None and len(joules) == len(measured)
        self.joules = round((self.joules or 0.0) + sum(joules), 3) if is_known else None
        gradient = float(logs.get("grad_norm") or 0.0)
        self.peak_memory_bytes = max(self.peak_memory_bytes, *(peak for _, peak in measured))
        if not place.here().is_main:
            return
        row = {
            "step": state.global_step,
            "epoch": round(float(state.epoch or 0.0), 6),
            "loss": facts.loss,
            "learning_rate": float(logs["learning_rate"]),
            "gradient_norm": gradient if math.isfinite(gradient) else None,
            **self.totals,
            "training_flops": training_flops(self.work, self.totals["tokens"], self.totals["squared_lengths"]),
            "joules": self.joules,
            "peak_memory_bytes": self.peak_memory_bytes,
        }
        files.append_line(self.path, row)
        self.after_step()
        rate = facts.tokens / seconds if seconds else 0.0
        memory = row["peak_memory_bytes"] / 2**30
        self.bar.advance(f"loss {facts.loss:.4f}  {rate:,.0f} tokens/s  {memory:.1f} GiB")


def cut_after(path: Path, step: int) -> None:
    """Leave out the lines of metrics.jsonl after a restored checkpoint: they are walked again."""
    kept = [row for row in files.read_jsonl(path) if row["step"] <= step]
    if path.exists():
        files.write_jsonl(path, kept)
