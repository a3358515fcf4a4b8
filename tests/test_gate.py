"""The gate before every comparison: planted confounds are named; what follows passes, and what is harmless is so."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, write_rows
from gate_runs import TOKENIZER, Desk, edit, rows, score, write_base, write_hub_base
from small_recipes import Workbench, losses, questions, train, write_recipe

from workbench import files
from workbench.compare import gate
from workbench.compare.facts import Facts, is_under, run_facts
from workbench.compare.fields import RULES, is_known
from workbench.compare.gate import Finding, Gate
from workbench.errors import ComparisonRefusedError
from workbench.runs.run import Run, without_measured

COMMITS = ("a" * 40, "b" * 40)
GPU = ("target=cuda", "training.precision=fp32")
RANK = "method.rank=8"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


def held(vary: Sequence[str] = (), **runs: Run) -> Gate:
    """The gate over runs, an arm each."""
    return gate.check({name: [run_facts(run, "sums")] for name, run in runs.items()}, vary)


def named(findings: Sequence[Finding]) -> set[str]:
    """The fields of some findings."""
    return {found.field for found in findings}


# --- planted confounds -----------------------------------------------------------------------------------------------
# Two arms that are meant to differ in their rank, and differ in something else as well.


def other(*overrides: str, **changes: Any) -> Callable[[Desk], Run]:
    """A plant in the second arm's recipe, or in what it was run with."""
    return lambda desk: desk.finished(RANK, *overrides, name="two", **changes)


def after(act: Callable[[Desk], object], *overrides: str) -> Callable[[Desk], Run]:
    """A plant in what the second arm found when it was run."""

    def plant(desk: Desk) -> Run:
        act(desk)
        return desk.finished(RANK, *overrides, name="two")

    return plant


def then(act: Callable[[Run], object], *overrides: str) -> Callable[[Desk], Run]:
    """A plant in the second arm's finished run."""

    def plant(desk: Desk) -> Run:
        run = desk.finished(RANK, *overrides, name="two")
        act(run)
        return run

    return plant


def in_scores(*place: str, to: Any) -> Callable[[Run], None]:
    return lambda run: edit(run.results("sums"), *place, to=to)


def change_item(desk: Desk) -> None:
    items = list(files.read_jsonl(desk.items))
    items[7]["completion"] = "10"
    write_rows(desk.items, items)


def contaminate(desk: Desk) -> None:
    """One of the items also stands in the rows."""
    write_rows(desk.rows, [*rows(), {"prompt": "5 + 2?", "completion": "7"}])


def start(desk: Desk, content: str = "weights") -> Path:
    """An adapter that others start from."""
    folder = desk.folder / "start" / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(content)
    return folder


def write_template(desk: Desk) -> None:
    (desk.folder / "brief.jinja").write_text("{{ messages[-1].content }}")


def write_hub(_desk: Desk) -> None:
    for commit in COMMITS:
        write_hub_base("me/small", commit)


def nothing(_desk: Desk) -> None:
    """The desk as it is."""


Plant = tuple[Callable[[Desk], Run], Sequence[str]]
PLANTED: dict[str, Plant] = {
    "another split seed": (after(lambda desk: desk.card("rows", split_seed=1)), ["rows.card.split_seed"]),
    "other columns of the card": (
        after(lambda desk: desk.card("rows", columns={"prompt": "Question: {prompt}"})),
        ["rows.card.columns.prompt", "prepared.fingerprint"],
    ),
    "another split": (other("data.split=other"), ["data.split", "rows.share"]),
    "one changed item": (after(change_item), ["scoring.fingerprint", "scoring.questions_fingerprint"]),
    "another metric version": (then(in_scores("metric_version", to=0)), ["scoring.metric_version"]),
    "another template": (
        other("data.template=plain"), ["rows.template", "prepared.template", "scoring.template.sums"]
    ),
    "another template file": (
        after(write_template, "data.template=./brief.jinja"), ["rows.template", "scoring.template.sums"]
    ),
    "another system message": (other("data.system=Be brief."), ["data.system", "scoring.template.sums"]),
    "another batch size": (other("training.batch_size=8"), ["training.batch_size", "budget.steps"]),
    "another generation limit": (
        after(lambda desk: desk.suite(max_new_tokens=4)), ["scoring.fingerprint", "scoring.questions_fingerprint"]
    ),
    "a smaller share of the rows": (other("data.fraction=0.9"), ["data.fraction", "prepared.rows_in"]),
    "a tenth more rows in the file": (
        after(lambda desk: write_rows(desk.rows, rows(66))), ["rows.files", "prepared.rows_trained", "budget.examples"]
    ),
    "the same number of other rows": (
        after(lambda desk: write_rows(desk.rows, rows(60, start=1))), ["rows.files", "prepared.fingerprint"]
    ),
    "more epochs": (other("training.epochs=2"), ["training.epochs", "budget.steps", "budget.examples"]),
    "another learning rate": (other("training.learning_rate=1e-3"), ["training.learning_rate"]),
    "another schedule": (other("training.schedule=constant"), ["training.schedule"]),
    "another optimizer": (other("training.optimizer=adamw_8bit"), ["training.optimizer"]),
    "dropout": (other("method.dropout=0.1"), ["method.dropout"]),
    "an alpha that does not follow the rank": (other("method.alpha=64"), ["method.alpha"]),
    "one changed weight file of the base": (
        after(lambda desk: write_base(desk.base, **{"model.safetensors": "v"})),
        ["base.files.weights.model.safetensors"],
    ),
    "another tokenizer": (
        after(lambda desk: write_base(desk.base, **{"tokenizer.json": '{"characters": 2}'})),
        ["base.files.tokenizer.json", "base.tokenizer"],
    ),
    "bf16 against fp32": (
        other("training.precision=bf16"), ["dtype", "scoring.dtype", "scoring.batch_size", "scoring.attention"]
    ),
    "a GPU against a CPU": (
        other(*GPU), ["device", "machine.device", "scoring.device", "scoring.batch_size", "scoring.attention"]
    ),
    "another torch": (other(versions={"torch": "2.12.0"}), ["versions.torch"]),
    "another transformers": (
        other(versions={"transformers": "5.22.0"}), ["versions.transformers"]
    ),
    "another peft": (other(versions={"peft": "0.21.1"}), ["versions.peft"]),
    "a package that the other had not": (other(versions={"bitsandbytes": "0.50.2"}), ["versions.bitsandbytes"]),
    "another workbench": (other(versions={"workbench": "0.2"}), ["versions.workbench"]),
    "another meaning of the defaults": (
        then(lambda run: edit(run.identity_file, "schema", to=0)), ["versions.identity"]
    ),
    "another processor": (other(hardware={"machine": "aarch64"}), ["machine.machine"]),
    "other seeds": (other("seed=1"), ["seed"]),
    "other lengths, with rows left out": (
        other("data.max_length=24", "data.too_long=drop"),
        ["data.max_length", "data.too_long", "prepared.rows_trained", "prepared.rows_dropped.too long"],
    ),
    "shuffled labels": (other("data.shuffle_labels=yes"), ["data.shuffle_labels", "prepared.fingerprint"]),
    "fewer examples than the recipe says": (
        then(lambda run: edit(run.cost, "examples", to=50)), ["budget.examples"]
    ),
    "another start": (
        after(start, "method.init_from=./start"), ["method.init_from", "init_from"]
    ),
    "code of the base's own": (other("base.trust_remote_code=yes"), ["base.trust_remote_code"]),
}  # fmt: skip
"""What was done to the second arm -> the fields that must be named. What it moves in the rows and the budget may be."""


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_confound_is_named_with_its_values_and_arms(desk: Desk, plant: str) -> None:
    act, expected = PLANTED[plant]
    one, two = desk.finished(name="one"), act(desk)
    found = held(["method.rank"], one=one, two=two)
    assert set(expected) <= named(found.confounds)
    assert {field for field in named(found.confounds) if not is_under(field, ("prepared", "budget"))} <= set(expected)
    assert found.is_confounded("one", "two")
    with pytest.raises(ComparisonRefusedError) as refused:
        found.refuse("advice")
    facts = {"one": run_facts(one, "sums"), "two": run_facts(two, "sums")}
    for field in expected:
        line = next(line for line in str(refused.value).splitlines() if line.startswith(f"  {field}: "))
        for arm, values in facts.items():
            value = str(values.get(field, "-")) if field in values else "-"
            assert f"{'-' if value == 'None' else value[:18]}" in line and f"({arm})" in line, line
    assert str(refused.value).endswith("advice")


