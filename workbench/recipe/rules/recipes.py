"""Rules on what a recipe asks for, whatever it runs on: rows, objective, length, learning rate."""

from __future__ import annotations

import re
from collections.abc import Callable

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import facts
from workbench.recipe.rules.rule import Rule
from workbench.recipe.settings import Settings

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LORA_RATE = 2e-4
_FULL_RATE = 2e-5
_LARGE_BATCH = 32
_CHECKPOINT_EVERY = 100
_REGRET = "TRL documentation, lora_without_regret (Schulman et al. 2025)"

_WITH_ROUTER_LOSS = frozenset(
    f"{name}ForCausalLM" for name in ("Qwen3Moe", "Qwen3Next", "MiniMaxM2", "Ernie4_5_Moe", "Mixtral", "GptOss")
)
"""Architectures of the catalog whose configuration has `router_aux_loss_coef`."""


def _objective_and_rows(objective: str, formats: tuple[str, ...]) -> Callable[[Resolved], bool]:
    return lambda r: r.recipe.objective.name == objective and r.data.card.format not in formats


def _shuffled_and_all_turns(resolved: Resolved) -> bool:
    several = resolved.data.card.format in ("messages", "sharegpt")
    return (
        resolved.recipe.data.shuffle_labels and several and getattr(resolved.recipe.objective, "turns", "last") == "all"
    )


def _objective_of_rows(resolved: Resolved) -> Settings:
    return {"objective": {"text": "pretrain", "preference": "dpo"}.get(resolved.data.card.format, "sft")}


def _longer_than_context(resolved: Resolved) -> bool:
    known = facts.row(resolved)
    return known is not None and (resolved.recipe.data.max_length or 0) > known.context


def _context(resolved: Resolved) -> Settings:
    known = facts.row(resolved)
    return {"data.max_length": known.context if known else None}


def _no_checkpoint(resolved: Resolved) -> bool:
    training = resolved.recipe.training
    return training.steps is not None and _CHECKPOINT_EVERY < training.steps <= training.checkpoint_every


def _dpo_rate(resolved: Resolved) -> float:
    """What published dpo runs of 7B models were trained at."""
    return 5e-7 if resolved.recipe.method.name == "full" else 5e-6


def _dpo_too_fast(resolved: Resolved) -> bool:
    return (
        resolved.recipe.objective.name == "dpo"
        and resolved.trains
        and resolved.recipe.training.learning_rate > 10 * _dpo_rate(resolved)
    )


def _full_too_fast(resolved: Resolved) -> bool:
    recipe = resolved.recipe
    tuned = recipe.method.name == "full" and recipe.base.init == "pretrained" and recipe.objective.name != "dpo"
    return tuned and facts.row(resolved) is not None and recipe.training.learning_rate >= _LORA_RATE


def _adapter_too_slow(resolved: Resolved) -> bool:
    adapter, known = facts.low_rank(resolved), facts.row(resolved)
    learns = adapter is not None and known is not None and resolved.recipe.objective.name != "dpo"
    return learns and resolved.recipe.training.learning_rate <= _FULL_RATE


def _adapter_in_large_batches(resolved: Resolved) -> bool:
    adapter = facts.low_rank(resolved) is not None and resolved.recipe.objective.name != "dpo"
    return adapter and resolved.recipe.training.batch_size > _LARGE_BATCH


def _router_loss_unknown(resolved: Resolved) -> bool:
    known = facts.architecture(resolved)
    return resolved.recipe.training.router_loss > 0 and known != "" and known not in _WITH_ROUTER_LOSS


