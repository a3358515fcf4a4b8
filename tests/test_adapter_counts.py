"""Counted from numbers alone: the same targets and the same trainable parameters as the adapters that PEFT makes."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_architectures import model_of, small_config

from workbench.catalog.bases import bases
from workbench.errors import MethodError
from workbench.methods.apply import apply
from workbench.methods.counting import parameter_counts
from workbench.methods.targets import adapted
from workbench.plan.adapters import targeted, trainable_parameters
from workbench.plan.architecture import Architecture
from workbench.plan.shapes import from_config, from_row
from workbench.recipe.schema import Full, Ia3, Lora, NoMethod, Oft, Qlora, Vera
from workbench.recipe.section import Section

ATTENTION = ["q_proj", "v_proj"]
METHODS: dict[str, Section] = {
    "lora": Lora(rank=4, alpha=8),
    "lora-attention": Lora(rank=3, alpha=8, targets=ATTENTION, dropout=0.1),
    "lora-glob": Lora(rank=2, alpha=8, targets=["model.layers.[13].self_attn.*_proj", "mlp.down_proj"]),
    "rslora": Lora(rank=4, alpha=8, variant="rslora"),
    "dora": Lora(rank=4, alpha=8, variant="dora"),
    "dora-attention": Lora(rank=4, alpha=8, variant="dora", targets=ATTENTION),
    "pissa-attention": Lora(rank=4, alpha=8, variant="pissa", targets=ATTENTION),
    "experts": Lora(rank=2, alpha=4, experts="all"),
    "experts-attention": Lora(rank=2, alpha=4, experts="all", targets=["self_attn.q_proj"]),
    "ia3": Ia3(),
    "ia3-all": Ia3(targets="all-linear"),
    "ia3-feedforward": Ia3(targets=["q_proj", "up_proj"], feedforward_targets=["q_proj"]),
    "vera": Vera(rank=16),
    "vera-attention": Vera(rank=8, targets=ATTENTION),
    "oft": Oft(block_size=8),
    "oft-attention": Oft(block_size=16, targets=ATTENTION),
    "full": Full(),
}
KINDS = (
    "llama-biased-tied", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe-slides", "qwen3_next",
    "qwen3_5", "qwen3_5_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4", "glm4_moe", "minimax_m2",
    "ernie4_5", "ernie4_5_moe", "gpt_oss", "hunyuan_v1_dense", "hunyuan_v1_moe", "gemma", "gemma2", "gemma3_text",
)  # fmt: skip


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Small models with real weights, one a type; copied for each adapter."""
    return {kind: model_of(small_config(kind), "cpu") for kind in KINDS}


def outcome(made: Any) -> Any:
    """What a call gives, or the problems that it raises."""
    try:
        return made()
    except MethodError as error:
        return [str(problem) for problem in error.problems]


def places(architecture: Architecture, method: Section) -> set[str]:
    """The modules that would carry an adapter; those of fused experts are one module a layer."""
    return {
        f"model.layers.{at}.{linear.path.rpartition('.')[0] if linear.stacked > 1 else linear.path}"
        for linear in targeted(architecture, method)
        for at in linear.places
    }


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_places_and_counts_are_those_of_the_adapter(models: dict[str, Any], kind: str, name: str) -> None:
    """Or both refuse it with the same words."""
    method, architecture = METHODS[name], from_config(small_config(kind))
    model = outcome(lambda: apply(copy.deepcopy(models[kind]), method, seed=0))
    ours = outcome(lambda: trainable_parameters(architecture, method))
    if isinstance(model, list):
        assert ours == model
        return
    assert ours == parameter_counts(model)["trainable"]
    assert places(architecture, method) == adapted(model)


def test_something_is_refused_and_something_is_not(models: dict[str, Any]) -> None:
    """So that the test above cannot pass on refusals alone."""
    refused = {
        (kind, name)
        for kind in KINDS
        for name, method in METHODS.items()
        if isinstance(outcome(lambda method=method, kind=kind: trainable_parameters(
            from_config(small_config(kind)), method)), list)
    }  # fmt: skip
    assert ("qwen3_moe-slides", "dora") in refused and ("llama-biased-tied", "experts") in refused
    for name in ("lora", "rslora", "ia3-all", "vera", "oft", "full"):
        assert not {kind for kind in KINDS if (kind, name) in refused}
    assert {kind for kind in KINDS if (kind, "experts") not in refused} == {
        "mixtral", "qwen2_moe", "qwen3_moe-slides", "qwen3_next", "qwen3_5_moe", "deepseek_v2", "deepseek_v3",
        "deepseek_v32", "glm4_moe", "minimax_m2", "ernie4_5_moe", "gpt_oss", "hunyuan_v1_moe",
    }  # fmt: skip


def test_no_method_trains_nothing_and_qlora_as_much_as_lora() -> None:
    architecture = from_row(bases()["qwen3-8b"])
    assert trainable_parameters(architecture, NoMethod()) == 0
    assert targeted(architecture, NoMethod()) == targeted(architecture, Full()) == ()
    assert trainable_parameters(architecture, Qlora(rank=8)) == trainable_parameters(architecture, Lora(rank=8))


