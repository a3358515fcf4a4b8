"""Which weights an adapter sits on: names resolved by us, and the adapted set proved to be the planned one.

PEFT rewrites targets on bases whose experts transformers 5 fuses into one parameter: `gate_proj`, `up_proj` and
`down_proj` of the dense and shared layers become those of the experts. So on such bases they are named as parameters
(`....weight`), which PEFT leaves as they are; experts are adapted only where the recipe asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from workbench.errors import MethodError, Problem
from workbench.plan import targets as named
from workbench.recipe.schema import Lora, Qlora


@dataclass(frozen=True)
class TargetPlan:
    """The full names that an adapter is to sit on."""

    modules: tuple[str, ...]
    """Linear layers."""
    parameters: tuple[str, ...] = ()
    """Parameters: fused experts, and linear layers that PEFT would rewrite."""

    def places(self) -> frozenset[str]:
        """Modules, and the modules that own the parameters."""
        return frozenset(self.modules) | {name.rpartition(".")[0] for name in self.parameters}


def plan_targets(model: nn.Module, method: Any) -> TargetPlan:
    """Resolve `method.targets` and `method.experts` against a base.

    Raises:
        MethodError: a target matches nothing, or the base has no fused experts.
    """
    chosen = matching(model, method.targets)
    if not isinstance(method, Lora | Qlora):
        return TargetPlan(tuple(chosen))
    experts = fused_experts(model)
    rewritten = [name for name in chosen if experts and named.leaf(name) in named.REWRITTEN]
    if rewritten:
        named.takes_parameters(rewritten[0], method)
    parameters = [f"{name}.weight" for name in rewritten]
    if method.experts == "all":
        if not experts:
            raise named.no_experts()
        parameters += experts
    modules = [name for name in chosen if name not in set(rewritten)]
    return TargetPlan(tuple(modules), tuple(parameters))


def linear_layers(model: nn.Module) -> list[str]:
    """Full names of all linear layers but the output head."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]


def fused_experts(model: nn.Module) -> list[str]:
    """Full names of the parameters that hold all experts of a layer in one tensor [experts, out, in]."""
    return [name for name, parameter in model.named_parameters() if parameter.ndim == 3 and ".experts." in name]


def matching(model: nn.Module, targets: str | Iterable[str]) -> list[str]:
    """Linear layers that `all-linear`, a last name part or a glob stands for, in the model's order.

    Raises:
        MethodError: a target matches nothing; lists what would match.
    """
    return named.matching(linear_layers(model), targets)


def adapted(model: nn.Module) -> frozenset[str]:
    """The places that carry an adapter, named as in the bare base."""
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            bare = name.removeprefix("base_model.model.")
            while bare.endswith(".base_layer"):
                bare = bare.removesuffix(".base_layer")
            found.add(bare)
    return frozenset(found)


def prove_adapted(model: nn.Module, plan: TargetPlan) -> None:
    """Raise unless the adapter sits on exactly the planned places."""
    have, want = adapted(model), plan.places()
    if have == want:
        return
    missing, extra = sorted(want - have)[:3], sorted(have - want)[:3]
    raise MethodError(
        Problem(
            "method.targets",
            f"the adapter sits elsewhere than planned (missing {missing}, extra {extra})",
            "please report this base: PEFT rewrites its targets",
        )
    )
