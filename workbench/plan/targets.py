"""Which linear layers a method's targets stand for, by names alone: the plan and the adapters ask the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from workbench import documents
from workbench.errors import MethodError, Problem
from workbench.recipe.schema import Ia3, Lora, Oft, Qlora

REWRITTEN = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""Last name parts that PEFT takes for the experts' on bases whose experts transformers 5 fuses into one parameter."""


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def matching(names: Sequence[str], targets: str | Iterable[str]) -> list[str]:
    """The linear layers that `all-linear`, a last name part or a glob stands for, in the order of `names`.

    Raises:
        MethodError: a target matches nothing; lists what would match.
    """
    if isinstance(targets, str):
        return list(names)
    problems = []
    chosen: set[str] = set()
    for target in targets:
        found = {name for name in names if name == target or name.endswith(f".{target}") or fnmatchcase(name, target)}
        if not found:
            leaves = sorted({leaf(name) for name in names})
            problems.append(
                Problem("method.targets", f"{target!r} matches no linear layer", documents.did_you_mean(target, leaves))
            )
        chosen |= found
    if problems:
        raise MethodError(problems)
    return [name for name in names if name in chosen]


def takes_parameters(name: str, method: Lora | Qlora) -> None:
    """Raise unless a method can adapt a linear layer as a parameter, as it must where PEFT would rewrite the name."""
    if method.dropout > 0 or method.variant in ("dora", "pissa"):
        raise MethodError(
            Problem(
                "method.targets",
                f"on this mixture-of-experts base {name} takes neither dropout nor "
                "dora or pissa (PEFT adapts it as a parameter)",
                "use variant plain and dropout 0, or name the attention layers only",
            )
        )


def no_experts() -> MethodError:
    """The error of `experts: all` on a base without fused experts."""
    return MethodError(
        Problem("method.experts", "the base has no fused experts", "drop the field: it is for MoE bases")
    )


def feedforward_known(names: Iterable[str], method: Ia3) -> None:
    """PEFT leaves out in silence a feedforward target that is no target (the default's may be none); we refuse it."""
    leaves = {leaf(name) for name in names}
    unknown = [name for name in method.feedforward_targets if name not in leaves | set(Ia3().feedforward_targets)]
    if unknown:
        raise MethodError(
            Problem(
                "method.feedforward_targets",
                f"{unknown[0]!r} is not the last name part of any of method.targets",
                documents.did_you_mean(unknown[0], sorted(leaves)),
            )
        )


def block_divides(name: str, width: int, method: Oft) -> None:
    """PEFT silently takes another block size where it does not divide the input width; we refuse it."""
    if width % method.block_size:
        raise MethodError(
            Problem(
                "method.block_size",
                f"{method.block_size} does not divide the input width {width} of {name}",
                "choose a divisor of every target's width, or fewer targets",
            )
        )
