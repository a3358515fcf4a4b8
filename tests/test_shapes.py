"""Architectures counted from numbers are those that transformers builds (on the meta device: no memory, all sizes)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_architectures import SMALL, model_of, small_config
from torch import nn

from workbench.catalog.bases import BaseRow, bases
from workbench.errors import BaseError, ShapeError
from workbench.methods.targets import fused_experts
from workbench.plan.architecture import Architecture
from workbench.plan.families import FAMILIES
from workbench.plan.shapes import from_config, from_row, known_types

PUBLISHED_BILLIONS = {
    "deepseek_v3": 671.03, "deepseek_v3.2": 671.88, "qwen3-8B": 8.19, "qwen3-30B-A3B": 30.53, "qwen3-235B-A22B": 235.09,
    "qwen3-next-80B-A3B": 79.67, "qwen3.5-35B-A3B": 34.66, "qwen3.5-122B-A10B": 122.11, "glm45": 352.8,
    "kimi_k2": 1026.41, "llama-3.1-8b": 8.03, "llama-3.2-3b": 3.21, "qwen3-4b-2507": 4.02, "minimax-m2": 228.69,
    "ernie-4.5-21b-a3b": 21.83,
}  # fmt: skip
"""As the README beside the stored configurations says."""


def stored(shared: Path, name: str) -> dict[str, Any]:
    return json.loads((shared / "configs" / f"{name}_config.json").read_text())


def linears_of(architecture: Architecture) -> dict[str, tuple[int, int, bool]]:
    return {
        f"model.layers.{at}.{linear.path}": (linear.inputs, linear.outputs, linear.bias)
        for linear in architecture.linears
        for at in linear.places
    }


def assert_same(architecture: Architecture, model: Any) -> None:
    """Every number of an architecture against the modules of the model."""
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    head = model.get_output_embeddings()
    linear = {name: module for name, module in modules.items() if isinstance(module, nn.Linear) and module is not head}
    assert architecture.name == type(model).__name__
    assert architecture.parameters == sum(parameter.numel() for parameter in parameters.values())
    assert linears_of(architecture) == {
        name: (module.in_features, module.out_features, module.bias is not None) for name, module in linear.items()
    }
    assert architecture.tied == (head.weight is model.get_input_embeddings().weight)
    assert architecture.context == model.config.get_text_config().max_position_embeddings
    experts = architecture.experts
    shapes = {name: tuple(parameters[name].shape) for name in fused_experts(model)}
    assert len(shapes) == (2 * experts.layers if experts else 0)
    assert architecture.expert_parameters == sum(
        parameter.numel() for name, parameter in parameters.items() if ".experts." in name
    )
    if experts:
        hidden, inner = architecture.hidden, experts.intermediate
        for at in experts.places:
            for name, sides in (("gate_up_proj", (hidden, 2 * inner)), ("down_proj", (hidden, inner))):
                shape = shapes[f"model.layers.{at}.mlp.experts.{name}"]
                assert (shape[0], sorted(shape[1:])) == (experts.total, sorted(sides))
    multiplied = ("mlp.gate.weight", "mlp.router.weight", "conv1d.weight")
    assert architecture.router_parameters == sum(
        parameter.numel()
        for name, parameter in parameters.items()
        if name.endswith(multiplied) and name.removesuffix(".weight") not in linear
    )
    assert_same_attention(architecture, model)


def assert_same_attention(architecture: Architecture, model: Any) -> None:
    found: dict[tuple[Any, ...], int] = {}
    everywhere = getattr(model.config, "sliding_window", None) if architecture.name.startswith("Mi") else None
    for layer in model.model.layers:
        if hasattr(layer, "linear_attn"):
            part = layer.linear_attn
            key = ("linear", part.num_v_heads, part.num_k_heads, part.head_k_dim, part.head_v_dim, None)
        elif hasattr(layer.self_attn, "kv_b_proj"):
            part = layer.self_attn
            key = ("latent", part.num_heads, part.num_heads, part.qk_head_dim, part.v_head_dim, None)
        else:
            part, settings = layer.self_attn, model.config
            window = getattr(part, "sliding_window", None) or everywhere
            kind = "sliding" if window else "full"
            heads, kv_heads = settings.num_attention_heads, settings.num_key_value_heads
            assert part.o_proj.in_features == heads * part.head_dim
            key = (kind, heads, kv_heads, part.head_dim, part.head_dim, window)
        found[key] = found.get(key, 0) + 1
    assert found == {
        (kind.kind, kind.heads, kind.kv_heads, kind.key_dim, kind.value_dim, kind.window): kind.layers
        for kind in architecture.attentions
    }


@pytest.mark.parametrize("name", SMALL)
def test_a_small_model_of_every_type_is_the_one_that_transformers_builds(name: str) -> None:
    config = small_config(name)
    assert_same(from_config(config), model_of(config))


@pytest.mark.parametrize("kind", sorted(FAMILIES.keys() - {"deepseek_v2"}))
def test_what_a_configuration_leaves_out_is_taken_as_transformers_takes_it(kind: str) -> None:
    """(deepseek_v2 without the number of active experts cannot be run; it has a test among the bad ones.)"""
    needed = {"hidden_size": 256, "num_attention_heads": 32, "vocab_size": 512, "intermediate_size": 128}
    config = {"model_type": kind, "num_hidden_layers": 7, **needed}
    if kind.startswith("hunyuan"):
        config["head_dim"] = 16  # transformers cannot build it without
    assert_same(from_config(config), model_of(config | {"pad_token_id": 0}))


@pytest.mark.parametrize("name", PUBLISHED_BILLIONS)
def test_a_real_configuration_is_counted_as_published_and_as_built(shared: Path, name: str) -> None:
    config = stored(shared, name)
    architecture = from_config(config)
    assert architecture.parameters == pytest.approx(PUBLISHED_BILLIONS[name] * 1e9, rel=0.005)
    assert_same(architecture, model_of(config))


@pytest.mark.parametrize("row", bases().values(), ids=bases())
def test_a_row_of_the_catalog_has_the_parameters_that_it_says(row: BaseRow) -> None:
    architecture = from_row(row)
    assert architecture.parameters == row.parameters
    assert architecture.active_parameters == row.active_parameters
    assert (architecture.name, architecture.context) == (row.architecture, row.context)


ROW_OF = {
    "deepseek_v3": "deepseek-v3", "deepseek_v3.2": "deepseek-v3.2", "qwen3-8B": "qwen3-8b",
    "qwen3-30B-A3B": "qwen3-30b-a3b", "qwen3-next-80B-A3B": "qwen3-next-80b-a3b-instruct", "glm45": "glm-4.5",
    "kimi_k2": "kimi-k2-instruct", "llama-3.1-8b": "llama-3.1-8b", "llama-3.2-3b": "llama-3.2-3b",
    "qwen3-4b-2507": "qwen3-4b-instruct-2507", "minimax-m2": "minimax-m2", "ernie-4.5-21b-a3b": "ernie-4.5-21b-a3b",
}  # fmt: skip


@pytest.mark.parametrize("name", ROW_OF)
def test_a_row_and_the_config_of_the_same_base_are_the_same_architecture(shared: Path, name: str) -> None:
    assert from_row(bases()[ROW_OF[name]]) == from_config(stored(shared, name))


def test_rows_know_windows_that_change_no_count() -> None:
    windows = {kind.kind: (kind.layers, kind.window) for kind in from_row(bases()["gpt-oss-20b"]).attentions}
    assert windows == {"sliding": (12, 128), "full": (12, None)}
    assert [kind.window for kind in from_row(bases()["mistral-7b-v0.3"]).attentions] == [None]


def test_a_text_part_is_tied_by_its_own_word() -> None:
    """transformers builds the text part from its own configuration, and so do we."""
    config = small_config("qwen3_5")
    for outer in (True, False):
        for inner in (True, False):
            both = {**config, "tie_word_embeddings": outer}
            both["text_config"] = {**config["text_config"], "tie_word_embeddings": inner}
            assert_same(from_config(both), model_of(both))


# --- bad configurations ----------------------------------------------------------------------------------------------


def refused(config: Any) -> list[str]:
    with pytest.raises(ShapeError) as caught:
        from_config(config, "somewhere/config.json")
    assert isinstance(caught.value, BaseError)
    return [str(problem) for problem in caught.value.problems]


def test_an_unknown_type_is_named_with_those_that_are_known() -> None:
    (problem,) = refused({"model_type": "qwen33", "hidden_size": 64})
    assert problem.startswith("somewhere/config.json model_type: 'qwen33' cannot be counted")
    assert "did you mean 'qwen3'?" in problem and "deepseek_v3" in problem
    assert "model_type: is missing" in refused({})[0]
    assert "is no table of fields" in refused([1, 2])[0]
    assert {"llama", "kimi_k2", "qwen3_5_moe", "gpt_oss"} <= set(known_types())


def test_all_missing_keys_are_named_at_once() -> None:
    config = small_config("llama")
    del config["hidden_size"], config["vocab_size"]
    assert [problem.splitlines()[0] for problem in refused(config)] == [
        "somewhere/config.json hidden_size: is missing",
        "somewhere/config.json vocab_size: is missing",
    ]
    nested = small_config("qwen3_5_moe")
    del nested["text_config"]["num_hidden_layers"]
    assert "somewhere/config.json text_config num_hidden_layers: is missing" in refused(nested)[0]
    assert "num_experts_per_tok: is None" in refused(small_config("deepseek_v2") | {"num_experts_per_tok": None})[0]


@pytest.mark.parametrize(
    ("kind", "key", "value", "need"),
    [
        ("llama", "hidden_size", "wide", "a whole number of at least 1"),
        ("llama", "num_hidden_layers", 0, "a whole number of at least 1"),
        ("llama", "vocab_size", 3.5, "a whole number of at least 1"),
        ("llama", "num_attention_heads", True, "a whole number of at least 1"),
        ("llama", "num_key_value_heads", "2", "a whole number of at least 1"),
        ("llama", "tie_word_embeddings", "yes", "true or false"),
        ("llama", "intermediate_size", None, "a whole number of at least 1"),
        ("qwen3", "layer_types", ["full_attention"], "a list of 4 words"),
        ("qwen3", "layer_types", ["full_attention"] * 3 + ["round"], "of: full_attention, sliding_attention"),
        ("qwen3_moe", "mlp_only_layers", "first", "a list of layers"),
        ("deepseek_v3", "first_k_dense_replace", -1, "a whole number of at least 0"),
        ("hunyuan_v1_moe", "moe_topk", [2, 2, 1, 2], "one number for all layers"),
    ],
)
def test_a_value_that_cannot_stand_there_is_named(kind: str, key: str, value: Any, need: str) -> None:
    (problem,) = refused(small_config(kind) | {key: value})
    assert problem.startswith(f"somewhere/config.json {key}: is {repr(value)[:60]}")
    assert need in problem


def test_a_row_of_an_unknown_architecture_is_refused() -> None:
    row = bases()["qwen3-8b"].model_copy(update={"architecture": "MambaForCausalLM"})
    with pytest.raises(ShapeError, match="'MambaForCausalLM' cannot be counted"):
        from_row(row)


def test_counting_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, workbench.plan.shapes, workbench.plan.adapters;"
        "print([name for name in ('torch', 'transformers', 'peft', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
