"""One optimizer step as we define it, on top of TRL's trainers.

The trainer is handed whole steps (every row of a step, already cut into micro-batches), so which rows make a step never
depends on memory or devices. Every micro-batch's loss is a sum divided by the step's own count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from trl import DPOTrainer, SFTTrainer

from workbench import collective, saving
from workbench.data.batches import StepSampler
from workbench.data.rendering import IGNORED
from workbench.errors import Problem, TrainingError
from workbench.training import checkpoints
from workbench.training.head import CountedHead
from workbench.training.sharding import Spread


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


class WholeSteps(Spread):
    """Mixed in before a TRL trainer."""

    step_sampler: StepSampler
    step_collator: Any
    beside: Mapping[str, Any]
    """JSON files for every checkpoint, by name: what a run that goes on is held against."""
    facts: StepFacts
    train_dataset: Any
    accelerator: Any
    args: Any
    state: Any
    _counts = True
    """Whether the micro-batch in hand stands for rows."""

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
        """One step (of several processes: this one's share of it), and the count of the whole step, which the loss is
        divided by. A share is padded with micro-batches that count nothing: to one, for gradients are exchanged in the
        last backward pass; where weights are spread, which takes all processes in every pass, to the longest share."""
        step = next(epoch_iterator)
        idle = step.pop() if self.args.world_size > 1 else {}
        self.facts = StepFacts()
        for batch in step:
            _count(batch, self.facts)
        shares = collective.gather((len(step), self.facts.counted))
        passes = max(length for length, _ in shares) if self.is_spread else 1
        step += [dict(idle) for _ in range(passes - len(step))]
        return [step], torch.tensor(sum(counted for _, counted in shares), device=device)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of every micro-batch of the step.

        Raises:
            TrainingError: the loss is not finite in some process; names the step and the rows of that micro-batch.
        """
        total = torch.zeros((), device=self.args.device)
        odd: tuple[float, list[str]] | None = None
        for at, batch in enumerate(inputs):
            rows = batch.pop("rows")
            self._counts = bool(rows)
            del batch["text_bytes"]
            more = at < len(inputs) - 1
            with self.accelerator.no_sync(model) if more else nullcontext():
                loss = super().training_step(  # type: ignore[misc]
                    model, batch, num_items_in_batch
                )
            if odd is None and not torch.isfinite(loss):
                odd = (float(loss), rows)
            total += loss
        self.facts.loss = float(total)
        self._put_together(odd)
        return total

    def compute_loss(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """The library's loss; nothing of a micro-batch that stands for no row."""
        loss: torch.Tensor = super().compute_loss(*arguments, **named)  # type: ignore[misc]
        return loss if self._counts else loss * 0.0

    def _put_together(self, odd: tuple[float, list[str]] | None) -> None:
        """Make the facts those of the whole step, in every process; all of them end where one met an odd loss."""
        shares = collective.gather((self.facts, odd))
        for found in (found for _, found in shares if found is not None):
            raise TrainingError(
                Problem(
                    f"step {self.state.global_step + 1}",
                    f"the loss is {found[0]}, in the rows " + ", ".join(found[1][:8]),
                    "lower training.learning_rate, or look at these rows",
                )
            )
        self.facts = StepFacts(*(sum(values) for values in zip(*(astuple(facts) for facts, _ in shares), strict=True)))
        self.facts.loss /= len(shares)  # every process's loss is scaled up by their number: gradients are averaged

    def floating_point_ops(self, inputs: Any) -> int:
        """Not the trainer's estimate (it counts 6 N for every method): workbench.plan.cost counts."""
        return 0

    def _get_output_dir(self, trial: Any) -> str:
        """Where the library writes its checkpoints: aside, until they are whole."""
        return str(checkpoints.aside(Path(self.args.output_dir)))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The library's checkpoint (without TRL's model card), then our seal over all of it."""
        folder = Path(self.args.output_dir)
        with saving.told(folder):
            Trainer._save_checkpoint(self, model, trial)
            collective.wait()  # every process writes its random state
            if self.args.should_save:
                checkpoints.finish(folder, self.state.global_step, self.beside)
        collective.wait()


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
        loss = super().compute_loss(model, inputs)
        # gradients are averaged over the processes
        return loss if num_items_in_batch is None else loss * pairs * self.args.world_size / num_items_in_batch
