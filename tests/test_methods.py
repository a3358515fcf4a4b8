"""Every method trains through the command line, is proved, and loads where there is no workbench; proofs can fail."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import bitsandbytes
import peft
import pytest
import torch
from conftest import family_config, save_base
from safetensors.torch import load_file, save_file
from small_recipes import Workbench, call, losses, preferences, questions, run_of, train, write_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from workbench import bases, files
from workbench.bases import Loading
from workbench.errors import MethodError
from workbench.methods import proof, results
from workbench.methods.apply import apply
from workbench.methods.targets import TargetPlan, linear_layers, plan_targets, prove_adapted
from workbench.progress import Progress
from workbench.recipe.schema import Full, Ia3, Lora, Oft, Vera
from workbench.runs.run import Run
from workbench.training.reference import with_reference
from workbench.worker.setup import set_up
from workbench.worker.training import rows_of

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora", "rank": 4, "dropout": 0.1},
    "rslora": {"name": "lora", "rank": 4, "variant": "rslora"},
    "dora": {"name": "lora", "rank": 4, "variant": "dora", "dropout": 0.1},
    "pissa": {"name": "lora", "rank": 4, "variant": "pissa", "dropout": 0.1},
    "qlora-nf4": {"name": "qlora", "rank": 4, "dropout": 0.1},
    "qlora-fp4": {"name": "qlora", "rank": 4, "quantization": "fp4"},
    "qlora-single": {"name": "qlora", "rank": 4, "double_quantization": False, "variant": "dora"},
    "ia3": {"name": "ia3"},
    "vera": {"name": "vera", "rank": 16, "dropout": 0.1},
    "oft": {"name": "oft", "block_size": 16},
    "full": {"name": "full"},
}
PLACES = {"ia3": 6, "full": 25}  # of two layers with seven linear layers each; full: tensors


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A folder whose runs the tests of this file share. A step takes all rows, so that losses can be compared."""
    folder = tmp_path_factory.mktemp("methods")
    write_recipe(folder, small_base, questions(), training={"batch_size": 16})
    return folder


def flow(method: dict[str, Any]) -> str:
    return "method={" + ", ".join(f"{key}: {str(value).lower()}" for key, value in method.items()) + "}"


def trained(workbench: Workbench, room: Path, label: str) -> Run:
    return train(workbench, room / "small.yaml", room / "runs", flow(METHODS[label]))


def plain_base(base: Path, method: dict[str, Any] | None = None) -> Any:
    """The base as any other program loads it; in 4 bits for qlora."""
    if method is None or method["name"] != "qlora":
        return AutoModelForCausalLM.from_pretrained(base).eval()
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=method.get("quantization", "nf4"),
        bnb_4bit_use_double_quant=method.get("double_quantization", True),
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=four_bit, device_map={"": "cpu"}).eval()
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False  # its kernel rounds the scales, and fails on a width of 96
    return model