def test_without_a_plant_nothing_is_found(desk: Desk) -> None:
    found = held(["method.rank"], one=desk.finished(name="one"), two=desk.finished(RANK, name="two"))
    assert named(found.confounds) == set()
    assert named(found.declared) == {"method.rank", "method.alpha", "budget.training_flops"}
    assert named(found.harmless) == {"name"}
    found.refuse("")


PAIRS: dict[str, tuple[Callable[[Desk], object], Sequence[str], Sequence[str], Sequence[str], Sequence[str]]] = {
    "another base revision": (
        write_hub, ["base=me/small", f"base.revision={COMMITS[0]}"], ["base=me/small", f"base.revision={COMMITS[1]}"],
        ["method.rank"], ["base.files.commit"],
    ),
    "contaminated rows dropped in one": (
        contaminate, ["data.contamination=allow"], ["data.contamination=drop"], ["method.rank"],
        ["data.contamination", "rows.items", "scoring.items_trained_on"],
    ),
    "items that the larger share of the rows holds": (
        contaminate, ["data.contamination=allow", "data.fraction=0.1"], ["data.contamination=allow"],
        ["method.rank", "data.fraction"], ["scoring.items_trained_on"],
    ),
    "a base that has not seen the items": (
        contaminate, ["method=none"], ["data.contamination=allow"], [], ["scoring.items_trained_on"],
    ),
    "a base that is held in 4 bits": (
        nothing, ["method={name: none, quantization: nf4}"], [], [], ["method.quantization"],
    ),
    "another architecture from random weights": (
        lambda desk: write_base(desk.folder / "wide", **{"config.json": '{"hidden_size": 8}'}),
        ["method=full"], ["method=full", "base=./wide", "base.init=random"], ["base.init"], ["base.files.config.json"],
    ),
    "another card under another split": (
        lambda desk: desk.card("more", splits={"more": {"files": "items.jsonl"}}), [], ["data=more", "data.split=more"],
        ["method.rank", "data.split"], ["data.name"],
    ),
    "other columns under another split": (
        lambda desk: desk.card("rows", columns={"prompt": "{prompt}?"}), [], ["data.split=other"],
        ["method.rank", "data.split"], ["rows.card.columns.prompt"],
    ),
    "another method with a rank of its own choice": (
        nothing, [], ["method={name: qlora, rank: 64}"], ["method.name"], ["method.rank"],
    ),
    "another method with an alpha of its own choice": (
        nothing, [], ["method={name: qlora, alpha: 64}"], ["method.name"], ["method.alpha"],
    ),
    "another method at another learning rate": (
        nothing, [], ["method=full", "training.learning_rate=1e-5"], ["method"], ["training.learning_rate"],
    ),
    "dropout cut otherwise": (
        nothing, ["method.dropout=0.1"], ["method.dropout=0.1", "target.micro_batch_tokens=64"],
        ["method.rank"], ["target.micro_batch_tokens"],
    ),
    "the router's loss cut otherwise": (
        nothing, ["training.router_loss=0.01"], ["training.router_loss=0.01", "target.layout=flattened"],
        ["method.rank"], ["target.layout"],
    ),
    "threads in bf16 on a CPU": (
        nothing, ["training.precision=bf16", "target.threads=1"], ["training.precision=bf16", "target.threads=2"],
        ["method.rank"], ["machine.threads", "target.threads"],
    ),
}  # fmt: skip
"""What -> (what is done between the arms, the first arm's recipe, the second's, what is varied, what must be named)."""


