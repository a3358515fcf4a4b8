"""The rule table: every rule fires on a recipe and not on its near twin, its cure cures, and the catalog's facts that
rules stand on are held."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, write_rows

from workbench.catalog.backends import backends
from workbench.errors import RecipeError
from workbench.recipe import rules
from workbench.recipe.fields import field_names
from workbench.recipe.load import load
from workbench.recipe.resolve import looked_up, resolve
from workbench.recipe.resolved import Resolved
from workbench.recipe.rules.rule import Rule
from workbench.verbs import rules as verb

RECIPE = "base: ./base\ndata: rows\ntarget: cpu\n"
COLUMNS = {"prompt": "question", "completion": "answer"}
CARDS = {
    "rows": {"format": "prompt_completion", "columns": COLUMNS},
    "texts": {"format": "text", "columns": {"text": "question"}},
    "pairs": {"format": "preference", "columns": {"prompt": "question", "chosen": "answer", "rejected": "answer"}},
    "talks": {"format": "messages", "columns": {"messages": "question"}},
}

Workplace = Callable[..., Resolved]


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over a directory that looks like a base, beside cards of every format and a target of every backend."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text('{"model_type": "llama"}')
    write_rows(folder / "datasets" / "train.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    for name, card in CARDS.items():
        splits = {"train": {"files": "train.jsonl"}, "test": {"files": "train.jsonl"}}
        (folder / "datasets" / f"{name}.yaml").write_text(json.dumps(card | {"splits": splits}))
    (folder / "suites").mkdir()
    (folder / "suites" / "sums.yaml").write_text("tasks: [{name: generate, id: sums, data: rows}]\n")
    (folder / "targets.yaml").write_text(json.dumps({"targets": [*(on(name) for name in backends()), OLD_GPU]}))
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def on(backend: str) -> dict[str, object]:
    """A target of a backend whose row promises everything, so that only the backend's capabilities speak."""
    device = backends()[backend].device
    row = {"name": f"on-{backend}", "device": device, "backend": backend, "memory_gib": 64.0, "bf16": True, "nf4": True}
    return row | {"source": "made up", "as_of": "2026-11-28"}


OLD_GPU = on("cuda") | {"name": "old-gpu", "bf16": False}
"""As a T4 or V100 is."""


@pytest.fixture
def resolved(recipe: Path) -> Workplace:
    """`--set` words -> the recipe with them, looked up and not refused."""
    return lambda *settings: looked_up(load(recipe, settings))


DPO = ("objective=dpo", "data=pairs", "training.learning_rate=5e-6")
TEXT = ("objective=pretrain", "data=texts")
GPU = ("target=h200",)
TWO = ("target=h200", "target.devices=2")
NEXT = ("base=qwen3-next-80b-a3b-instruct", "target=h200")
DEEPSEEK = ("base=deepseek-v3", "target=h200")
EXPERTS = ("base=qwen3-30b-a3b", "target=h200")
OSS = ("base=gpt-oss-20b", "target=h200")
SMALL = ("base=qwen3-0.6b", "target=h200")