@pytest.mark.parametrize("label", METHODS)
def test_a_method_trains_is_proved_and_loads_with_plain_peft(
    workbench: Workbench, room: Path, small_base: Path, label: str
) -> None:
    method = METHODS[label]
    run = trained(workbench, room, label)
    assert len(losses(run)) == 8 and losses(run)[-1] < losses(run)[0]
    proved = files.read_json(run.proof)
    assert proved["moved"] == proved["places"] == PLACES.get(label, 14)
    assert proved["saved_against_memory"] <= proved["tolerance"]
    rows, memory = proof.load_probe(run.probe)
    if label == "full":
        model: Any = AutoModelForCausalLM.from_pretrained(run.adapter).eval()
    else:
        model = peft.PeftModel.from_pretrained(plain_base(small_base, method), run.adapter).eval()
        assert proved["saved_against_base"] > 0.01
    for ours, theirs in zip(memory, proof.logits(model, rows), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert len(AutoTokenizer.from_pretrained(run.adapter)) == len(AutoTokenizer.from_pretrained(small_base))


# A merge into 4-bit weights quantises the sum again and is another model; IA3 to full merge into plain weights.
@pytest.mark.parametrize("label", [label for label in METHODS if not label.startswith("qlora") and label != "full"])
def test_merged_and_unmerged_give_the_same_logits(
    workbench: Workbench, room: Path, small_base: Path, label: str
) -> None:
    run = trained(workbench, room, label)
    rows, memory = proof.load_probe(run.probe)
    merged = peft.PeftModel.from_pretrained(plain_base(small_base), run.adapter).merge_and_unload()
    assert not isinstance(merged, peft.PeftModel)
    assert proof.distance(memory, proof.logits(merged, rows)) < 1e-5


def test_qlora_is_trained_over_the_4_bit_base_and_kept_in_fp32(
    workbench: Workbench, room: Path, small_base: Path
) -> None:
    runs = {label: trained(workbench, room, label) for label in ("qlora-nf4", "qlora-fp4", "qlora-single")}
    for label, run in runs.items():
        saved = load_file(run.adapter / "adapter_model.safetensors")
        assert {weight.dtype for weight in saved.values()} == {torch.float32}
        rows, memory = proof.load_probe(run.probe)
        in_full_precision = peft.PeftModel.from_pretrained(plain_base(small_base), run.adapter).eval()
        assert proof.distance(memory, proof.logits(in_full_precision, rows)) > 1e-3, label
        total = files.read_json(run.training)["parameters"]
        assert total["total"] - total["trainable"] == sum(p.numel() for p in plain_base(small_base).parameters())


def test_qlora_loads_elsewhere_without_touching_the_kernels(
    workbench: Workbench, room: Path, tmp_path: Path, small_tokenizer: Any
) -> None:
    """On widths that the fast CPU kernel takes; it rounds the scales to bf16, hence the tolerance."""
    torch.manual_seed(0)
    config = family_config("qwen3", len(small_tokenizer))
    config.intermediate_size, config.eos_token_id = 128, small_tokenizer.eos_token_id
    base = tmp_path / "wide"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    small_tokenizer.save_pretrained(base)
    run = train(workbench, room / "small.yaml", room / "runs", f"base={base}", flow(METHODS["qlora-nf4"]))
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    loaded = AutoModelForCausalLM.from_pretrained(base, quantization_config=four_bit, device_map={"": "cpu"})
    rows, memory = proof.load_probe(run.probe)
    outside = proof.logits(peft.PeftModel.from_pretrained(loaded, run.adapter), rows)
    assert proof.distance(memory, outside) < 0.05
    assert proof.distance(memory, proof.logits(plain_base(base), rows)) > 0.5


def test_qlora_sits_on_every_linear_layer_of_a_mixture_of_experts(
    workbench: Workbench, room: Path, tmp_path: Path, small_tokenizer: Any
) -> None:
    """Where PEFT is given parameters by name; in 4 bits it must come to the same as modules."""
    base = save_base(tmp_path / "moe", "deepseek_v3", small_tokenizer)
    method = {"name": "qlora", "rank": 4}
    run = train(workbench, room / "small.yaml", room / "runs", f"base={base}", flow(method))
    assert files.read_json(run.proof)["places"] == 16
    rows, memory = proof.load_probe(run.probe)
    model = peft.PeftModel.from_pretrained(plain_base(base, method), run.adapter).eval()
    assert proof.distance(memory, proof.logits(model, rows)) < 1e-5
    shapes = {
        name.rpartition("mlp.")[2]: tuple(w.shape)
        for name, w in load_file(next(run.adapter.glob("*.safetensors"))).items()
    }
    assert shapes["gate_proj.lora_A.weight"] == (4, 64) and shapes["gate_proj.lora_B.weight"] == (96, 4)


def test_pissa_is_saved_as_an_ordinary_adapter_of_twice_the_rank(
    workbench: Workbench, room: Path, small_base: Path
) -> None:
    run = trained(workbench, room, "pissa")
    config = files.read_json(run.adapter / "adapter_config.json")
    assert config["r"] == 8 and config["init_lora_weights"] is not None
    assert not str(config["init_lora_weights"]).lower().startswith("pissa")
    down = load_file(run.adapter / "adapter_model.safetensors")
    assert {w.shape[0] for name, w in down.items() if "lora_A" in name} == {8}


def test_rslora_scales_by_the_root_of_the_rank(workbench: Workbench, room: Path) -> None:
    config = files.read_json(trained(workbench, room, "rslora").adapter / "adapter_config.json")
    assert config["use_rslora"] and config["lora_alpha"] == 8 and config["r"] == 4


# --- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ('["q_proj", "v_proj"]', ["self_attn.q_proj", "self_attn.v_proj"]),
        ('["*.1.mlp.*_proj"]', ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]),
        ('["model.layers.0.self_attn.o_proj"]', ["self_attn.o_proj"]),
    ],
)
def test_the_adapter_sits_exactly_where_the_targets_say(
    workbench: Workbench, room: Path, targets: str, expected: list[str]
) -> None:
    run = train(workbench, room / "small.yaml", room / "runs", f"method.targets={targets}")
    weights = load_file(run.adapter / "adapter_model.safetensors")
    owners = {name.removeprefix("base_model.model.model.layers.").partition(".lora_")[0] for name in weights}
    assert sorted({owner.partition(".")[2] for owner in owners}) == expected
    assert files.read_json(run.proof)["places"] == len(owners)


