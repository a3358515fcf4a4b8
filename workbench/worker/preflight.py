"""The worst that a training will meet, taken before its first real step: what would run out at hour nine runs out now.

It changes nothing of the result: gradients are zeroed before the optimizer's step, which is taken at rate 0 without
weight decay and whose state is thrown away; random streams and the trainer's own counts are put back.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from transformers import TrainerCallback

from workbench import files, place
from workbench.catalog.suites import LmEval
from workbench.data.batches import heaviest
from workbench.evaluation import evaluate, harness
from workbench.evaluation.items import Item, TaskItems
from workbench.training import memory
from workbench.worker import disk, scoring
from workbench.worker.setup import Bench


class Preflight(TrainerCallback):  # type: ignore[misc]
    """Runs when the trainer has wrapped model and optimizer and takes the first step next."""

    def __init__(self, bench: Bench, trainer: Any, steps: int) -> None:
        self.bench, self.trainer, self.steps = bench, trainer, steps
        self.device = bench.resolved.target.device

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Disk, then an evaluation batch, then the heaviest micro-batches and an optimizer step.

        Raises:
            RunError: too little disk.
            TrainingError: memory ran out; names the stage.
        """
        bench, began = self.bench, time.monotonic()
        room = disk.planned(bench, self.trainer.model, self.steps)
        disk.check(room, bench.run.path)
        with _untouched_randomness(self.device):
            if bench.resolved.recipe.target.sharding != "fsdp":  # a spread model is not asked in its training form
                self._evaluate()
            lengths = self._train()
        peak = memory.peak_memory_bytes(self.device)
        memory.forget_peak(self.device)
        facts = {
            "longest_tokens": max(map(max, lengths)),
            "padded_tokens": max(len(one) * max(one) for one in lengths),
            "needed_disk_bytes": room.needed_bytes,
            "preflight_peak_memory_bytes": peak,
            "seconds": round(time.monotonic() - began, 3),
        }
        if place.here().is_main:
            files.write_json(bench.run.preflight, facts)
        bench.progress.say(
            f"pre-flight: the longest row ({max(map(max, lengths)):,} tokens) and the largest batches fit; "
            f"{disk.shown(peak)} at most, {disk.shown(room.needed_bytes)} of disk"
        )

    def _told(self, stage: str | None) -> contextlib.AbstractContextManager[None]:
        return memory.told(lambda: "pre-flight", self.bench.resolved.recipe, self.device, stage)

    def _evaluate(self) -> None:
        """One batch of every task's largest items. (Before the optimizer has state, as when a run is scored.)"""
        bench = self.bench
        if bench.suite is None:
            return
        asked = scoring.scorers(bench, self.trainer.model)
        size = bench.resolved.recipe.evaluation.batch_size
        for one in bench.items:
            if isinstance(one.task, LmEval):
                harness.find(one.task, Path(bench.suite.folder))
                continue
            with self._told("evaluation"):
                evaluate.score(_largest(one, size), bench.suite, asked[one.task.id])

    def _train(self) -> list[list[int]]:
        """Forward, backward and optimizer step; returns the lengths of the rows side by side in each batch."""
        trainer, rows = self.trainer, self.trainer.train_dataset
        kept = {name: copy.deepcopy(getattr(trainer, name)) for name in ("_metrics", "_total_train_tokens")}
        trainer.current_gradient_accumulation_steps = 1  # the trainer's loop sets it step by step
        sequences, lengths = lengths_of(rows)
        recipe = self.bench.resolved.recipe
        cut = getattr(trainer.step_collator, "collator", trainer.step_collator)  # inside of what deals a step out
        groups = heaviest(
            lengths,
            recipe.target.micro_batch_tokens // sequences,
            recipe.training.batch_size,
            cut.start_tokens // sequences,
            recipe.target.layout == "flattened",
        )
        with self._told(None):
            for group in groups:
                # every process takes the whole group: a step's rows are dealt out, so there are as many copies of it
                batches = trainer.step_collator([rows[at] for at in group] * place.here().world)
                (step,), count = trainer.get_batch_samples(iter([batches]), 1, trainer.args.device)
                trainer.training_step(trainer.model_wrapped, step, count)
        with self._told("optimizer step"):
            self._optimizer_step()
        for name, value in kept.items():
            setattr(trainer, name, value)
        return [[lengths[at] for at in group] * sequences for group in groups]

    def _optimizer_step(self) -> None:
        """Allocate the optimizer's state and take a step that moves nothing."""
        trainer = self.trainer
        optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # inside accelerate's wrapper
        if not self.bench.resolved.recipe.training.optimizer.startswith("paged"):  # those lie in the host's memory
            kept = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"], group["weight_decay"] = 0.0, 0.0
                for weight in group["params"]:
                    if weight.grad is not None:
                        weight.grad.zero_()
            optimizer.step()
            optimizer.state.clear()
            for group, (rate, decay) in zip(optimizer.param_groups, kept, strict=True):
                group["lr"], group["weight_decay"] = rate, decay
        trainer.model_wrapped.zero_grad()


def lengths_of(rows: Any) -> tuple[int, Sequence[int]]:
    """Of prepared rows: sequences that a row becomes, and the length of one, in tokens, by row."""

    def column(name: str) -> Any:
        return pc.list_value_length(rows.data.column(name)).to_numpy()

    if "input_ids" in rows.column_names:
        return 1, column("input_ids").tolist()
    return 2, (column("prompt_ids") + np.maximum(column("chosen_ids"), column("rejected_ids"))).tolist()


def _largest(one: TaskItems, batch_size: int) -> TaskItems:
    """The items that make the largest batch: the longest texts, fewer where each has several options."""

    def characters(item: Item) -> int:
        asked = sum(len(message.content) for message in (*item.shots, *item.messages))
        return asked + len(item.text) + max(map(len, item.options), default=0)

    options = max(len(item.options) for item in one.items)
    count = math.ceil(batch_size / max(1, options))
    return TaskItems(one.task, tuple(sorted(one.items, key=characters, reverse=True)[:count]))


@contextlib.contextmanager
def _untouched_randomness(device: str) -> Iterator[None]:
    """Put every random stream back to where it was."""
    python, of_numpy = random.getstate(), np.random.get_state()
    module = memory.accelerator(device)
    devices = [] if module is None else [module.current_device()]
    with torch.random.fork_rng(devices, device_type="cuda" if module is None else device):
        yield
    random.setstate(python)
    np.random.set_state(of_numpy)