CASES: dict[str, tuple[tuple[str, ...], str]] = {
    # recipes
    "length-twice": (("training={epochs: 1, steps: 1}",), "training.steps=2"),
    "unknown-split": (("data.split=dev",), "data.split=test"),
    "sft-rows": (("data=texts",), "objective=pretrain"),
    "pretrain-rows": (("objective=pretrain",), "data=texts"),
    "dpo-rows": (("objective=dpo",), "data=pairs"),
    "shuffled-answers": ((*TEXT, "data.shuffle_labels=yes"), "data.shuffle_labels=no"),
    "shuffled-turns": (("data=talks", "data.shuffle_labels=yes"), "objective.turns=last"),
    "system-of-raw-text": ((*TEXT, "data.system=Be brief."), "data.system="),
    "longer-than-context": ((*SMALL, "data.max_length=40961"), "data.max_length=32768"),
    "revision-of-directory": (("base.revision=main",), "base.revision="),
    "remote-code-pinned": (
        ("base={name: owner/model, trust_remote_code: true, revision: main}",),
        f"base.revision={'0123abcdef' * 4}",
    ),
    "nothing-to-do": (("method=none",), "evaluation.suite=sums"),
    "fewshot-without-suite": (("evaluation.fewshot=2",), "evaluation.suite=sums"),
    "router-loss-base": ((*DEEPSEEK, "training.router_loss=0.01"), "base=qwen3-30b-a3b"),
    "router-loss-micro-batches": ((*EXPERTS, "training.router_loss=0.01"), "training.router_loss=0"),
    "no-checkpoint": (("training.steps=500", "training.checkpoint_every=500"), "training.checkpoint_every=499"),
    "dpo-learning-rate": ((*DPO, "training.learning_rate=2e-4"), "training.learning_rate=5e-5"),
    "full-learning-rate": ((*SMALL, "method=full"), "training.learning_rate=1e-4"),
    "adapter-learning-rate": ((*SMALL, "training.learning_rate=2e-5"), "training.learning_rate=1e-4"),
    "adapter-batch-size": (("training.batch_size=64",), "training.batch_size=32"),
    # methods
    "experts-dropout": ((*EXPERTS, "method.experts=all", "method.dropout=0.1"), "method.dropout=0"),
    "experts-variant": ((*EXPERTS, "method.experts=all", "method.variant=dora"), "method.variant=rslora"),
    "experts-dense": ((*SMALL, "method.experts=all"), "base=qwen3-30b-a3b"),
    "shared-experts-dropout": ((*DEEPSEEK, "method.dropout=0.1"), "method.targets=[o_proj]"),
    "shared-experts-variant": ((*DEEPSEEK, "method.variant=pissa"), "base=qwen3-30b-a3b"),
    "latent-attention-names": ((*DEEPSEEK, "method.targets=[q_proj]"), "base=deepseek-v2-lite"),
    "fused-experts-names": ((*EXPERTS, "method.targets=[down_proj]"), "base=glm-4.5-air"),
    "head-target": (("method.targets=[q_proj, lm_head]",), "method.targets=[q_proj, down_proj]"),
    "oft-block": ((*SMALL, "method={name: oft, block_size: 48}"), "method.block_size=64"),
    "dpo-pissa": ((*DPO, "method.variant=pissa"), "method.variant=plain"),
    "pissa-from-adapter": (("method={name: lora, variant: pissa, init_from: ./run}",), "method.variant=plain"),
    "adapter-on-random": (("base.init=random",), "method=full"),
    "attention-only": (("method.targets=[q_proj, v_proj]",), "method.targets=[q_proj, v_proj, up_proj]"),
    "rank-above-width": (("base=llama-3.2-1b", "method.rank=513"), "method.rank=512"),
    "dora-dropout": (("method={name: lora, variant: dora, dropout: 0.1}",), "method.dropout=0"),
    # bases in 4 bits
    "four-bit-device": (("method=qlora", "target=ascend-910b"), "method=lora"),
    "four-bit-unproved": (
        ("method={name: qlora, double_quantization: no}", "target=on-npu"),
        "target=on-xpu",
    ),
    "double-quantization-device": (("method=qlora", "target=on-npu"), "method.double_quantization=no"),
    "four-bit-of-quantized": ((*DEEPSEEK, "method=qlora"), "base=deepseek-v2-lite"),
    "four-bit-random": (
        ("base.init=random", "method={name: none, quantization: nf4}", "evaluation.suite=sums"),
        "base.init=pretrained",
    ),
    "four-bit-experts": ((*EXPERTS, "method=qlora"), "base=qwen3-8b"),
    "fp4": (("method={name: qlora, quantization: fp4}",), "method.quantization=nf4"),
    "mxfp4-training": (OSS, "base=ernie-4.5-21b-a3b"),
    # precision
    "bf16-device": (("target=old-gpu", "training.precision=bf16"), "target=h200"),
    "bf16-emulated": (("target=on-mps", "training.precision=bf16"), "training.precision=fp32"),
    "fp16-device": (("training.precision=fp16",), "target=old-gpu"),
    "fp16-unused": (("base=qwen3-8b", "target=old-gpu"), "training.precision=fp16"),
    "fp16-beside-bf16": ((*GPU, "training.precision=fp16"), "target=old-gpu"),
    "fp16-base": (("base=qwen2.5-7b-instruct", "target=old-gpu", "training.precision=fp16"), "base=qwen3-8b"),
    "eager-low-precision": (("base=qwen2.5-7b-instruct", *GPU, "target.attention=eager"), "training.precision=fp32"),
    "flash-attention-fp32": (
        (*GPU, "target.attention=flash_attention_2", "training.precision=fp32"),
        "training.precision=bf16",
    ),
    # several devices
    "several-unshared": ((*TWO, "target.sharding=none"), "target.sharding=ddp"),
    "sharded-alone": ((*GPU, "target.sharding=fsdp"), "target.devices=2"),
    "sharding-device": (("target=on-mps", "target.devices=2"), "target.devices=1"),
    "batch-below-devices": ((*GPU, "target.devices=8", "training.batch_size=6"), "training.batch_size=8"),
    "fsdp-eight-bit-optimizer": (
        (*TWO, "target.sharding=fsdp", "training.optimizer=paged_adamw_8bit"),
        "target.sharding=ddp",
    ),
    "fsdp-storage-type": (
        (*TWO, "target.sharding=fsdp", "method={name: qlora, storage: fp32}"),
        "training.precision=fp32",
    ),
    "fsdp-storage-bytes": (
        (*TWO, "target.sharding=fsdp", "method={name: qlora, storage: uint8}"),
        "target.sharding=ddp",
    ),
    "fsdp-pissa": ((*TWO, "target.sharding=fsdp", "method={name: lora, variant: pissa}"), "target.sharding=ddp"),
    "fsdp-dpo": ((*DPO, *TWO, "target.sharding=fsdp"), "target.sharding=ddp"),
    "fsdp-across-nodes": ((*TWO, "target.nodes=2", "target.sharding=fsdp"), "target.nodes=1"),
    "fsdp-on-ascend": (("target=ascend-910b", "target.devices=2", "target.sharding=fsdp"), "target=h200"),
    # devices
    "paged-on-cpu": (("training.optimizer=paged_adamw_8bit",), "training.optimizer=adamw_8bit"),
    "paged-unproved": (("target=on-rocm", "training.optimizer=paged_adamw_8bit"), "target=on-cuda"),
    "eight-bit-optimizer-device": (("target=on-npu", "training.optimizer=adamw_8bit"), "target=on-xpu"),
    "flash-attention-device": (
        ("target.attention=flash_attention_2", "training.precision=bf16"),
        "target=h200",
    ),
    "flash-attention-unproved": (("target=on-mlu", "target.attention=flash_attention_2"), "target=on-npu"),
    "flash-attention-base": (
        ("base=deepseek-v3.2", *GPU, "target.attention=flash_attention_2"),
        "base=deepseek-v3",
    ),
    "sdpa-base": ((*OSS, "target.attention=sdpa"), "target.attention=eager"),
    "compile-device": (("target=on-mps", "target.compile=yes"), "target=on-xpu"),
    "compile-on-cpu": (("target.compile=yes",), "target=h200"),
    "liger-device": (("target.kernels=liger",), "target=on-rocm"),
    "liger-unproved": (("target=on-xpu", "target.kernels=liger"), "target=on-cuda"),
    "liger-base": (("base=minimax-m2", *GPU, "target.kernels=liger"), "base=qwen3-30b-a3b"),
    # how a step is computed
    "dpo-flattened": ((*DPO, "target.layout=flattened"), "target.layout=padded"),
    "flattened-recurrent": ((*NEXT, "target.layout=flattened"), "base=qwen3-30b-a3b"),
    "flattened-attention": ((*OSS, "target.layout=flattened"), "base=qwen3-30b-a3b"),
    "flattened-dense-attention": ((*GPU, "target.layout=flattened"), "target.attention=flash_attention_2"),
    "eager-long-rows": ((*SMALL, "target.attention=eager"), "data.max_length=4096"),
    "micro-batch-below-row": (("data.max_length=8193",), "data.max_length=8192"),
    "compile-four-bit": ((*SMALL, "method=qlora", "target.compile=yes"), "method=lora"),
    "compile-checkpointed-dropout": (
        (*SMALL, "target.compile=yes", "target.gradient_checkpointing=yes", "method.dropout=0.1"),
        "target.gradient_checkpointing=no",
    ),
    "eight-bit-small": ((*SMALL, "method.rank=1", "training.optimizer=adamw_8bit"), "method.rank=2"),
    # tracking
    "password-in-uri": (
        ("tracking.mlflow.uri=postgresql://me:secret@host/db",),
        "tracking.mlflow.uri=postgresql://me@host/db",
    ),
}
"""Rule -> the `--set` words of a recipe that breaks it, and the one more that mends it."""