def test_a_linear_layer_is_adapted_as_a_parameter_by_lora_alone() -> None:
    architecture = from_row(bases()["glm-4.5-air"])
    by_lora = {linear.path for linear in targeted(architecture, Lora()) if linear.as_parameter}
    assert by_lora == {f"mlp.{part}{leaf}_proj" for part in ("", "shared_experts.") for leaf in ("gate", "up", "down")}
    assert not any(linear.as_parameter for linear in targeted(architecture, Oft()))
    by_qlora = targeted(architecture, Qlora(experts="all"))
    assert {linear.path: linear.stacked for linear in by_qlora if linear.as_parameter} == {
        "mlp.experts.gate_up_proj": 128, "mlp.experts.down_proj": 128,
    }  # fmt: skip


FULL_SIZE: dict[str, Section] = {
    "lora": Lora(rank=32, alpha=64),
    "experts": Lora(rank=2, alpha=4, experts="all"),
    "dora": Lora(rank=32, alpha=64, variant="dora"),
    "ia3": Ia3(targets="all-linear"),
    "vera": Vera(),
    "oft": Oft(block_size=32, targets=["o_proj"]),
}


@pytest.mark.parametrize("method", FULL_SIZE.values(), ids=FULL_SIZE)
@pytest.mark.parametrize(
    "name", ["qwen3-8B", "llama-3.2-3b", "qwen3-30B-A3B", "qwen3-next-80B-A3B", "minimax-m2", "deepseek_v3"]
)
def test_counts_hold_at_full_size(shared: Path, name: str, method: Section) -> None:
    """On the meta device, which holds 671 billion parameters in no memory."""
    config = json.loads((shared / "configs" / f"{name}_config.json").read_text())
    ours = outcome(lambda: trainable_parameters(from_config(config), method))
    with torch.device("meta"):
        model = outcome(lambda: apply(model_of(config), method, seed=0))
    assert ours == (model if isinstance(model, list) else parameter_counts(model)["trainable"])


MLP = ["gate_proj", "up_proj", "down_proj"]
ANCHORS: dict[str, Section] = {
    "lora--llama-3.2-3B-rank32": Lora(rank=32, targets=ATTENTION),
    "lora--llama-3.2-3B-rank64": Lora(rank=64, targets=ATTENTION),
    "lora--llama-3.2-3B-rank64-rslora": Lora(rank=64, targets=ATTENTION, variant="rslora"),
    "lora--llama-3.2-3B-rank32-dora": Lora(rank=32, targets=ATTENTION, variant="dora"),
    "lora--llama-3.2-3B-rank10-target-mlp": Lora(rank=10, targets=MLP),
    "ia3--llama-3.2-3B-default": Ia3(),
    "ia3--llama-3.2-3B-lr_0.001": Ia3(),
    "ia3--llama-3.2-3B-all-attn-5k-lr0.005": Ia3(targets="all-linear", feedforward_targets=MLP),
    "vera--llama-3.2-3B-default": Vera(rank=256, targets=ATTENTION),
    "oft--llama-3.2-3B-rank32": Oft(block_size=96, targets=ATTENTION),  # 32 blocks of 3072 inputs
    "full-finetuning--llama-3.2-3B-lr_0.00001": Full(),
}
"""Measured runs of PEFT's own comparison (its defaults for Llama adapt q and v), in our words."""


@pytest.mark.parametrize("experiment", ANCHORS)
def test_measured_runs_trained_as_many_parameters(shared: Path, experiment: str) -> None:
    with (shared / "anchors" / "peft_metamathqa_results.csv").open() as file:
        measured = {row["experiment"]: int(row["trainable_params"]) for row in csv.DictReader(file)}
    for architecture in (
        from_row(bases()["llama-3.2-3b"]),
        from_config(json.loads((shared / "configs" / "llama-3.2-3b_config.json").read_text())),
    ):
        assert trainable_parameters(architecture, ANCHORS[experiment]) == measured[experiment]


def test_a_glob_counts_the_layers_that_it_names() -> None:
    architecture = from_row(bases()["qwen3-8b"])
    named = {
        "model.layers.0.self_attn.q_proj": 1,
        "model.layers.*.self_attn.q_proj": 36,
        "model.layers.3[0-9].self_attn.q_proj": 6,
        "*q_proj": 36,
        "self_attn.q_proj": 36,
    }
    for target, copies in named.items():
        (linear,) = targeted(architecture, Lora(targets=[target]))
        assert (linear.path, linear.copies) == ("self_attn.q_proj", copies)
    assert len(targeted(architecture, Lora(targets=["k_proj", "*.mlp.*"]))) == 4


def test_a_name_that_matches_nothing_is_told_with_the_nearest() -> None:
    architecture = from_row(bases()["qwen3-8b"])
    with pytest.raises(MethodError) as caught:
        targeted(architecture, Lora(targets=["q_prj", "k_proj", "model.layers.36.*"]))
    first, second = caught.value.problems
    assert first.found == "'q_prj' matches no linear layer" and first.do.startswith("did you mean 'q_proj'? allowed:")
    assert second.found == "'model.layers.36.*' matches no linear layer"
    with pytest.raises(MethodError, match="100 does not divide the input width 4096"):
        trainable_parameters(architecture, Oft(block_size=100))
    with pytest.raises(MethodError, match="'up_proj' is not the last name part"):
        trainable_parameters(architecture, Ia3(feedforward_targets=["up_proj"]))