@pytest.mark.parametrize("pair", PAIRS)
def test_a_confound_between_two_special_arms_is_named_and_nothing_else(desk: Desk, pair: str) -> None:
    act, first, second, vary, expected = PAIRS[pair]
    between = pair == "other columns under another split"
    if not between:
        act(desk)
    one = desk.finished("evaluation.suite=sums", *first, name="one")
    if between:
        act(desk)
    more = [RANK] if "method.rank" in vary else []
    two = desk.finished("evaluation.suite=sums", *more, *second, name="two")
    found = named(held(vary, one=one, two=two).confounds)
    assert {field for field in found if not is_under(field, ("prepared", "budget"))} == set(expected)


def test_an_adapter_replaced_under_the_same_name_is_a_confound(desk: Desk) -> None:
    start(desk)
    one = desk.finished("method.init_from=./start", name="one")
    start(desk, "other weights")
    two = desk.finished("method.init_from=./start", RANK, name="two")
    assert named(held(["method.rank"], one=one, two=two).confounds) == {"init_from"}


def test_another_gpu_under_one_device_kind_is_a_confound(desk: Desk) -> None:
    one = desk.finished(*GPU, name="one", hardware={"device": "NVIDIA A100-SXM4-80GB"})
    two = desk.finished(*GPU, RANK, name="two", hardware={"device": "NVIDIA H200"})
    assert named(held(["method.rank"], one=one, two=two).confounds) == {"machine.device"}


def test_items_that_a_later_suite_found_in_the_rows_are_counted(desk: Desk) -> None:
    """The rows were prepared without the suite; the suite's own check has the report."""
    contaminate(desk)
    run = desk.finished("data.contamination=allow", name="one")
    files.write_json(run.contamination("sums"), {"items_in_the_rows": 3})
    assert run_facts(run, "sums")["scoring.items_trained_on"] == 3


@pytest.mark.parametrize("field", ["scoring.questions_fingerprint", "scoring.metric_version"])
def test_no_study_can_declare_other_items_or_another_metric(desk: Desk, field: str) -> None:
    one, two = desk.finished(name="one"), desk.finished(RANK, name="two")
    edit(two.results("sums"), field.partition(".")[2], to="another")
    assert not is_known(field)
    for vary in ("scoring", field):
        assert named(held([vary, "method"], one=one, two=two).confounds) == {field}


def test_values_that_look_alike_are_told_apart(desk: Desk) -> None:
    """Nothing is shown as `-`, and so is the text `-`; long texts may differ at their end only."""
    for first, second in ((None, "-"), ("x" * 80 + "1", "x" * 80 + "2")):
        facts = [Facts({**run_facts(desk.finished(), "sums"), "data.system": value}) for value in (first, second)]
        (found,) = gate.check({"one": [facts[0]], "two": [facts[1]]}, []).confounds
        assert list(found.values.values()) == [["one"], ["two"]]


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plant",
    ["another split seed", "one changed item", "a tenth more rows in the file", "another torch", "bf16 against fp32"],
)
def test_the_command_line_refuses_a_planted_confound(desk: Desk, workbench: Workbench, plant: str) -> None:
    act, expected = PLANTED[plant]
    desk.finished(name="one")
    act(desk)
    outcome = workbench("compare", "one", "two", "--vary", "method.rank")
    assert outcome.status == 3
    for field in expected:
        assert f"{field}: " in outcome.output
    assert "--allow-confounds" in outcome.output and "Traceback" not in outcome.output
    assert not (desk.root / "comparisons").exists()


def test_what_is_meant_to_differ_must_be_said(desk: Desk, workbench: Workbench) -> None:
    desk.finished(name="one"), desk.finished(RANK, name="two")
    refused = workbench("compare", "one", "two")
    assert refused.status == 3
    assert "method.rank: 16 (one) | 8 (two)" in refused.output
    assert workbench("compare", "one", "two", "--vary", "method.rank").status == 0


@pytest.mark.parametrize("typo", ["method.rnk", "base.fils", "metod", "scoring.fingerprint", "method.rank.x", ""])
def test_a_typo_in_what_is_varied_is_an_error(desk: Desk, workbench: Workbench, typo: str) -> None:
    desk.finished(name="one"), desk.finished(RANK, name="two")
    outcome = workbench("compare", "one", "two", "--vary", f"training.learning_rate,{typo}")
    assert outcome.status == 2
    assert f"--vary {typo}" in outcome.output and "is no field" in outcome.output
    if typo == "method.rnk":
        assert "did you mean 'method.rank'?" in outcome.output


def three_arms(desk: Desk) -> tuple[Run, Run, Run]:
    """Two arms that differ in their rank, and a third that another torch trained as well."""
    third = desk.finished("method.rank=4", name="three", versions={"torch": "2.12.0"})
    return desk.finished(name="one"), desk.finished(RANK, name="two"), third


def test_only_the_pairs_with_a_confound_are_marked(desk: Desk) -> None:
    one, two, three = three_arms(desk)
    found = held(["method.rank"], one=one, two=two, three=three)
    assert named(found.confounds) == {"versions.torch"}
    assert all(finding.values == {"2.13.0": ["one", "two"], "2.12.0": ["three"]} for finding in found.confounds)
    pairs = [("one", "two"), ("one", "three"), ("two", "three")]
    assert [found.is_confounded(*pair) for pair in pairs] == [False, True, True]
    assert [found.is_confounded(*reversed(pair)) for pair in pairs] == [False, True, True]