EVERY_RULE = pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.id)


def broken(resolved: Resolved) -> set[str]:
    """The ids of the rules that a recipe breaks."""
    return {rule.id for rule in rules.broken(resolved)}


# --- each rule -------------------------------------------------------------------------------------------------------


def test_every_rule_has_its_two_cases_and_no_case_is_for_another() -> None:
    ids = [rule.id for rule in rules.RULES]
    assert len(set(ids)) == len(ids) >= 45
    assert set(ids) == CASES.keys()
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)


@EVERY_RULE
def test_a_recipe_breaks_the_rule_and_its_twin_does_not(resolved: Workplace, rule: Rule) -> None:
    trigger, change = CASES[rule.id]
    before = resolved(*trigger)
    assert rule.id in broken(before)
    assert {one.id for one in rules.broken(before, "illegal")} <= {rule.id}, "one cause is refused once"
    assert rule.id not in broken(resolved(*trigger, change))


@EVERY_RULE
def test_a_rule_says_where_why_what_and_whence(rule: Rule) -> None:
    assert ".".join(map(str, rule.field)) in field_names()
    assert rule.level in ("illegal", "unwise")
    for sentence in (rule.reason, rule.fix, rule.source):
        assert len(sentence) > 2
        assert "\n" not in sentence
        assert not sentence.endswith(".")