def test_a_target_that_matches_nothing_is_refused_and_the_message_lists_what_would(
    workbench: Workbench, room: Path
) -> None:
    outcome = call(workbench, room / "small.yaml", room / "runs", 'method.targets=["query", "q_prj", "v_proj"]')
    assert outcome.status == 2
    assert "'query' matches no linear layer" in outcome.output and "'q_prj'" in outcome.output
    assert "q_proj" in outcome.output and "down_proj" in outcome.output
    assert "'v_proj' matches" not in outcome.output


def test_an_adapter_elsewhere_than_planned_is_refused(small_base: Path) -> None:
    model = bases.load_model(Loading(small_base))
    names = linear_layers(model)
    trained_model = apply(model, Lora(rank=2, alpha=4.0, targets=["q_proj"]), seed=0)
    prove_adapted(trained_model, TargetPlan(tuple(name for name in names if name.endswith("q_proj"))))
    with pytest.raises(MethodError, match="elsewhere than planned"):
        prove_adapted(trained_model, TargetPlan(tuple(name for name in names if name.endswith(("q_proj", "k_proj")))))
    with pytest.raises(MethodError, match="elsewhere than planned"):
        prove_adapted(trained_model, TargetPlan(("model.layers.0.self_attn.q_proj",)))


def test_experts_on_a_dense_base_are_refused(workbench: Workbench, room: Path) -> None:
    outcome = call(workbench, room / "small.yaml", room / "runs", "method.experts=all")
    assert outcome.status == 2
    assert "method.experts" in outcome.output and "no fused experts" in outcome.output


def test_an_oft_block_that_does_not_divide_the_width_is_refused(workbench: Workbench, room: Path) -> None:
    outcome = call(workbench, room / "small.yaml", room / "runs", "method={name: oft, block_size: 64}")
    assert outcome.status == 2
    assert "method.block_size" in outcome.output and "64 does not divide the input width 96" in outcome.output


def test_a_feedforward_target_that_is_no_target_is_refused(workbench: Workbench, room: Path) -> None:
    wrong = "method={name: ia3, feedforward_targets: [dwn_proj]}"
    outcome = call(workbench, room / "small.yaml", room / "runs", wrong)
    assert outcome.status == 2
    assert "method.feedforward_targets" in outcome.output and "did you mean 'down_proj'" in outcome.output
    run = train(workbench, room / "small.yaml", room / "runs", "method={name: ia3, targets: [k_proj, v_proj]}")
    assert files.read_json(run.proof)["places"] == 4


