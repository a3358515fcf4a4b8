"""One optimizer step as we define it, on top of TRL's trainers.

The trainer is handed whole steps (every row of a step, already cut into micro-batches), so which rows make a step never
depends on memory or devices. Every micro-batch's loss is a sum divided by the step's own count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from trl import DPOTrainer, SFTTrainer

from workbench import saving
from workbench.data.batches import StepSampler
from workbench.data.rendering import IGNORED
from workbench.errors import Problem, TrainingError
from workbench.training import checkpoints
from workbench.training.head import CountedHead


@dataclass
class StepFacts:
    """What the last step was made of."""

    loss: float = 0.0
    """Mean over its counted tokens (pairs for dpo)."""
    examples: int = 0
    tokens: int = 0
    """Padding left out."""
    counted: int = 0
    """Counted tokens (pairs for dpo)."""
    text_bytes: int = 0
    """UTF-8 bytes of the counted text."""
    squared_lengths: float = 0.0
    """Sum of squared sequence lengths."""


class _StepLoader(DataLoader[Any]):
    """A loader that passes the epoch on to its sampler: the trainer asks only loaders (and what it wraps itself)."""

    batch_sampler: StepSampler

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch."""
        self.batch_sampler.set_epoch(epoch)


class WholeSteps:
    """Mixed in before a TRL trainer."""

    step_sampler: StepSampler
    step_collator: Any
    facts: StepFacts
    train_dataset: Any
    accelerator: Any
    args: Any
    state: Any

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Whole steps in the recipe's order; its own generator, so that no other random stream is touched."""
        return _StepLoader(
            self.train_dataset,
            batch_sampler=self.step_sampler,
            collate_fn=self.step_collator,
            generator=torch.Generator().manual_seed(0),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """One step, and the count that its loss is divided by."""
        step = next(epoch_iterator)
        self.facts = StepFacts()
        for batch in step:
            _count(batch, self.facts)
        count = torch.tensor(self.facts.counted, device=device)
        return [step], self.accelerator.gather(count).sum()

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of every micro-batch of the step.

        Raises:
            TrainingError: the loss is not finite; names the step and the rows of that micro-batch.
        """
        total = torch.zeros((), device=self.args.device)
        for at, batch in enumerate(inputs):
            rows = batch.pop("rows")
            del batch["text_bytes"]
            more = at < len(inputs) - 1
            with self.accelerator.no_sync(model) if more else nullcontext():
                loss = super().training_step(  # type: ignore[misc]
                    model, batch, num_items_in_batch
                )
            if not torch.isfinite(loss):
                raise TrainingError(
                    Problem(
                        f"step {self.state.global_step + 1}",
                        f"the loss is {float(loss)}, in the rows " + ", ".join(rows[:8]),
                        "lower training.learning_rate, or look at these rows",
                    )
                )
            total += loss
        self.facts.loss = float(total)
        return total

    def floating_point_ops(self, inputs: Any) -> int:
        """Not the trainer's estimate (it counts 6 N for every method): workbench.plan.cost counts."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The library's checkpoint (without TRL's model card), then our seal over all of it."""
        with saving.told(Path(self.args.output_dir)):
            Trainer._save_checkpoint(self, model, trial)
        checkpoints.seal_newest(self.args.output_dir, self.state.global_step)


def _count(batch: dict[str, Any], facts: StepFacts) -> None:
    if "completion_mask" in batch:
        lengths = batch["attention_mask"].sum(dim=1)
        facts.counted += len(batch["rows"])
    elif "attention_mask" in batch:
        lengths = batch["attention_mask"].sum(dim=1)
        facts.counted += int((batch["labels"][:, 1:] != IGNORED).sum())
    else:
        starts = (batch["position_ids"][0] == 0).nonzero().flatten()
        ends = torch.cat([starts[1:], torch.tensor([batch["position_ids"].shape[1]])])
        lengths = ends - starts
        facts.counted += int((batch["labels"] != IGNORED).sum())
    facts.examples += len(batch["rows"])
    facts.text_bytes += batch["text_bytes"]
    facts.tokens += int(lengths.sum())
    facts.squared_lengths += float((lengths.double() ** 2).sum())


class _CountedSft(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with our head."""

    head: CountedHead

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The micro-batch's share of the step's mean loss. (TRL's own also gathers entropy, accuracy and token counts,
        which stops an accelerator four times a micro-batch.)"""
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        loss, balance = self.head(model, inputs, num_items_in_batch)
        loss *= self.accelerator.num_processes  # the count is over all processes, whose gradients are averaged
        if balance is not None:
            loss += self.router_aux_loss_coef * balance
        return loss


class CausalTrainer(WholeSteps, _CountedSft):
    """Next-token training on rows of ids and labels (sft and pretrain)."""


class PreferenceTrainer(WholeSteps, DPOTrainer):  # type: ignore[misc]
    """DPO on rows of ids; the reference log-probabilities stand in the rows already."""

    def _prepare_dataset(self, dataset: Any, *rest: Any, **named: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *rest: Any, **named: Any) -> Any:
        return dataset

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's mean over the micro-batch's pairs, weighted so that a step's micro-batches sum to its mean."""
        pairs = inputs["input_ids"].shape[0] // 2
        loss: torch.Tensor = super().compute_loss(model, inputs)
        return loss if num_items_in_batch is None else loss * pairs / num_items_in_batch
