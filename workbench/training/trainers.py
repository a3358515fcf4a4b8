"""Recipe sections -> a TRL trainer, ready to walk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PrinterCallback
from trl import DPOConfig, SFTConfig

from workbench import place
from workbench.data.batches import CausalCollator, PairCollator, StepSampler
from workbench.data.sharing import SharedCollator
from workbench.errors import Problem, TrainingError
from workbench.methods.apply import as_fp32
from workbench.plan import steps
from workbench.plan.steps import Length
from workbench.recipe.schema import Dpo, Recipe
from workbench.training import sharding
from workbench.training.head import CountedHead
from workbench.training.speed import Choices
from workbench.training.steps import CausalTrainer, PreferenceTrainer, WholeSteps

_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def length(recipe: Recipe, num_examples: int) -> Length:
    """How long a recipe walks over so many examples."""
    training = recipe.training
    return steps.length(num_examples, training.batch_size, training.epochs, training.steps)


def build(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    rows: Any,
    checkpoints: Path,
    device: str,
    dtype: str,
    pad_id: int,
    choices: Choices,
    beside: Mapping[str, Any],
) -> WholeSteps:
    """The trainer of a recipe's objective over prepared rows.

    Args:
        rows: tokenised rows (for dpo with reference log-probabilities).
        checkpoints: directory that checkpoints are written to.
        beside: JSON files for every checkpoint, by name.

    Raises:
        TrainingError: `training.router_loss` on a base that has no such loss.
    """
    training, target = recipe.training, recipe.target
    shared = _shared_arguments(recipe, length(recipe, len(rows)).steps, device, dtype) | {
        **choices.arguments(),
        "output_dir": str(checkpoints),
        "router_aux_loss_coef": _router_loss(training.router_loss, model),
    }
    trainer: WholeSteps
    if isinstance(recipe.objective, Dpo):
        arguments = DPOConfig(
            **shared, beta=recipe.objective.beta, loss_type=[recipe.objective.loss], precompute_ref_log_probs=True
        )
        pairs = PairCollator(pad_id, target.micro_batch_tokens, choices.start_tokens)
        trainer = PreferenceTrainer(
            model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, data_collator=pairs
        )
        trainer.step_collator = pairs
        if hasattr(model, "peft_config") and "ref" in model.peft_config:
            model.delete_adapter("ref")  # TRL's copy of the start; our rows hold its log-probabilities already
    else:
        arguments = SFTConfig(**shared, dataset_kwargs={"skip_prepare_dataset": True})
        causal = CausalCollator(pad_id, target.micro_batch_tokens, target.layout, choices.start_tokens)
        trainer = CausalTrainer(
            model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, data_collator=causal
        )
        trainer.step_collator = causal
        trainer.head = CountedHead(model.get_base_model() if hasattr(model, "peft_config") else model)
    trainer.remove_callback(PrinterCallback)  # our own recorder shows the steps
    _take_part(trainer, target.sharding == "fsdp" and device == "cpu")
    trainer.beside = beside
    trainer.step_sampler = StepSampler(len(rows), training.batch_size, recipe.seed)
    as_fp32(model)
    return trainer


def _take_part(trainer: WholeSteps, shards_itself: bool) -> None:
    """Make a trainer one of several that share every step."""
    found = place.here()
    if found.world == 1:
        return
    trainer.step_collator = SharedCollator(trainer.step_collator, found.rank, found.world)
    trainer.shards_itself = shards_itself
    # TRL gathers metrics of its own in every micro-batch, which not all processes have as many of; nobody reads them.
    trainer.accelerator.gather = trainer.accelerator.gather_for_metrics = lambda value, **_: value


def _shared_arguments(recipe: Recipe, num_steps: int, device: str, dtype: str) -> dict[str, Any]:
    """What the trainers of all objectives are told."""
    training, target = recipe.training, recipe.target
    return {
        "max_steps": num_steps,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": _SCHEDULES[training.schedule],
        # the last step is never one of them: a run of one step would move nothing
        "warmup_steps": min(math.ceil(training.warmup_fraction * num_steps), num_steps - 1),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "bf16": dtype == "bf16",
        "fp16": dtype == "fp16",
        "use_cpu": device == "cpu",
        "seed": recipe.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": training.checkpoint_every,
        "gradient_checkpointing": target.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if target.gradient_checkpointing else None,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "max_length": None,
        "ddp_find_unused_parameters": False,
        **sharding.arguments(target.sharding, device),
    }


def _router_loss(weight: float, model: Any) -> float | None:
    """Zero turns the loss off where the base has one; None where it has none."""
    if getattr(model.config.get_text_config(), "router_aux_loss_coef", None) is not None:
        return weight
    if weight:
        raise TrainingError(
            Problem("training.router_loss", "this base has no load-balancing loss", "drop the field, or set it to 0")
        )
    return None
