"""What a method trains on an architecture: its linear layers, and how many parameters, as PEFT counts them."""

from __future__ import annotations

from dataclasses import replace

from workbench.plan.architecture import Architecture, Linear
from workbench.plan.targets import block_divides, feedforward_known, matching, no_experts, takes_parameters
from workbench.recipe.schema import Full, Ia3, Lora, NoMethod, Oft, Qlora, Vera
from workbench.recipe.section import Section


def targeted(architecture: Architecture, method: Section) -> tuple[Linear, ...]:
    """The linear layers that carry an adapter, each with the layers in which it does; none where there is no adapter.

    Fused experts, where they are adapted, are linear layers with all experts of a layer stacked.

    Raises:
        MethodError: a target matches nothing or cannot be adapted so, or there are no fused experts to adapt.
    """
    if isinstance(method, Full | NoMethod):
        return ()
    assert isinstance(method, Lora | Qlora | Ia3 | Vera | Oft)
    places = {
        f"model.layers.{at}.{linear.path}": (linear, at) for linear in architecture.linears for at in linear.places
    }
    chosen: dict[Linear, list[int]] = {}
    for name in matching(list(places), method.targets):
        linear, at = places[name]
        chosen.setdefault(linear, []).append(at)
    found = tuple(replace(linear, places=tuple(places)) for linear, places in chosen.items())
    if isinstance(method, Lora | Qlora):  # PEFT rewrites no other method's targets
        for linear in found:
            if linear.as_parameter:
                takes_parameters(f"model.layers.{linear.places[0]}.{linear.path}", method)
    if not isinstance(method, Lora):  # a matrix in 4 bits gets an ordinary adapter, whatever its name
        found = tuple(replace(linear, as_parameter=False) for linear in found)
    wants_experts = isinstance(method, Lora | Qlora) and method.experts == "all"
    return found + (expert_linears(architecture) if wants_experts else ())


def expert_linears(architecture: Architecture) -> tuple[Linear, ...]:
    """The routed experts as linear layers.

    Raises:
        MethodError: there are none.
    """
    experts, hidden = architecture.experts, architecture.hidden
    if experts is None:
        raise no_experts()
    widths = {"gate_up_proj": (hidden, 2 * experts.intermediate), "down_proj": (experts.intermediate, hidden)}
    return tuple(
        Linear(f"mlp.experts.{name}", inputs, outputs, experts.places, as_parameter=True, stacked=experts.total)
        for name, (inputs, outputs) in widths.items()
    )


def trainable_parameters(architecture: Architecture, method: Section) -> int:
    """How many parameters a method trains.

    LoRA (arXiv 2106.09685): rank * (inputs + outputs) a matrix, every expert's of a fused tensor among them; DoRA
    (2402.09353): also a magnitude an output. IA3 (2205.05638): a scale an output, or an input of feedforward targets.
    VeRA (2310.11454): a scale an output and one a rank; the projections are shared and not trained. OFT (2306.07280):
    the triangle of each block along the inputs.

    Raises:
        MethodError: as `targeted`; or a block size that does not divide a width, or a feedforward target that is no
            target.
    """
    if isinstance(method, Full):
        return architecture.parameters
    linears = targeted(architecture, method)
    if isinstance(method, Ia3):
        feedforward_known((linear.path for linear in linears), method)
    return sum(linear.copies * _trained(linear, method) for linear in linears)


def _trained(linear: Linear, method: Section) -> int:
    """Parameters on one matrix."""
    if isinstance(method, Lora | Qlora):
        return method.rank * (linear.inputs + linear.outputs) + linear.outputs * (method.variant == "dora")
    if isinstance(method, Ia3):
        return linear.inputs if linear.leaf in method.feedforward_targets else linear.outputs
    if isinstance(method, Vera):
        return method.rank + linear.outputs
    assert isinstance(method, Oft)
    block_divides(linear.path, linear.inputs, method)
    return linear.inputs // method.block_size * (method.block_size * (method.block_size - 1) // 2)