def test_what_is_declared_between_some_arms_is_a_confound_between_others(desk: Desk) -> None:
    """The third arm's alpha does not follow from its rank, the second's does."""
    one, two = desk.finished(name="one"), desk.finished(RANK, name="two")
    three = desk.finished("method.rank=4", "method.alpha=32", name="three")
    found = held(["method.rank"], one=one, two=two, three=three)
    (declared,) = [finding for finding in found.declared if finding.field == "method.alpha"]
    (confound,) = found.confounds
    assert declared.values == {"32.0": ["one"], "16.0": ["two"]} and confound.field == "method.alpha"
    assert found.is_confounded("two", "three") and not found.is_confounded("one", "two")


def test_an_allowed_confound_is_marked_everywhere(desk: Desk, workbench: Workbench) -> None:
    three_arms(desk)
    words = ["one", "two", "three", "--vary", "method.rank", "--out", "found"]
    assert workbench("compare", *words).status == 3
    outcome = workbench("compare", *words, "--allow-confounds")
    assert outcome.status == 0
    assert "confound versions.torch: " in outcome.output
    contrasts = [line for line in outcome.output.splitlines() if "suggestive: one seed" in line]
    assert ["confounded" in line for line in contrasts] == [False, True]
    verdict = files.read_json(desk.folder / "found" / "verdict.json")
    marked = {(one["arm"], one["against"]): one["confounded"] for one in verdict["contrasts"]}
    assert marked == {("two", "one"): False, ("three", "one"): True, ("three", "two"): True}
    assert [one["field"] for one in verdict["gate"]["confounds"]] == ["versions.torch"]
    assert verdict["gate"]["confounds_allowed"] is True
    page = (desk.folder / "found" / "report.html").read_text()
    assert "versions.torch" in page and page.count('chip alarm">confounded<') >= 1


def test_without_confounds_nothing_is_marked(desk: Desk, workbench: Workbench) -> None:
    desk.finished(name="one"), desk.finished(RANK, name="two")
    outcome = workbench("compare", "one", "two", "--vary", "method.rank", "--allow-confounds", "--out", "found")
    assert outcome.status == 0 and "confound" not in outcome.output
    assert files.read_json(desk.folder / "found" / "verdict.json")["gate"]["confounds"] == []
    assert 'chip alarm">confounded<' not in (desk.folder / "found" / "report.html").read_text()


def test_items_that_cannot_be_paired_are_refused_whatever_is_allowed(desk: Desk, workbench: Workbench) -> None:
    desk.finished(name="one")
    write_rows(desk.items, rows(42))
    desk.finished(RANK, name="two")
    outcome = workbench("compare", "one", "two", "--vary", "method.rank", "--allow-confounds")
    assert outcome.status == 3
    assert "holds other items of sums" in outcome.output


# --- seeds -----------------------------------------------------------------------------------------------------------


def seeds(desk: Desk, *overrides: str, **changes: Any) -> list[Run]:
    """An arm of three seeds, the last one made with `changes`."""
    made = [desk.finished(*overrides, f"seed={seed}") for seed in range(2)]
    return [*made, desk.finished(*overrides, "seed=2", **changes)]


def arms(vary: Sequence[str], **found: Sequence[Run]) -> Gate:
    return gate.check({name: [run_facts(run, "sums") for run in runs] for name, runs in found.items()}, vary)


def test_arms_of_the_same_seeds_pass_although_their_walks_differ(desk: Desk) -> None:
    walk = "training.steps=5"  # ends inside an epoch, so that every seed has seen other rows
    made = arms(["method.rank"], one=seeds(desk, walk), two=seeds(desk, walk, RANK))
    assert named(made.confounds) == set()
    assert {"budget.tokens", "budget.training_flops"} <= named(made.declared)


@pytest.mark.parametrize("vary", [["method.rank"], ["method.rank", "versions.torch"], ["method.rank", "versions"]])
def test_a_seed_that_another_torch_trained_is_a_confound_inside_the_arm(desk: Desk, vary: list[str]) -> None:
    """Varied between arms or not: inside an arm nothing is meant to differ."""
    one, two = seeds(desk), seeds(desk, RANK, versions={"torch": "2.12.0"})
    three = seeds(desk, "method.rank=4")
    made = arms(vary, one=one, two=two, three=three)
    assert "versions.torch" in named(made.confounds)
    assert made.is_confounded("two", "one") and made.is_confounded("one", "two") and made.is_confounded("two", "three")
    assert not made.is_confounded("one", "three")


def test_one_arm_with_a_seed_of_another_torch_is_refused(desk: Desk, workbench: Workbench) -> None:
    first, *_, last = [run.name for run in seeds(desk, versions={"torch": "2.12.0"})]
    names = [first, last, desk.finished(RANK, name="two").name]
    outcome = workbench("compare", *names, "--vary", "method.rank,seed")
    assert outcome.status == 3 and "versions.torch: 2.13.0 (small, two) | 2.12.0 (small)" in outcome.output


def test_other_seeds_can_be_declared(desk: Desk) -> None:
    one, two = desk.finished(), desk.finished(RANK, "seed=5")
    assert named(held(["method.rank"], one=one, two=two).confounds) == {"seed"}
    assert named(held(["method.rank", "seed"], one=one, two=two).confounds) == set()


def test_the_base_as_it_is_has_no_seeds_and_no_training(desk: Desk) -> None:
    base = desk.finished("method=none", "evaluation.suite=sums", name="base")
    found = arms([], base=[base], tuned=seeds(desk))
    assert named(found.confounds) == set()
    assert {finding.because for finding in found.declared} == {"one of them is the base as it is"}