def test_adapters_of_methods_with_random_parts_depend_on_the_seed_alone(small_base: Path) -> None:
    for method in (Lora(rank=2, alpha=4.0), Vera(rank=4), Ia3(), Oft(block_size=16)):
        made = []
        for seed in (0, 0, 1):
            torch.manual_seed(1000 * len(made))
            model = apply(bases.load_model(Loading(small_base)), method, seed)
            made.append({name: value.clone() for name, value in peft.get_peft_model_state_dict(model).items()})
        assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
        if isinstance(method, Lora | Vera):
            assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


# --- going on from an adapter ----------------------------------------------------------------------------------------


def test_init_from_goes_on_where_the_first_run_ended(workbench: Workbench, room: Path, small_base: Path) -> None:
    first = train(workbench, room / "small.yaml", room / "runs")
    second = train(workbench, room / "small.yaml", room / "runs", f"method.init_from={first.path}")
    assert second.path != first.path
    rows = rows_of(set_up(second, second.resolved(), None, Progress())).rows
    model = peft.PeftModel.from_pretrained(plain_base(small_base), first.adapter).eval()
    assert losses(second)[0] == pytest.approx(mean_loss(model, rows), rel=1e-5)
    config = files.read_json(second.adapter / "adapter_config.json")
    assert config["r"] == 4
    loaded = peft.PeftModel.from_pretrained(plain_base(small_base), second.adapter).eval()
    probe, memory = proof.load_probe(second.probe)
    assert proof.distance(memory, proof.logits(loaded, probe)) < 1e-5


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("method.rank=8", "rank 4, the recipe says 8"),
        ("method.alpha=64", "alpha 8, the recipe says 64"),
        ("method.variant=dora", "variant plain, the recipe says dora"),
        ('method.targets=["q_proj"]', "elsewhere than planned"),
    ],
)
def test_init_from_another_shape_is_refused(workbench: Workbench, room: Path, setting: str, found: str) -> None:
    first = train(workbench, room / "small.yaml", room / "runs")
    outcome = call(workbench, room / "small.yaml", room / "runs", f"method.init_from={first.path}", setting)
    assert outcome.status == 2
    assert found in outcome.output


def test_init_from_an_adapter_of_another_method_is_refused(workbench: Workbench, room: Path) -> None:
    first = trained(workbench, room, "ia3")
    outcome = call(workbench, room / "small.yaml", room / "runs", f"method.init_from={first.path}")
    assert outcome.status == 2
    assert "method.init_from" in outcome.output and "IA3" in outcome.output


def test_init_from_takes_the_recipes_dropout(small_base: Path, workbench: Workbench, room: Path) -> None:
    first = train(workbench, room / "small.yaml", room / "runs")
    method = Lora(rank=4, alpha=8.0, dropout=0.5, init_from=str(first.path))
    model = apply(bases.load_model(Loading(small_base)), method, 0, first.adapter)
    rates = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.5] * 14


# --- proofs can fail -------------------------------------------------------------------------------------------------