ONLY_A_PERSON = {"nothing-to-do", "four-bit-experts", "mxfp4-training", "fsdp-across-nodes"}
"""Rules whose way out is no setting: which suite, which base, which machines."""


@EVERY_RULE
def test_the_cure_mends_the_recipe_and_breaks_nothing_else(resolved: Workplace, rule: Rule) -> None:
    trigger, _ = CASES[rule.id]
    before = resolved(*trigger)
    settings = rule.settings(before)
    assert bool(settings) == (rule.id not in ONLY_A_PERSON)
    if settings:
        after = resolved(*trigger, *settings)
        assert rule.id not in broken(after)
        assert rules.broken(after, "illegal") == [], "the cure leads into a refusal"


@EVERY_RULE
def test_what_is_illegal_is_refused_with_its_place_and_advice_and_what_is_unwise_is_not(
    recipe: Path, rule: Rule
) -> None:
    loaded = load(recipe, CASES[rule.id][0])
    told = f"{'.'.join(map(str, rule.field))}: {rule.reason}\n    {rule.advice(looked_up(loaded))}"
    if rule.level == "illegal":
        with pytest.raises(RecipeError) as refused:
            resolve(loaded)
        assert told in str(refused.value)
    else:
        assert rule.reason not in said(lambda: resolve(loaded))


def said(act: Callable[[], object]) -> str:
    """The refusal's words, or none."""
    try:
        act()
    except RecipeError as error:
        return str(error)
    return ""


@EVERY_RULE
def test_a_rule_that_is_taken_out_turned_round_or_weighed_otherwise_is_noticed(
    recipe: Path, resolved: Workplace, monkeypatch: pytest.MonkeyPatch, rule: Rule
) -> None:
    trigger, change = CASES[rule.id]
    rest = tuple(one for one in rules.RULES if one is not rule)
    monkeypatch.setattr(rules, "RULES", rest)
    assert rule.id not in broken(resolved(*trigger))
    turned = dataclasses.replace(rule, breaks=lambda one: not rule.breaks(one))
    monkeypatch.setattr(rules, "RULES", (*rest, turned))
    assert rule.id not in broken(resolved(*trigger))
    assert rule.id in broken(resolved(*trigger, change))
    other = dataclasses.replace(rule, level="unwise" if rule.level == "illegal" else "illegal")
    monkeypatch.setattr(rules, "RULES", (*rest, other))
    assert (rule.reason in said(lambda: resolve(load(recipe, trigger)))) == (rule.level == "unwise")


# --- cures that keep what was said -----------------------------------------------------------------------------------


def test_on_ascend_lora_in_bf16_is_offered_in_place_of_qlora(recipe: Path) -> None:
    refused = said(lambda: resolve(load(recipe, ["method=qlora", "target=ascend-910b"])))
    assert "method.name: bitsandbytes has no 4-bit kernels for this target\n    use method lora" in refused
    assert refused.endswith("(--set method=lora --set training.precision=bf16)")


def test_lora_in_place_of_qlora_keeps_what_the_recipe_said_of_the_adapter(resolved: Workplace) -> None:
    method = "method={name: qlora, rank: 8, targets: [q_proj, up_proj], variant: rslora, double_quantization: no}"
    before = resolved(method, "target=ascend-910b")
    [rule] = [rule for rule in rules.broken(before) if rule.id == "four-bit-device"]
    after = resolved(method, "target=ascend-910b", *rule.settings(before)).recipe.method
    assert after.model_dump(exclude={"init_from"}) == {
        "name": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": ["q_proj", "up_proj"], "experts": "none",
        "variant": "rslora",
    }  # fmt: skip
    assert "--set 'method.targets=[q_proj,up_proj]'" in rule.advice(before)