def test_random_weights_that_are_only_scored_have_seeds(desk: Desk) -> None:
    untrained = ["method=none", "base.init=random", "evaluation.suite=sums"]
    found = held(["base.init"], one=desk.finished(*untrained, "seed=3"), two=desk.finished())
    assert named(found.confounds) == {"seed"}


# --- what follows ----------------------------------------------------------------------------------------------------


def other_base(desk: Desk) -> None:
    contents = {name: f"{name} of another" for name in ("config.json", "chat_template.jinja", "model.safetensors")}
    write_base(desk.folder / "wide", **contents | {"config.json": '{"a": 1}', "tokenizer.json": '{"characters": 2}'})


FOLLOWING: dict[str, tuple[Callable[[Desk], object], Sequence[str], Sequence[str], set[str]]] = {
    "base": (
        other_base, [], ["base=./wide"],
        {"base.name", "base.files.config.json", "base.files.tokenizer.json", "base.tokenizer", "scoring.template.sums",
         "base.files.weights.model.safetensors", "prepared.tokens", "prepared.fingerprint", "prepared.template",
         "budget.tokens"},
    ),
    "base.name": (other_base, [], ["base=./wide"], {"base.name", "base.files.config.json", "base.tokenizer"}),
    "base.init": (
        nothing, ["method=full"], ["method=full", "base.init=random"],
        {"base.init", "base.files.weights.model.safetensors"},
    ),
    "method.rank": (nothing, [], [RANK], {"method.rank", "method.alpha", "budget.training_flops"}),
    "method": (nothing, [], ["method=full"], {"method.name", "method.rank", "method.alpha", "budget.training_flops"}),
    "method.name": (nothing, [], ["method=full"], {"method.name", "method.rank", "method.alpha", "method.targets"}),
    "method.init_from": (start, [], ["method.init_from=./start"], {"method.init_from", "init_from"}),
    "data.fraction": (
        nothing, [], ["data.fraction=0.5"],
        {"data.fraction", "prepared.rows_in", "prepared.rows_trained", "budget.examples", "budget.steps"},
    ),
    "data.split": (nothing, [], ["data.split=other"], {"data.split", "rows.share", "prepared.fingerprint"}),
    "data.name": (
        lambda desk: desk.card("more", splits={"train": {"files": "rows.jsonl"}}, columns={"prompt": "{prompt}!"}),
        [], ["data=more"], {"data.name", "rows.share", "rows.card.columns.prompt", "prepared.rows_in"},
    ),
    "data.template": (
        nothing, [], ["data.template=plain"],
        {"data.template", "rows.template", "prepared.template", "scoring.template.sums"},
    ),
    "data.system": (nothing, [], ["data.system=Be brief."], {"data.system", "scoring.template.sums"}),
    "data.contamination": (
        contaminate, ["data.contamination=allow"], ["data.contamination=drop"],
        {"data.contamination", "rows.items", "prepared.rows_dropped.contaminated", "scoring.items_trained_on"},
    ),
    "training.epochs": (
        nothing, [], ["training.epochs=3"], {"training.epochs", "budget.steps", "budget.examples", "budget.tokens"},
    ),
    "training.batch_size": (nothing, [], ["training.batch_size=8"], {"training.batch_size", "budget.steps"}),
    "training.precision": (
        nothing, [], ["training.precision=bf16"],
        {"training.precision", "dtype", "scoring.dtype", "scoring.batch_size"},
    ),
    "evaluation.batch_size": (
        nothing, GPU, [*GPU, "evaluation.batch_size=4", "repeat=1"], {"evaluation.batch_size", "scoring.batch_size"},
    ),
}  # fmt: skip
"""Varied field -> (what is made first, the first arm's recipe, the second's, what must be declared)."""


@pytest.mark.parametrize("varied", FOLLOWING)
def test_what_follows_from_a_declared_field_is_declared(desk: Desk, varied: str) -> None:
    act, first, second, expected = FOLLOWING[varied]
    act(desk)
    suite = "evaluation.suite=sums"
    one, two = desk.finished(suite, *first, name="one"), desk.finished(suite, *second, name="two")
    found = held([varied], one=one, two=two)
    assert named(found.confounds) == set()
    assert expected <= named(found.declared)
    undeclared = held([], one=one, two=two)
    assert named(undeclared.confounds), "without the declaration it is refused"
    assert named(undeclared.confounds) <= named(found.declared)


def test_what_does_not_follow_from_a_declared_field_is_a_confound(desk: Desk) -> None:
    """Every arm of a method sweep has its rate by hand; a rank does not excuse fewer examples."""
    one, two = desk.finished(name="one"), desk.finished("method=full", "training.learning_rate=1e-5", name="two")
    assert named(held(["method"], one=one, two=two).confounds) == {"training.learning_rate"}
    assert named(held(["method", "training.learning_rate"], one=one, two=two).confounds) == set()
    edit(two.cost, "examples", to=10)
    assert named(held(["method", "training"], one=one, two=two).confounds) == {"budget.examples"}
    edit(two.manifest, "tokenizer", to="another")
    assert "base.tokenizer" in named(held(["method", "training", "data"], one=one, two=two).confounds)


# --- what is harmless ------------------------------------------------------------------------------------------------


def copies(desk: Desk) -> None:
    """The same base, card, suite and template once more, under other names."""
    write_base(desk.folder / "copied")
    desk.card("copied", **json.loads((desk.folder / "datasets" / "rows.yaml").read_text()))
    desk.suite("copied")
    write_template(desk)
    (desk.folder / "copied.jinja").write_bytes((desk.folder / "brief.jinja").read_bytes())
    write_hub(desk)
    shutil.copytree(start(desk).parent, desk.folder / "begun", dirs_exist_ok=True)


