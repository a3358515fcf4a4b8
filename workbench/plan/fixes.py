"""Changes of a recipe that make it fit, the cheapest first: each one tried, alone and with others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from workbench.plan.prediction import Prediction
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import Qlora
from workbench.recipe.settings import Settings


@dataclass(frozen=True)
class Change:
    """One thing that can be changed to save memory."""

    settings: Settings
    costs: str
    """What it costs, in words."""
    burden: float
    """How unwelcome it is: 0 for nothing lost."""
    is_another: bool = False
    """Whether the result is another one."""


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

    @property
    def is_another(self) -> bool:
        """Whether the result is another one."""
        return any(change.is_another for change in self.changes)


_SHARED = ("rank", "alpha", "dropout", "targets", "variant", "experts", "init_from")
"""Fields of lora that qlora has as well."""
_LEAN_TOKENS = 512
_MOST_AT_ONCE = 3
_SHOWN = 4
_DEVICES = (2, 4, 8)


def changes(resolved: Resolved, longest: int) -> list[Change]:
    """What could be changed in a recipe, the least burden first.

    Args:
        longest: tokens of its longest row.
    """
    return sorted(_possible(resolved, longest), key=lambda change: change.burden)


def _possible(resolved: Resolved, longest: int) -> Iterator[Change]:
    recipe, row = resolved.recipe, resolved.target
    target, method = recipe.target, recipe.method
    can = row.capabilities()
    if target.attention == "eager":
        yield Change({"target.attention": "sdpa"}, "no cost", 0.0)
    for tokens, burden in ((2048, 0.1), (max(512, longest), 0.25)):
        if longest <= tokens < target.micro_batch_tokens:
            yield Change({"target.micro_batch_tokens": tokens}, "more, smaller micro-batches", burden)
    if recipe.evaluation.suite:
        for size, burden in ((4, 0.12), (1, 0.2)):
            if recipe.evaluation.batch_size > size:
                yield Change({"evaluation.batch_size": size}, "slower scoring", burden)
    if not target.gradient_checkpointing:
        yield Change({"target.gradient_checkpointing": True}, "about a third more compute", 0.3)
    if recipe.training.optimizer == "adamw" and can.eight_bit_optimizers == "yes":
        yield Change({"training.optimizer": "adamw_8bit"}, "optimizer state rounded to 8 bits", 1.0, True)
    if method.name == "lora" and can.nf4 == "yes" and row.nf4 and getattr(method, "variant", "") != "pissa":
        kept = {f"method.{name}": getattr(method, name) for name in _SHARED if _is_stated(method, name)}
        yield Change({"method.name": "qlora", **kept}, "the base rounded to 4 bits", 1.2, True)
    if method.name == "full":
        yield Change({"method": "lora"}, "an adapter instead of every weight", 2.0, True)
        if can.nf4 == "yes" and row.nf4:
            yield Change({"method": "qlora"}, "an adapter over a base in 4 bits", 2.2, True)
    if can.fsdp == "yes" and target.sharding != "fsdp":
        if target.devices > 1:
            yield Change({"target.sharding": "fsdp"}, "weights are exchanged in every pass", 0.5)
        for devices in _DEVICES:
            if devices > target.devices:
                settings = {"target.devices": devices, "target.sharding": "fsdp"}
                yield Change(settings, f"{devices} devices", 1.5 + devices / 8)


def lean(resolved: Resolved, longest: int) -> list[tuple[str, Settings]]:
    """Two ways to take as little as possible on one device, in words and as settings: with the same result, and with
    the base in 4 bits."""
    same: dict[str, Any] = {
        "target.gradient_checkpointing": True,
        "target.micro_batch_tokens": max(_LEAN_TOKENS, longest),
    }
    if resolved.recipe.evaluation.suite:
        same["evaluation.batch_size"] = 1
    ways: list[tuple[str, Settings]] = [("cut small, checkpointed", same)]
    if resolved.recipe.method.name == "lora":
        four_bit = next((one for one in changes(resolved, longest) if "method.name" in one.settings), None)
        ways += [("qlora, cut small, checkpointed", {**same, **four_bit.settings})] if four_bit else []
    return ways


def _is_stated(method: Any, name: str) -> bool:
    """Whether a field stands at another value than a fresh qlora would give it."""
    value = getattr(method, name)
    return bool(value != (2.0 * method.rank if name == "alpha" else Qlora.model_fields[name].default))


def fixes(
    resolved: Resolved,
    longest: int,
    predicted: Callable[[Settings], Prediction | None],
    fit: Callable[[Prediction], bool],
) -> list[Fix]:
    """The least burdensome sets of changes that make a recipe fit.

    Args:
        longest: tokens of the longest row.
        predicted: what the recipe takes with some settings; None where they make it illegal.
        fit: whether a prediction is good enough.
    """
    found: list[Fix] = []
    candidates = changes(resolved, longest)
    for number in range(1, _MOST_AT_ONCE + 1):
        if number == _MOST_AT_ONCE and not all(fix.is_another for fix in found):
            break  # less is enough, with the same result
        for chosen in combinations(candidates, number):
            if _contradict(chosen) or any(_holds(chosen, fix) for fix in found):
                continue
            prediction = predicted({key: value for change in chosen for key, value in change.settings.items()})
            if prediction is not None and fit(prediction):
                found.append(Fix(chosen, prediction))
    found.sort(
        key=lambda fix: (fix.is_another, fix.burden, fix.prediction.seconds.expected if fix.prediction.seconds else 0.0)
    )
    return found[:_SHOWN]


def _holds(chosen: Sequence[Change], fix: Fix) -> bool:
    """Whether a set of changes touches every field of a fix that is enough by itself (at these or other values)."""
    fields = {key for change in chosen for key in change.settings}
    return fix.settings.keys() <= fields


def _contradict(chosen: Sequence[Change]) -> bool:
    """Whether two of them set the same field (or one a part of what the other replaces)."""
    fields = [key for change in chosen for key in change.settings]
    return len(fields) != len(set(fields)) or sum(key in ("method", "method.name") for key in fields) > 1