def test_all_broken_rules_are_told_at_once(recipe: Path) -> None:
    refused = said(lambda: resolve(load(recipe, ["training={epochs: 1, steps: 1}", "objective=pretrain"])))
    assert "both epochs and steps are given" in refused
    assert "pretrain needs rows of raw text" in refused


# --- what the catalog says of each kind of device --------------------------------------------------------------------

ASKING: dict[str, tuple[str, ...]] = {
    "nf4": ("method=qlora",),
    "double_quantization": ("method=qlora",),
    "bf16": ("training.precision=bf16",),
    "fp16": ("training.precision=fp16",),
    "eight_bit_optimizers": ("training.optimizer=adamw_8bit",),
    "paged_optimizers": ("training.optimizer=paged_adamw_8bit",),
    "flash_attention": ("target.attention=flash_attention_2", "training.precision=bf16"),
    "compile": ("target.compile=yes",),
    "liger": ("target.kernels=liger",),
    "ddp": ("target.devices=2",),
}
"""Capability of a backend -> a recipe that needs it."""

OF_BACKENDS = {
    "nf4": {"four-bit-device": "mlu musa", "four-bit-unproved": "npu hpu"},
    "double_quantization": {"double-quantization-device": "npu"},
    "bf16": {"bf16-emulated": "mps"},
    "fp16": {"fp16-device": "cpu"},
    "eight_bit_optimizers": {"eight-bit-optimizer-device": "npu hpu mps mlu musa"},
    "paged_optimizers": {"paged-on-cpu": "cpu", "paged-unproved": "rocm xpu"},
    "flash_attention": {"flash-attention-device": "cpu hpu mps", "flash-attention-unproved": "xpu mlu musa"},
    "compile": {"compile-device": "npu hpu mps mlu musa"},
    "liger": {"liger-device": "cpu npu hpu mps mlu musa", "liger-unproved": "xpu"},
    "ddp": {"sharding-device": "mps"},
}
"""Capability -> rule -> the backends on which that recipe breaks it. Written out by hand: a changed value of
backends.yaml that a rule reads changes this table."""


@pytest.mark.parametrize("capability", ASKING)
@pytest.mark.parametrize("backend", backends())
def test_a_backend_has_what_the_catalog_says(resolved: Workplace, backend: str, capability: str) -> None:
    found = broken(resolved(*ASKING[capability], f"target.name=on-{backend}"))
    table = OF_BACKENDS[capability]
    assert found & table.keys() == {rule for rule, names in table.items() if backend in names.split()}


def test_every_capability_that_a_rule_reads_is_asked_for() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workbench/recipe/rules").glob("*.py"))
    assert set(re.findall(r"capabilities\(\)\.(\w+)", text)) == ASKING.keys() == OF_BACKENDS.keys()


# --- the verb and the page -------------------------------------------------------------------------------------------


def test_the_page_is_the_table() -> None:
    assert (ROOT / "docs" / "rules.md").read_text(encoding="utf-8") == verb.page(), (
        "make it again: workbench rules --markdown > docs/rules.md"
    )


def test_the_verb_lists_the_rules_that_hold_all_words(workbench: Callable[..., object]) -> None:
    outcome = workbench("rules", "liger", "illegal")
    assert outcome.status == 0
    assert "liger-device" in outcome.output
    assert "liger-base" not in outcome.output
    assert workbench("rules").output.count("\n") >= 3 * len(rules.RULES)
    assert workbench("rules", "--markdown").output == verb.page()
    nothing = workbench("rules", "nosuchword")
    assert nothing.status == 2
    assert "none matches nosuchword" in nothing.output


def test_check_says_what_is_unwise_and_where(workbench: Callable[..., object], recipe: Path) -> None:
    outcome = workbench("check", str(recipe), "--set", "training.batch_size=64", "--set", "target.compile=yes")
    assert outcome.status == 0
    assert re.search(r"^ok recipe: sft with lora", outcome.output, re.MULTILINE)
    assert "unwise --set training.batch_size training.batch_size: adapters bear large batches worse" in outcome.output
    assert "use 32 or less (--set training.batch_size=32)" in outcome.output
    assert "unwise --set target.compile target.compile: compiling takes minutes" in outcome.output
    assert "unwise" not in workbench("check", str(recipe)).output