HARMLESS: dict[str, tuple[Sequence[str], Sequence[str], dict[str, Any]]] = {
    "name": ([], [], {}),
    "tracking": ([], ["tracking={wandb: {project: p}}"], {}),
    "repeat": ([], ["repeat=1"], {}),
    "git_commit": ([], [], {}),
    "base.name": ([], ["base=./copied"], {}),
    "base.revision": (["base=me/small"], [f"base.revision={COMMITS[-1]}"], {}),
    "data.name": ([], ["data=copied"], {}),
    "data.max_dropped": ([], ["data.max_dropped=3"], {}),
    "data.template": (["data.template=./brief.jinja"], ["data.template=./copied.jinja"], {}),
    "method.init_from": (["method.init_from=./start"], ["method.init_from=./begun"], {}),
    "training.precision": ([], ["training.precision=fp32"], {}),
    "training.checkpoint_every": ([], ["training.checkpoint_every=1"], {}),
    "training.preflight": ([], ["training.preflight=no"], {}),
    "method.storage": (["method=qlora"], ["method.storage=bf16"], {}),
    "evaluation.suite": (["evaluation.suite=sums"], ["evaluation.suite=copied"], {}),
    "evaluation.base": ([], ["evaluation.base=no"], {}),
    "evaluation.batch_size": ([], ["evaluation.batch_size=1"], {}),
    "target.name": (["target=rtx-4090"], ["target=cuda"], {"device": "NVIDIA GeForce RTX 4090"}),
    "target.cluster": (["target.cluster=a100"], ["target.cluster=cpu"], {}),
    "target.usd_per_hour": ([], ["target.usd_per_hour=2"], {}),
    "target.power_watts": ([], ["target.power_watts=70"], {}),
    "target.micro_batch_tokens": ([], ["target.micro_batch_tokens=64"], {}),
    "target.devices": (["target.devices=2"], ["target.devices=4"], {}),
    "target.nodes": (["target.devices=2"], ["target.nodes=2"], {}),
    "target.sharding": (["target.devices=2"], ["target.sharding=fsdp"], {}),
    "target.kernels": ([], ["target.kernels=torch"], {}),
    "target.compile": ([], ["target.compile=yes"], {}),
    "target.layout": ([], ["target.layout=flattened"], {}),
    "target.attention": ([], ["target.attention=eager"], {}),
    "target.gradient_checkpointing": ([], ["target.gradient_checkpointing=yes"], {}),
    "target.threads": (["target.threads=1"], ["target.threads=2"], {"threads": 1}),
    "machine.threads": ([], [], {"threads": 7}),
    "machine.cores": ([], [], {"cores": 96}),
    "machine.system": ([], [], {"system": "Linux 5.15"}),
}
"""Rule -> (the first arm's recipe, what is laid over it in the second, the machine of the second)."""
LIMITED = ("evaluation.batch_size", "target.micro_batch_tokens", "target.devices", "target.nodes", "target.sharding",
           "target.kernels", "target.compile", "target.layout", "target.attention",
           "target.gradient_checkpointing")  # fmt: skip
"""Those that are harmless on a CPU in fp32 only."""


def harmless_rules() -> list[str]:
    return [rule.field for rule in RULES if rule.harmless]


def two_arms(desk: Desk, field: str, *more: str) -> tuple[Run, Run]:
    first, second, hardware = HARMLESS[field]
    copies(desk)
    common = {"device": hardware["device"]} if "device" in hardware else {}
    one = desk.finished(*more, *first, name="one", hardware=common)
    two = desk.finished(*more, *first, RANK, *second, name="two", hardware=hardware)
    if field == "git_commit":
        edit(two.manifest, "git_commit", to="0123abc")
    return one, two


@pytest.mark.parametrize("field", HARMLESS)
def test_a_harmless_difference_passes_and_is_shown(desk: Desk, field: str) -> None:
    one, two = two_arms(desk, field)
    found = held(["method.rank"], one=one, two=two)
    assert named(found.confounds) == set()
    assert any(is_under(name, (field,)) for name in named(found.harmless))
    assert all(finding.because for finding in found.harmless)


@pytest.mark.parametrize("field", LIMITED)
@pytest.mark.parametrize("where", [GPU, ("training.precision=bf16",), ("target=cuda",)], ids=str)
def test_what_is_harmless_in_fp32_on_a_cpu_is_a_confound_elsewhere(
    desk: Desk, field: str, where: tuple[str, ...]
) -> None:
    one, two = two_arms(desk, field, *where)
    found = held(["method.rank"], one=one, two=two)
    scored = {"evaluation.batch_size": {"scoring.batch_size"}, "target.attention": {"scoring.attention"}}
    allowed = {field} | scored.get(field, set())
    assert named(found.confounds) == allowed


@pytest.mark.parametrize("field", ["target.threads", "machine.threads"])
def test_threads_of_the_cpu_are_harmless_beside_a_gpu(desk: Desk, field: str) -> None:
    one, two = two_arms(desk, field, "target=cuda")
    found = held(["method.rank"], one=one, two=two)
    assert named(found.confounds) == set() and field in named(found.harmless)


def test_every_harmless_rule_is_tried_and_every_limit_too() -> None:
    assert set(HARMLESS) == set(harmless_rules())
    limited = {rule.field for rule in RULES if rule.limit is not None}
    assert limited == {*LIMITED, "target.threads", "machine.threads", "data.name", "method.init_from"}
    assert not [rule.field for rule in RULES if rule.harmless and rule.follows]


