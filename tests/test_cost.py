"""The closed form of the operations against a counter of the real ones; parameter counts against published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from conftest import FAMILIES, family_config
from small_recipes import Workbench, preferences, questions, train, write_recipe
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from workbench import bases, files
from workbench.bases import Loading
from workbench.methods.apply import apply
from workbench.methods.counting import parameter_counts, work_of
from workbench.plan.cost import Work, forward_flops, training_flops
from workbench.recipe.schema import Full, Ia3, Lora, Oft, Qlora, Vera
from workbench.recipe.section import Section

ROWS, LENGTH = 2, 96


def small_model(family: str, layers: int = 6) -> Any:
    """Attention and experts in plain torch operations: the counter does not see fused kernels on a CPU."""
    values = family_config(family, 512).to_dict()
    for derived in ("layer_types", "mlp_layer_types"):  # lists of one entry a layer
        values.pop(derived, None)
    config = type(family_config(family, 512))(**{**values, "num_hidden_layers": layers})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.set_experts_implementation("eager")
    return model


def measured(model: Any) -> tuple[float, float]:
    """(forward, forward and backward) operations of two rows, counted one by one."""
    ids = torch.randint(0, 512, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        forward = counter.get_total_flops()
        loss.backward()
    return float(forward), float(counter.get_total_flops())


def predicted(model: Any) -> tuple[float, float]:
    work = work_of(model)
    tokens, squares = ROWS * LENGTH, ROWS * LENGTH**2
    return forward_flops(work, tokens, squares), training_flops(work, tokens, squares)


@pytest.mark.parametrize("family", FAMILIES)
def test_full_training_is_counted_exactly(family: str) -> None:
    model = apply(small_model(family), Full(), 0)
    assert predicted(model) == pytest.approx(measured(model), rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_is_counted_but_for_the_first_layers_input_gradients(family: str) -> None:
    """Nothing below the first adapter wants gradients, so torch leaves out the gradients of the inputs of its query,
    key and value weights. The closed form counts them: 1 to 2 % of six layers, 0.2 % of forty; never too little."""
    model = apply(small_model(family), Lora(rank=8, alpha=16.0, targets=["*self_attn*"]), 0)
    forward, both = measured(model)
    ours_forward, ours_both = predicted(model)
    assert ours_forward == pytest.approx(forward, rel=1e-9)
    assert both <= ours_both <= 1.03 * both


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_on_all_linear_layers_is_counted_closely(family: str) -> None:
    """As above; and where PEFT adapts layers as parameters (the shared experts of DeepSeek), it adds B A to the weight
    instead of passing each token through A and B: 4 % at these widths of 64, nothing to speak of at real ones."""
    model = apply(small_model(family), Lora(rank=8, alpha=16.0), 0)
    assert predicted(model) == pytest.approx(measured(model), rel=0.05)


def test_the_gap_of_lora_shrinks_with_depth() -> None:
    gaps = []
    for layers in (2, 8):
        model = apply(small_model("llama", layers), Lora(rank=8, alpha=16.0), 0)
        gaps.append(predicted(model)[1] / measured(model)[1] - 1)
    assert gaps[0] > 2 * gaps[1] > 0


@pytest.mark.parametrize(
    ("method", "low", "high"),
    [
        (Vera(rank=64), 0.98, 1.02),
        (Ia3(), 1.0, 1.03),
        # Building the rotations is left out: it depends on the weights alone, not on the tokens.
        (Oft(block_size=8), 0.97, 1.02),
    ],
)
def test_other_adapters_are_counted_too(method: Section, low: float, high: float) -> None:
    model = apply(small_model("qwen3"), method, 0)
    _, both = measured(model)
    assert low * both <= predicted(model)[1] <= high * both


def test_the_formula_says_what_its_source_says() -> None:
    work = Work(frozen_parameters=90.0, trained_parameters=10.0, attention_width=4, layers=3)
    assert forward_flops(work, 7, 49) == 2 * 100 * 7 + 2 * 3 * 4 * 49
    assert training_flops(work, 7, 49) == (4 * 90 + 6 * 10) * 7 + 3 * (2 * 3 * 4 * 49)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "method", [Lora(rank=8, alpha=16.0), Vera(rank=16), Full()], ids=lambda method: str(method.name)
)
def test_parameters_are_counted_as_peft_counts_them(family: str, method: Section) -> None:
    model = apply(small_model(family, layers=2), method, 0)
    counted = parameter_counts(model)
    if isinstance(model, peft.PeftModel):
        trainable, total = model.get_nb_trainable_parameters()
        assert counted == {"total": total, "trainable": trainable}
    else:
        assert counted["total"] == counted["trainable"] == model.num_parameters()


def test_tied_weights_are_one_parameter_and_one_product() -> None:
    values = {**family_config("llama", 512).to_dict(), "tie_word_embeddings": True}
    tied = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**values), attn_implementation="eager")
    untied = small_model("llama", layers=2)
    assert parameter_counts(untied)["total"] - parameter_counts(tied)["total"] == 512 * 64
    assert work_of(tied) == work_of(untied)


def test_4_bit_weights_count_as_what_they_stand_for(small_base: Path) -> None:
    plain = apply(bases.load_model(Loading(small_base)), Lora(rank=4, alpha=8.0), 0)
    packed = apply(bases.load_model(Loading(small_base, quantization="nf4")), Qlora(rank=4, alpha=8.0), 0)
    assert parameter_counts(packed) == parameter_counts(plain)
    assert work_of(packed) == work_of(plain)


def on_meta(shared: Path, name: str) -> Any:
    """A published architecture without its weights."""
    config = AutoConfig.from_pretrained(shared / "configs" / f"{name}_config.json")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


# Of the model cards (Qwen3: total, non-embedding, activated) and papers, in billions as published. What is active of
# Qwen3-30B-A3B is 3.35 with both tables: the card's 3.3 is rounded down.
PUBLISHED = {
    "qwen3-8B": {"total": 8.2, "non_embedding": 6.95, "active": 8.2},
    "qwen3-30B-A3B": {"total": 30.5, "non_embedding": 29.9, "active": 3.3},
    "llama-3.1-8b": {"total": 8.03, "non_embedding": 6.98, "active": 8.03},
    "llama-3.2-3b": {"total": 3.21, "non_embedding": 2.82, "active": 3.21},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(shared: Path, name: str) -> None:
    model = on_meta(shared, name)
    work, published = work_of(model), PUBLISHED[name]
    total = parameter_counts(model)["total"]
    tables = {id(table.weight): table.weight.numel() for table in (model.get_input_embeddings(), model.lm_head)}
    outside = sum(tables.values()) - (model.lm_head.weight.numel())  # the input table, where it is one of its own
    active = work.frozen_parameters + work.trained_parameters + outside
    found = {"total": total, "non_embedding": total - sum(tables.values()), "active": active}
    for what, billions in published.items():
        unit = 10.0 ** -len(str(billions).partition(".")[2])
        assert billions - unit / 2 <= found[what] / 1e9 <= billions + unit * 0.6, what


def test_a_token_passes_through_eight_of_128_experts(shared: Path) -> None:
    model = on_meta(shared, "qwen3-30B-A3B")
    experts = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    rest = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if ".experts." not in name and "embed_tokens" not in name and weight.ndim == 2
    )
    assert experts == 48 * 128 * 3 * 2048 * 768
    work = work_of(model)
    assert work.frozen_parameters + work.trained_parameters == experts * 8 / 128 + rest
    assert (work.layers, work.attention_width) == (48, 32 * 2 * 128)


def test_latent_attention_has_two_widths(shared: Path) -> None:
    model = small_model("deepseek_v3", layers=2)
    assert work_of(model).attention_width == 4 * (16 + 8 + 16)


# --- what a run records ----------------------------------------------------------------------------------------------


def test_a_runs_operations_are_those_of_its_tokens(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    run = train(workbench, write_recipe(tmp_path, small_base, questions()), tmp_path / "runs")
    recorded, last = files.read_json(run.training), list(files.read_jsonl(run.metrics))[-1]
    model = apply(bases.load_model(Loading(small_base)), Lora(rank=4, alpha=8.0), 0)
    assert recorded["cost"]["training_flops"] == training_flops(work_of(model), last["tokens"], last["squared_lengths"])
    assert recorded["cost"]["training_flops"] == files.read_json(run.cost)["training_flops"]
    assert recorded["parameters"] == parameter_counts(model)


def test_dpo_adds_one_pass_of_the_reference(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    training = {"batch_size": 8, "steps": 2}
    recipe = write_recipe(tmp_path, small_base, preferences(), "preference", objective="dpo", training=training)
    run = train(workbench, recipe, tmp_path / "runs")
    recorded, rows = files.read_json(run.training), list(files.read_jsonl(run.metrics))
    work = Work(**recorded["work"])
    one_pass = (rows[0]["tokens"], rows[0]["squared_lengths"])  # a step holds all pairs
    steps = training_flops(work, rows[-1]["tokens"], rows[-1]["squared_lengths"])
    assert recorded["cost"]["training_flops"] == pytest.approx(steps + forward_flops(work, *one_pass), rel=1e-12)
