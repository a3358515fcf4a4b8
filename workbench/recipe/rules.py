"""The one table of combinations that cannot work (or would silently do something else than they say)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from workbench.documents import Trail
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import Lora, Qlora

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Rule:
    """One combination: when it is met, which field it is told at, why it cannot be, what to do."""

    id: str
    field: Trail
    breaks: Callable[[Resolved], bool]
    reason: str
    fix: str


def broken(resolved: Resolved) -> list[Rule]:
    """The rules that a resolved recipe breaks."""
    return [rule for rule in RULES if rule.breaks(resolved)]


def _experts_with_dropout(resolved: Resolved) -> bool:
    method = resolved.recipe.method
    return isinstance(method, Lora | Qlora) and method.experts == "all" and method.dropout > 0


def _experts_with_variant(resolved: Resolved) -> bool:
    method = resolved.recipe.method
    return isinstance(method, Lora | Qlora) and method.experts == "all" and method.variant in ("dora", "pissa")


def _four_bit(resolved: Resolved) -> bool:
    method = resolved.recipe.method
    return method.name == "qlora" or (method.name == "none" and method.quantization != "none")


def _pissa(resolved: Resolved) -> bool:
    return isinstance(resolved.recipe.method, Lora) and resolved.recipe.method.variant == "pissa"


def _fsdp(resolved: Resolved) -> bool:
    return resolved.recipe.target.sharding == "fsdp"


def _init_from(resolved: Resolved) -> bool:
    return isinstance(resolved.recipe.method, Lora | Qlora) and resolved.recipe.method.init_from is not None


def _objective_and_rows(objective: str, formats: tuple[str, ...]) -> Callable[[Resolved], bool]:
    return lambda resolved: resolved.recipe.objective.name == objective and resolved.data.card.format not in formats


def _shuffled_and_all_turns(resolved: Resolved) -> bool:
    recipe, conversations = resolved.recipe, ("messages", "sharegpt")
    several = resolved.data.card.format in conversations and getattr(recipe.objective, "turns", "last") == "all"
    return recipe.data.shuffle_labels and several


RULES: tuple[Rule, ...] = (
    Rule(
        "length-twice",
        ("training", "steps"),
        lambda r: r.recipe.training.epochs is not None and r.recipe.training.steps is not None,
        "both epochs and steps are given",
        "keep one of the two",
    ),
    Rule(
        "unknown-split",
        ("data", "split"),
        lambda r: r.recipe.data.split not in r.data.card.splits and r.data.card.source.directory is None,
        "the dataset card has no such split",
        "see the `splits` of the card",
    ),
    Rule(
        "sft-rows",
        ("objective", "name"),
        _objective_and_rows("sft", ("messages", "prompt_completion", "instruction", "sharegpt")),
        "sft needs rows with a prompt and an answer",
        "use objective pretrain for raw text, dpo for preference pairs",
    ),
    Rule(
        "pretrain-rows",
        ("objective", "name"),
        _objective_and_rows("pretrain", ("text",)),
        "pretrain needs rows of raw text",
        "use a card of format text, or objective sft",
    ),
    Rule(
        "dpo-rows",
        ("objective", "name"),
        _objective_and_rows("dpo", ("preference",)),
        "dpo needs rows with chosen and rejected",
        "use a card of format preference",
    ),
    Rule(
        "shuffled-answers",
        ("data", "shuffle_labels"),
        lambda r: r.recipe.data.shuffle_labels and r.recipe.objective.name != "sft",
        "only sft has answers that can be dealt out anew",
        "drop data.shuffle_labels, or use objective sft",
    ),
    Rule(
        "shuffled-turns",
        ("objective", "turns"),
        _shuffled_and_all_turns,
        "only the last answers are dealt out anew, and earlier turns would still teach the task",
        "set objective.turns to last",
    ),
    Rule(
        "experts-dropout",
        ("method", "dropout"),
        _experts_with_dropout,
        "adapters on fused experts take no dropout (PEFT's target parameters)",
        "set method.dropout to 0, or method.experts to none",
    ),
    Rule(
        "experts-variant",
        ("method", "variant"),
        _experts_with_variant,
        "adapters on fused experts cannot be dora or pissa (PEFT's target parameters)",
        "use variant plain or rslora, or method.experts none",
    ),
    Rule(
        "four-bit-device",
        ("method", "name"),
        lambda r: _four_bit(r) and not r.target.nf4,
        "bitsandbytes has no 4-bit kernels for this target",
        "use method lora (in bf16) there",
    ),
    Rule(
        "bf16-device",
        ("training", "precision"),
        lambda r: r.dtype == "bf16" and not r.target.bf16 and r.target.device != "cpu",
        "this target has no bf16 arithmetic",
        "use precision fp32",
    ),
    Rule(
        "paged-on-cpu",
        ("training", "optimizer"),
        lambda r: r.target.device == "cpu" and r.recipe.training.optimizer.startswith("paged"),
        "there is nothing to page on a CPU (bitsandbytes falls back silently)",
        "use adamw or adamw_8bit",
    ),
    Rule(
        "dpo-pissa",
        ("method", "variant"),
        lambda r: r.recipe.objective.name == "dpo" and _pissa(r),
        "pissa changes the base that dpo takes as its reference",
        "train with variant plain, or sft with pissa first and dpo with method.init_from",
    ),
    Rule(
        "dpo-flattened",
        ("target", "layout"),
        lambda r: r.recipe.objective.name == "dpo" and r.recipe.target.layout == "flattened",
        "dpo compares whole rows, which the flattened layout joins",
        "use layout padded",
    ),
    Rule(
        "pissa-from-adapter",
        ("method", "init_from"),
        lambda r: _init_from(r) and _pissa(r),
        "pissa starts from the base's own components, not from an adapter",
        "drop init_from, or use variant plain",
    ),
    Rule(
        "adapter-on-random",
        ("base", "init"),
        lambda r: r.recipe.base.init == "random" and r.recipe.method.name not in ("full", "none"),
        "an adapter over random weights trains nothing of use",
        "use method full to train from scratch",
    ),
    Rule(
        "revision-of-directory",
        ("base", "revision"),
        lambda r: r.base.kind == "directory" and r.recipe.base.revision is not None,
        "a directory on this machine has no revisions (its files are hashed instead)",
        "drop base.revision, or name the hub repository",
    ),
    Rule(
        "remote-code-pinned",
        ("base", "trust_remote_code"),
        lambda r: (
            r.recipe.base.trust_remote_code and r.base.kind == "hub" and not _COMMIT.fullmatch(r.base.revision or "")
        ),
        "code from a repository is run only at a pinned commit",
        "add base.revision with the 40-digit commit you have read",
    ),
    Rule(
        "fsdp-optimizer",
        ("training", "optimizer"),
        lambda r: _fsdp(r) and r.recipe.training.optimizer != "adamw",
        "bitsandbytes' optimizers know nothing of sharded weights",
        "use adamw (fsdp spreads its state as well)",
    ),
    Rule(
        "fsdp-pissa",
        ("method", "variant"),
        lambda r: _fsdp(r) and _pissa(r),
        "PEFT cannot convert a sharded pissa adapter to an ordinary one",
        "use variant plain, or sharding ddp",
    ),
    Rule(
        "fsdp-dpo",
        ("target", "sharding"),
        lambda r: _fsdp(r) and r.recipe.objective.name == "dpo" and r.target.device != "cpu",
        "the reference of dpo is asked before the weights are sharded, and would not fit one device",
        "use sharding ddp (with method qlora, where the base is too large)",
    ),
    Rule(
        "nothing-to-do",
        ("method", "name"),
        lambda r: r.recipe.method.name == "none" and r.recipe.evaluation.suite is None,
        "method none trains nothing and there is no suite to score it on",
        "add evaluation.suite",
    ),
)