_CUT = ("test_training.py", "test_the_loss_does_not_move_however_a_step_is_cut")
_SHARED = ("test_distributed.py", "test_several_processes_give_the_run_of_one")
_SAME_FILES = ("test_gate.py", "test_they_change_no_file_of_the_result")
_SAME_RUN = ("test_gate.py", "test_another_name_for_the_same_content_is_the_same_run")
PROOFS: dict[str, tuple[str, str]] = {
    "name": _SAME_FILES,
    "tracking": _SAME_FILES,
    "repeat": _SAME_FILES,
    "git_commit": ("test_gate.py", "test_a_planted_confound_is_named_with_its_values_and_arms"),
    "base.name": _SAME_RUN,
    "base.revision": _SAME_RUN,
    "data.name": ("test_prepare.py", "test_the_same_rows_under_another_card_name_are_the_same_entry"),
    "data.max_dropped": _SAME_FILES,
    "data.template": _SAME_RUN,
    "method.init_from": _SAME_RUN,
    "training.precision": _SAME_FILES,
    "training.checkpoint_every": _SAME_FILES,
    "training.preflight": _SAME_FILES,
    "method.storage": ("test_gate.py", "test_the_type_that_four_bits_lie_in_changes_no_byte"),
    "evaluation.suite": _SAME_FILES,
    "evaluation.base": _SAME_FILES,
    "evaluation.batch_size": ("test_likelihood.py", "test_batch_size_moves_no_metric"),
    "target.name": _SAME_FILES,
    "target.cluster": _SAME_FILES,
    "target.usd_per_hour": _SAME_FILES,
    "target.power_watts": _SAME_FILES,
    "target.micro_batch_tokens": _CUT,
    "target.devices": _SHARED,
    "target.nodes": _SHARED,
    "target.sharding": _SHARED,
    "target.kernels": _SAME_FILES,
    "target.compile": ("test_gate.py", "test_compiled_steps_move_the_loss_by_float_noise_only"),
    "target.layout": _CUT,
    "target.attention": _CUT,
    "target.gradient_checkpointing": _CUT,
    "target.threads": ("test_gate.py", "test_threads_move_the_loss_by_float_noise_only"),
    "machine.threads": ("test_gate.py", "test_threads_move_the_loss_by_float_noise_only"),
    "machine.cores": ("test_gate.py", "test_another_kernel_and_fewer_cores_give_the_same_result"),
    "machine.system": ("test_gate.py", "test_another_kernel_and_fewer_cores_give_the_same_result"),
}
"""Harmless rule -> the test that shows it. (Of `git_commit`: that what says when results change is compared.)"""


def test_every_harmless_rule_has_a_test_that_shows_it() -> None:
    assert set(PROOFS) == set(harmless_rules())
    for name, test in set(PROOFS.values()):
        tree = ast.parse((ROOT / "tests" / name).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (name, test)


@pytest.mark.parametrize("field", [field for field, proof in PROOFS.items() if proof == _SAME_RUN])
def test_another_name_for_the_same_content_is_the_same_run(desk: Desk, field: str) -> None:
    """Nothing that a worker is given differs but the name."""
    first, second, _ = HARMLESS[field]
    copies(desk)
    one = desk.run(*first, name="one")
    before = one.resolved()
    assert desk.run(*first, *second, name="two") == one
    assert one.resolved() != before


# --- real trainings --------------------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A small recipe with a suite of three questions, and a copy of the suite."""
    folder = tmp_path_factory.mktemp("gate")
    write_recipe(folder, small_base, questions(), training={"steps": 4}, evaluation={"suite": "./sums.yaml"})
    write_rows(folder / "rows" / "asked.jsonl", [{"prompt": f"and {at}?", "completion": "the cat"} for at in range(3)])
    card = {"format": "prompt_completion", "splits": {"test": {"files": "../rows/asked.jsonl"}}}
    (folder / "datasets" / "asked.yaml").write_text(yaml.safe_dump(card))
    task = {"name": "generate", "id": "sums", "data": "asked", "max_new_tokens": 2}
    for name in ("sums", "copied"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"tasks": [task]}))
    return folder


@pytest.fixture
def threads() -> Iterator[None]:
    """Torch's threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


RESULTLESS = {
    "name": "name=another",
    "tracking": "tracking={wandb: {project: p, mode: offline}}",
    "repeat": "repeat=1",
    "data.max_dropped": "data.max_dropped=3",
    "training.precision": "training.precision=fp32",
    "training.checkpoint_every": "training.checkpoint_every=1",
    "training.preflight": "training.preflight=no",
    "target.kernels": "target.kernels=torch",
    "evaluation.suite": "evaluation.suite=./copied.yaml",
    "target.cluster": "target.cluster=a100",
    "evaluation.base": "evaluation.base=no",
    "target.name": "target.name=auto",
    "target.usd_per_hour": "target.usd_per_hour=3",
    "target.power_watts": "target.power_watts=70",
}


def test_they_change_no_file_of_the_result(
    workbench: Workbench, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at once: the adapter byte for byte, every step and every answer."""
    monkeypatch.chdir(room)
    plain = train(workbench, room / "small.yaml", room / "plain")
    settings = dict(RESULTLESS)
    if Path("/dev/nvidia0").exists():  # `auto` would be another device
        del settings["target.name"]
    run = train(workbench, room / "small.yaml", tmp_path / "runs", *settings.values())
    assert run.name.startswith("another-") and run.suites() == ["copied"] and list(run.path.glob("wandb/*"))
    assert not list((tmp_path / "runs").glob("base-*"))
    assert digests(run.adapter) == digests(plain.adapter)
    ours, theirs = ([without_measured(row) for row in files.read_jsonl(one.metrics)] for one in (run, plain))
    assert ours == theirs and len(ours) == 4
    assert list(files.read_jsonl(run.items("copied"))) == list(files.read_jsonl(plain.items("sums")))
    results = [files.read_json(path) for path in (run.results("copied"), plain.results("sums"))]
    assert results[0]["fingerprint"] == results[1]["fingerprint"]


