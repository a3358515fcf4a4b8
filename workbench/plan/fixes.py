"""Changes of a recipe that make it fit, the cheapest first: each one tried, alone and with others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from workbench.plan.prediction import Prediction
from workbench.recipe.resolved import Resolved

Settings = Mapping[str, Any]
"""Dotted field -> value, as `--set` takes them."""


@dataclass(frozen=True)
class Change:
    """One thing that can be changed to save memory."""

    settings: Settings
    costs: str
    """What it costs, in words."""
    burden: float
    """How unwelcome it is: 0 for nothing lost, 1 and more for another result."""


@dataclass(frozen=True)
class Fix:
    """Changes that together make a recipe fit, with what it then takes."""

    changes: tuple[Change, ...]
    prediction: Prediction

    @property
    def settings(self) -> dict[str, Any]:
        """All of them as one."""
        return {key: value for change in self.changes for key, value in change.settings.items()}

    @property
    def burden(self) -> float:
        """Of all changes together."""
        return sum(change.burden for change in self.changes)


_SHARED = ("rank", "alpha", "dropout", "targets", "variant")
"""Fields of lora that qlora has as well."""
_MOST_AT_ONCE = 3
_SHOWN = 4
_DEVICES = (2, 4, 8)


def changes(resolved: Resolved) -> list[Change]:
    """What could be changed in a recipe, the least burden first."""
    return sorted(_possible(resolved), key=lambda change: change.burden)


def _possible(resolved: Resolved) -> Iterator[Change]:
    recipe, row = resolved.recipe, resolved.target
    target, method = recipe.target, recipe.method
    can = row.capabilities()
    if target.attention == "eager":
        yield Change({"target.attention": "sdpa"}, "nothing", 0.0)
    if target.micro_batch_tokens > 2048:
        yield Change({"target.micro_batch_tokens": 2048}, "more, smaller micro-batches; the same result", 0.1)
    if target.micro_batch_tokens > 512:
        yield Change({"target.micro_batch_tokens": 512}, "many small micro-batches; the same result", 0.25)
    if recipe.evaluation.suite and recipe.evaluation.batch_size > 4:
        yield Change({"evaluation.batch_size": 4}, "slower scoring", 0.12)
    if not target.gradient_checkpointing:
        yield Change({"target.gradient_checkpointing": True}, "about a third more compute; the same result", 0.3)
    if recipe.training.optimizer == "adamw" and can.eight_bit_optimizers == "yes":
        yield Change({"training.optimizer": "adamw_8bit"}, "optimizer state rounded to 8 bits: another result", 1.0)
    if method.name == "lora" and can.nf4 == "yes" and row.nf4 and getattr(method, "variant", "") != "pissa":
        kept = {f"method.{name}": getattr(method, name) for name in _SHARED}
        yield Change({"method.name": "qlora", **kept}, "the base rounded to 4 bits: another result, slower", 1.2)
    if method.name == "full":
        yield Change({"method": "lora"}, "an adapter instead of every weight: another method", 2.0)
        if can.nf4 == "yes" and row.nf4:
            yield Change({"method": "qlora"}, "an adapter over a base in 4 bits: another method", 2.2)
    if can.fsdp == "yes" and target.sharding != "fsdp":
        for devices in _DEVICES:
            if devices > target.devices:
                settings = {"target.devices": devices, "target.sharding": "fsdp"}
                yield Change(settings, f"{devices} devices; the same result", 1.5 + devices / 8)


def fixes(
    resolved: Resolved, predicted: Callable[[Settings], Prediction | None], fit: Callable[[Prediction], bool]
) -> list[Fix]:
    """The least burdensome sets of changes that make a recipe fit.

    Args:
        predicted: what the recipe takes with some settings; None where they make it illegal.
        fit: whether a prediction is good enough.
    """
    found: list[Fix] = []
    candidates = changes(resolved)
    for number in range(1, _MOST_AT_ONCE + 1):
        if number == _MOST_AT_ONCE and found:
            break
        for chosen in combinations(candidates, number):
            if _contradict(chosen) or any(_holds(chosen, fix) for fix in found):
                continue
            prediction = predicted({key: value for change in chosen for key, value in change.settings.items()})
            if prediction is not None and fit(prediction):
                found.append(Fix(chosen, prediction))
    found.sort(key=lambda fix: (fix.burden, fix.prediction.seconds.expected if fix.prediction.seconds else 0.0))
    return found[:_SHOWN]


def _holds(chosen: Sequence[Change], fix: Fix) -> bool:
    """Whether a set of changes holds all those of a fix that is enough by itself."""
    return all(any(change is one for one in chosen) for change in fix.changes)


def _contradict(chosen: Sequence[Change]) -> bool:
    """Whether two of them set the same field (or one a part of what the other replaces)."""
    fields = [key for change in chosen for key in change.settings]
    return len(fields) != len(set(fields)) or sum(key in ("method", "method.name") for key in fields) > 1