RULES: tuple[Rule, ...] = (
    Rule(
        "length-twice",
        ("training", "steps"),
        "illegal",
        lambda r: r.recipe.training.epochs is not None and r.recipe.training.steps is not None,
        "both epochs and steps are given",
        "keep one of the two",
        "workbench/training/trainers.py: steps would win over epochs",
        cure=lambda r: {"training.steps": r.recipe.training.steps},
    ),
    Rule(
        "unknown-split",
        ("data", "split"),
        "illegal",
        lambda r: r.recipe.data.split not in r.data.card.splits and r.data.card.source.directory is None,
        "the dataset card has no such split",
        "see the `splits` of the card",
        "workbench/catalog/cards.py: a card lists its splits",
        cure=lambda r: {"data.split": next(iter(r.data.card.splits))},
    ),
    Rule(
        "sft-rows",
        ("objective", "name"),
        "illegal",
        _objective_and_rows("sft", ("messages", "prompt_completion", "instruction", "sharegpt")),
        "sft needs rows with a prompt and an answer",
        "use objective pretrain for raw text, dpo for preference pairs",
        "trl 1.16 sft_trainer.py: prompt and completion, or messages",
        cure=_objective_of_rows,
    ),
    Rule(
        "pretrain-rows",
        ("objective", "name"),
        "illegal",
        _objective_and_rows("pretrain", ("text",)),
        "pretrain needs rows of raw text",
        "use a card of format text, or the objective that fits the rows",
        "workbench/data/formats.py: only format text yields documents",
        cure=_objective_of_rows,
    ),
    Rule(
        "dpo-rows",
        ("objective", "name"),
        "illegal",
        _objective_and_rows("dpo", ("preference",)),
        "dpo needs rows with chosen and rejected",
        "use a card of format preference, or the objective that fits the rows",
        "trl 1.16 dpo_trainer.py: prompt, chosen, rejected",
        cure=_objective_of_rows,
    ),
    Rule(
        "shuffled-answers",
        ("data", "shuffle_labels"),
        "illegal",
        lambda r: r.recipe.data.shuffle_labels and r.recipe.objective.name != "sft",
        "only sft has answers that can be dealt out anew",
        "drop data.shuffle_labels, or use objective sft",
        "workbench/data/shuffling.py",
        cure={"data.shuffle_labels": False},
    ),
    Rule(
        "shuffled-turns",
        ("objective", "turns"),
        "illegal",
        _shuffled_and_all_turns,
        "only the last answers are dealt out anew, and earlier turns would still teach the task",
        "set objective.turns to last",
        "workbench/data/shuffling.py",
        cure={"objective.turns": "last"},
    ),
    Rule(
        "system-of-raw-text",
        ("data", "system"),
        "illegal",
        lambda r: r.recipe.objective.name == "pretrain" and r.recipe.data.system is not None,
        "raw text has no conversation that a system message could stand before, so it would be ignored",
        "drop data.system",
        "workbench/data/rendering.py: documents are tokenised as they stand",
        cure={"data.system": None},
    ),
    Rule(
        "longer-than-context",
        ("data", "max_length"),
        "illegal",
        _longer_than_context,
        "rows cannot be longer than the base's context, and would silently be held to it",
        "set data.max_length to the base's context or less",
        "workbench/worker/training.py takes the smaller of the two; the context stands in the base's config.json",
        cure=_context,
    ),
    Rule(
        "revision-of-directory",
        ("base", "revision"),
        "illegal",
        lambda r: r.base.kind == "directory" and r.recipe.base.revision is not None,
        "a directory on this machine has no revisions (its files are hashed instead)",
        "drop base.revision, or name the hub repository",
        "workbench/recipe/pin.py",
        cure={"base.revision": None},
    ),
    Rule(
        "remote-code-pinned",
        ("base", "trust_remote_code"),
        "illegal",
        lambda r: (
            r.recipe.base.trust_remote_code and r.base.kind == "hub" and not _COMMIT.fullmatch(r.base.revision or "")
        ),
        "code from a repository is run only at a pinned commit",
        "add base.revision with the 40-digit commit you have read, or do without its code",
        "transformers 5.23 documentation, custom models: pin a revision, the code may change",
        cure={"base.trust_remote_code": False},
    ),
    Rule(
        "nothing-to-do",
        ("method", "name"),
        "illegal",
        lambda r: r.recipe.method.name == "none" and r.recipe.evaluation.suite is None,
        "method none trains nothing and there is no suite to score it on",
        "add evaluation.suite",
        "workbench/worker/stages.py: nothing would be trained and nothing scored",
    ),
    Rule(
        "fewshot-without-suite",
        ("evaluation", "fewshot"),
        "illegal",
        lambda r: r.recipe.evaluation.fewshot is not None and r.recipe.evaluation.suite is None,
        "there is no suite whose items could get examples, so it would be ignored",
        "add evaluation.suite, or drop evaluation.fewshot",
        "workbench/recipe/resolve.py: examples are a part of a suite's tasks",
        cure={"evaluation.fewshot": None},
    ),
    Rule(
        "router-loss-base",
        ("training", "router_loss"),
        "illegal",
        _router_loss_unknown,
        "this base has no load-balancing loss",
        "drop training.router_loss",
        "trl 1.16 sft_trainer.py:1201; transformers 5.23: the configurations that have router_aux_loss_coef",
        cure={"training.router_loss": 0},
    ),
    Rule(
        "router-loss-micro-batches",
        ("training", "router_loss"),
        "unwise",
        lambda r: r.recipe.training.router_loss > 0,
        "it is added for each micro-batch, so the result depends on how steps are cut (1.8e-5 between 8 x 1 and 2 x 4)",
        "leave it at 0, or keep target.micro_batch_tokens and the devices the same in all runs that are compared",
        "trl 1.16 sft_trainer.py:1205; seen on a small Qwen3-MoE, 2.4e-7 without it",
        cure={"training.router_loss": 0},
    ),
    Rule(
        "no-checkpoint",
        ("training", "checkpoint_every"),
        "unwise",
        _no_checkpoint,
        "no checkpoint is written before the last step, so a killed run starts anew",
        f"leave it at {_CHECKPOINT_EVERY}",
        "transformers 5.23 training_args.py: save_steps",
        cure={"training.checkpoint_every": _CHECKPOINT_EVERY},
    ),
    Rule(
        "dpo-learning-rate",
        ("training", "learning_rate"),
        "unwise",
        _dpo_too_fast,
        "it is over ten times what dpo is published with (5e-6 for adapters, 5e-7 for all weights)",
        "start from these",
        "trl 1.16 dpo_config.py (default 1e-6); alignment-handbook, zephyr-7b dpo qlora 5e-6 and full 5e-7",
        cure=lambda r: {"training.learning_rate": _dpo_rate(r)},
    ),
    Rule(
        "full-learning-rate",
        ("training", "learning_rate"),
        "unwise",
        _full_too_fast,
        "a pretrained base with all weights trained wants about a tenth of LoRA's rate",
        f"start from {_FULL_RATE:g}",
        f"{_REGRET}: LoRA's best rate is ten times that of full fine-tuning; trl 1.16 sft_config.py (default 2e-5)",
        cure={"training.learning_rate": _FULL_RATE},
    ),
    Rule(
        "adapter-learning-rate",
        ("training", "learning_rate"),
        "unwise",
        _adapter_too_slow,
        "this is a rate of full fine-tuning, at which an adapter learns little",
        f"start from {_LORA_RATE:g}",
        f"{_REGRET}: LoRA's best rate is ten times that of full fine-tuning",
        cure={"training.learning_rate": _LORA_RATE},
    ),
    Rule(
        "adapter-batch-size",
        ("training", "batch_size"),
        "unwise",
        _adapter_in_large_batches,
        "adapters bear large batches worse than full fine-tuning does, and a higher rank does not mend it",
        f"use {_LARGE_BATCH} or less",
        f"{_REGRET}, finding 4",
        cure={"training.batch_size": _LARGE_BATCH},
    ),
)