def moved(model: Any, *parts: str) -> None:
    """Stand in for training: nudge every trainable weight whose name holds one of the parts."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and any(part in name for part in parts):
                weight += 0.01


def test_places_that_did_not_move_are_named(small_base: Path) -> None:
    model = apply(bases.load_model(Loading(small_base)), Lora(rank=2, alpha=4.0), seed=0)
    before = proof.digests(model)
    with pytest.raises(MethodError, match=r"14 of 14 .* did not move"):
        proof.prove_trained(model, before)
    moved(model, "lora_A")  # without B the update is still zero
    with pytest.raises(MethodError, match=r"14 of 14 .* did not move"):
        proof.prove_trained(model, before)
    moved(model, "layers.0.", "q_proj.lora_B", "k_proj.lora_B", "v_proj.lora_B", "o_proj.lora_B", "mlp.up", "mlp.down")
    with pytest.raises(MethodError, match=r"1 of 14 .*layers\.1\.mlp\.gate_proj"):
        proof.prove_trained(model, before)
    moved(model, "gate_proj.lora_B")
    assert proof.prove_trained(model, before)["moved"] == 14


def test_a_weight_of_full_training_that_did_not_move_is_named(small_base: Path) -> None:
    model = apply(bases.load_model(Loading(small_base)), Full(), seed=0)
    before = proof.digests(model)
    moved(model, "proj", "norm", "lm_head")
    with pytest.raises(MethodError, match=r"1 of 25 .*embed_tokens"):
        proof.prove_trained(model, before)


def test_weights_outside_the_declared_ones_are_noticed(small_base: Path) -> None:
    model = apply(bases.load_model(Loading(small_base)), Lora(rank=2, alpha=4.0), seed=0)
    before = proof.digests(model)
    moved(model, "lora_")
    next(p for name, p in model.named_parameters() if "lm_head" in name).requires_grad_(True)
    with pytest.raises(MethodError, match="lm_head"):
        proof.prove_trained(model, before)


def test_planted_wrong_weights_are_refused_when_the_run_is_proved(
    workbench: Workbench, room: Path, tmp_path: Path
) -> None:
    honest = train(workbench, room / "small.yaml", room / "runs")
    run = Run(tmp_path / "planted" / honest.name)
    shutil.copytree(honest.path, run.path)
    file = run.adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "lora_B" in name)
    weights[name] = weights[name] + 0.05
    save_file(weights, file, metadata={"format": "pt"})
    run.proof.unlink()
    run.status.unlink()
    outcome = call(workbench, room / "small.yaml", run.path.parent)
    assert outcome.status == 2
    assert "the saved files give other logits" in outcome.output
    assert not run.is_finished() and not run.proof.exists()


def test_an_adapter_that_does_nothing_is_refused(workbench: Workbench, room: Path) -> None:
    outcome = call(workbench, room / "small.yaml", room / "runs", "training.learning_rate=1e-30")
    assert outcome.status == 2
    assert "same logits as the base: it does nothing" in outcome.output
    assert not run_of(outcome, room / "runs").is_finished()


def test_logits_are_compared_in_full() -> None:
    one = [torch.randn(5, 7, generator=torch.Generator().manual_seed(0))]
    base = [one[0] + 1.0]
    assert proof.prove_saved(one, one, base, "fp32")["saved_against_memory"] == 0.0
    other = [one[0].clone()]
    other[0][4, 6] += 0.01
    with pytest.raises(MethodError, match="other logits"):
        proof.prove_saved(one, other, base, "fp32")
    with pytest.raises(MethodError, match="does nothing"):
        proof.prove_saved(one, one, one, "fp32")


# --- precision and the optimizer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["lora", "dora", "qlora-nf4", "full"])
def test_bf16_runs_are_proved_too(workbench: Workbench, room: Path, small_base: Path, label: str) -> None:
    run = train(workbench, room / "small.yaml", room / "runs", flow(METHODS[label]), "training.precision=bf16")
    assert files.read_json(run.proof)["saved_against_memory"] <= files.read_json(run.proof)["tolerance"]
    file = "model.safetensors" if label == "full" else "adapter_model.safetensors"
    assert {weight.dtype for weight in load_file(run.adapter / file).values()} == {torch.float32}
    assert losses(run)[-1] < losses(run)[0]


def test_the_8_bit_optimizer_keeps_its_states_in_8_bits(workbench: Workbench, room: Path) -> None:
    settings = ("method.rank=64", "training.optimizer=adamw_8bit", "training.checkpoint_every=4")
    run = train(workbench, room / "small.yaml", room / "runs", *settings)
    states = torch.load(run.checkpoints / "checkpoint-8" / "optimizer.pt", weights_only=False)["state"]
    kinds = {state["__bnb_optimizer_quant_state__"]["state1"].dtype for state in states.values()}
    assert kinds == {torch.uint8, torch.float32}  # tensors of at least 4,096 numbers, and smaller ones
    assert losses(run)[-1] < losses(run)[0]


# --- dpo -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A recipe over preference pairs; each step takes all of them, so that losses of steps can be compared."""
    folder = tmp_path_factory.mktemp("pairs")
    training = {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "warmup_fraction": 0.0, "checkpoint_every": 5}
    write_recipe(folder, small_base, preferences(8), "preference", objective="dpo", training=training)
    return folder