def test_every_proof_by_equal_files_is_tried() -> None:
    assert set(RESULTLESS) == {field for field, proof in PROOFS.items() if proof == _SAME_FILES}


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_threads_move_the_loss_by_float_noise_only(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    """With dropout too: one stream of random numbers, however many threads there are."""
    one, two = (
        train(workbench, room / "small.yaml", tmp_path / str(count), "evaluation.suite=", "method.dropout=0.1",
              f"target.threads={count}")
        for count in (1, 2)
    )  # fmt: skip
    assert [files.read_json(run.manifest)["hardware"]["threads"] for run in (one, two)] == [1, 2]
    assert losses(one) == pytest.approx(losses(two), rel=1e-4)


@pytest.mark.skipif(
    "WORKBENCH_COMPILE" not in os.environ, reason="compiling takes minutes: WORKBENCH_COMPILE=1 runs it"
)
@pytest.mark.slow
def test_compiled_steps_move_the_loss_by_float_noise_only(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    plain, compiled = (
        train(workbench, room / "small.yaml", tmp_path / choice, "evaluation.suite=", "training.steps=2",
              f"target.compile={choice}")
        for choice in ("no", "yes")
    )  # fmt: skip
    assert losses(plain) == pytest.approx(losses(compiled), rel=1e-4)


def test_the_type_that_four_bits_lie_in_changes_no_byte(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    runs = [
        train(workbench, room / "small.yaml", tmp_path / storage, "method={name: qlora, rank: 4}",
              f"method.storage={storage}")
        for storage in ("uint8", "fp32", "bf16")
    ]  # fmt: skip
    assert len({json.dumps(digests(run.adapter)) for run in runs}) == 1
    assert len({json.dumps(list(files.read_jsonl(run.items("sums")))) for run in runs}) == 1


def test_dropout_makes_it_matter_how_a_step_is_cut(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    """Why that is no harmless difference: the masks are other ones."""
    found = {
        (dropout, most): losses(
            train(workbench, room / "small.yaml", tmp_path / f"{dropout}-{most}", "evaluation.suite=",
                  f"method.dropout={dropout}", f"target.micro_batch_tokens={most}")
        )
        for dropout in (0.0, 0.5)
        for most in (64, 8192)
    }  # fmt: skip
    assert found[0.0, 64] == pytest.approx(found[0.0, 8192], rel=1e-4)
    assert found[0.5, 64] != pytest.approx(found[0.5, 8192], rel=1e-3)


@pytest.mark.slow
def test_another_kernel_and_fewer_cores_give_the_same_result(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    """The same run under a kernel that calls itself 2.6, on one core."""
    plain = train(workbench, room / "small.yaml", room / "plain")
    command = [sys.executable, "-m", "workbench", "train", str(room / "small.yaml"), "--runs", str(tmp_path)]
    elsewhere = ["taskset", "--cpu-list", "0", "setarch", "--uname-2.6"]
    if subprocess.run([*elsewhere, "true"], capture_output=True, check=False).returncode:
        pytest.skip("taskset or setarch cannot be used here")
    done = subprocess.run([*elsewhere, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run(tmp_path / plain.name)
    systems = {files.read_json(one.manifest)["hardware"]["system"] for one in (run, plain)}
    assert len(systems) == 2
    assert digests(run.adapter) == digests(plain.adapter)


def test_made_runs_have_exactly_the_facts_of_real_ones(
    workbench: Workbench, room: Path, tmp_path: Path, desk: Desk
) -> None:
    """What this file plants confounds in is what the worker writes."""
    open_ended = ("base.files", "versions", "rows.card.columns")
    real = run_facts(train(workbench, room / "small.yaml", room / "plain"), "sums")
    made = run_facts(desk.finished("evaluation.suite=sums"), "sums")
    assert {field for field in real if not is_under(field, open_ended)} == {
        field for field in made if not is_under(field, open_ended)
    }
    assert {type(value) for field, value in made.items() if is_under(field, ("base.files",))} == {str}
    (base,) = [Run(path) for path in (room / "plain").glob("base-*")]
    made_base = desk.finished("method=none", "evaluation.suite=sums")
    keys = [{f for f in run_facts(run, "sums") if not is_under(f, open_ended)} for run in (base, made_base)]
    assert keys[0] == keys[1]
    assert TOKENIZER in (desk.base / "tokenizer.json").read_text()
    score(made_base, desk.folder / "suites" / "sums.yaml")


def test_more_solved_examples_can_be_declared_but_other_questions_never(desk: Desk) -> None:
    one, two = desk.finished(name="one"), desk.finished(RANK, name="two")
    edit(two.results("sums"), "evaluation", to={"batch_size": 32, "fewshot": 3})
    edit(two.results("sums"), "fingerprint", to="with examples")
    assert named(held(["method.rank"], one=one, two=two).confounds) == {"evaluation.fewshot", "scoring.fingerprint"}
    assert named(held(["method.rank", "evaluation.fewshot"], one=one, two=two).confounds) == set()
    edit(two.results("sums"), "questions_fingerprint", to="others")
    found = held(["method.rank", "evaluation.fewshot"], one=one, two=two)
    assert named(found.confounds) == {"scoring.questions_fingerprint"}


def test_positions_that_a_fresh_model_never_saw_are_a_confound(desk: Desk) -> None:
    """Rows cut short leave most of the context untrained; scored there, random weights only look worse."""
    tuned = desk.finished(name="tuned")
    scratch = desk.finished("base.init=random", "method=full", name="scratch")
    vary = ["base.init", "method"]
    assert named(held(vary, tuned=tuned, scratch=scratch).confounds) == set()
    longest = files.read_json(scratch.data)["longest_tokens"]
    for run in (tuned, scratch):
        edit(run.results("sums"), "tasks", "sums", "long_tokens", to=longest + 320)
    found = held(vary, tuned=tuned, scratch=scratch).confounds
    assert [(one.field, one.values) for one in found] == [
        ("scoring.positions_never_trained", {"0": ["tuned"], "320": ["scratch"]})
    ]