def log_probability(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Sum of log-probabilities of the answer, one row at a time: plain transformers, no padding."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logs = torch.log_softmax(model(input_ids=ids).logits[0].double(), dim=-1)
    return sum((logs[at - 1, int(ids[0, at])] for at in range(len(prompt), ids.shape[1])), torch.tensor(0.0))


def mean_loss(model: Any, rows: Any) -> float:
    """Cross-entropy over the counted tokens of all rows, one row at a time."""
    total, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


@pytest.mark.parametrize("method", [{"name": "lora", "rank": 4}, {"name": "qlora", "rank": 4}, {"name": "full"}])
def test_dpo_lowers_its_loss_which_is_the_papers(
    workbench: Workbench, pairs: Path, small_base: Path, method: dict[str, Any]
) -> None:
    run = train(workbench, pairs / "small.yaml", pairs / "runs", flow(method))
    logged = losses(run)
    assert logged[0] == pytest.approx(math.log(2), rel=1e-5)  # the policy is the reference
    assert logged[-1] < 0.8 * logged[0]
    halfway = run.checkpoints / "checkpoint-5"
    base = plain_base(small_base, method)
    if method["name"] == "full":
        policy: Any = AutoModelForCausalLM.from_pretrained(halfway).eval()
    else:
        policy = peft.PeftModel.from_pretrained(plain_base(small_base, method), halfway).eval()
    by_hand = []
    for row in rows_of(set_up(run, run.resolved(), None, Progress())).rows:
        gains = [
            log_probability(policy, row["prompt_ids"], row[side]) - log_probability(base, row["prompt_ids"], row[side])
            for side in ("chosen_ids", "rejected_ids")
        ]
        by_hand.append(-torch.nn.functional.logsigmoid(0.1 * (gains[0] - gains[1])))
    assert logged[5] == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-4)


def test_reference_log_probabilities_are_those_of_plain_transformers(
    workbench: Workbench, pairs: Path, small_base: Path
) -> None:
    run = train(workbench, pairs / "small.yaml", pairs / "runs", "method={name: lora, rank: 4}")
    rows = rows_of(set_up(run, run.resolved(), None, Progress())).rows
    base = plain_base(small_base)
    found = with_reference(rows, base, "fp32", 0, 3, Progress())
    assert len(found) == 8
    for row in found:
        for side in ("chosen", "rejected"):
            ours = float(log_probability(base, row["prompt_ids"], row[f"{side}_ids"]))
            assert row[f"ref_{side}_logps"] == pytest.approx(ours, rel=1e-5)


def test_ipo_starts_at_its_own_constant(workbench: Workbench, pairs: Path) -> None:
    run = train(workbench, pairs / "small.yaml", pairs / "runs", "objective.loss=ipo")
    assert losses(run)[0] == pytest.approx((1 / (2 * 0.1)) ** 2, rel=1e-5)
    assert losses(run)[-1] < losses(run)[0]


def test_dpo_after_sft_takes_the_adapter_as_its_reference(
    workbench: Workbench, room: Path, pairs: Path, small_base: Path
) -> None:
    first = train(workbench, room / "small.yaml", room / "runs")
    run = train(workbench, pairs / "small.yaml", pairs / "runs", f"method.init_from={first.path}")
    assert losses(run)[0] == pytest.approx(math.log(2), rel=1e-5)
    assert sorted(path.name for path in run.adapter.iterdir() if path.is_dir()) == []  # no second adapter `ref`
    probe, memory = proof.load_probe(run.probe)
    assert proof.distance(memory, proof.logits(results.load(Loading(small_base), run.adapter), probe)) < 1e-5


def test_a_plan_names_parameters_only_where_peft_would_rewrite_modules(small_base: Path) -> None:
    plan = plan_targets(bases.load_model(Loading(small_base)), Lora(rank=2, alpha=4.0))
    assert len(plan.modules) == 14 and plan.parameters == ()
    assert plan.places() == frozenset(plan.modules)
