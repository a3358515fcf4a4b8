"""A recipe: loading with extends and --set, resolution, rules, identity, explanation and JSON schema."""

from __future__ import annotations

import ast
import json
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, write_rows
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from workbench import fingerprint, resources
from workbench.errors import BaseError, DataError, RecipeError
from workbench.recipe import schema, tracking
from workbench.recipe.identity import base_reference, identity, identity_hash
from workbench.recipe.load import find, load
from workbench.recipe.pin import pin
from workbench.recipe.resolve import resolve
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import METHODS, OBJECTIVES, Recipe
from workbench.recipe.section import Section
from workbench.verbs.explain import json_schema

PLAIN = {"base": "./base", "data": "rows", "target": "cpu"}


class Workplace:
    """A folder with a base, cards of every format, a suite, and recipes written into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.make_base("base", b"weights")
        pair = {"question": "1 + 1?", "answer": "2"}
        write_rows(folder / "datasets" / "train.jsonl", [pair])
        write_rows(folder / "datasets" / "test.jsonl", [{"question": "2 + 2?", "answer": "4"}])
        self.card("rows")
        self.card("texts", format="text", columns={"text": "question"})
        self.card(
            "pairs", format="preference", columns={"prompt": "question", "chosen": "answer", "rejected": "answer"}
        )
        self.card("talks", format="messages", columns={"messages": "question"})
        (folder / "recipes" / "suites").mkdir(parents=True)
        suite = {"tasks": [{"name": "generate", "id": "sums", "data": "rows"}]}
        (folder / "recipes" / "suites" / "arithmetic.yaml").write_text(json.dumps(suite))

    def make_base(self, name: str, weights: bytes) -> Path:
        """A directory that looks like a base (nothing here loads it)."""
        path = self.folder / "recipes" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text('{"model_type": "llama"}')
        (path / "model.safetensors").write_bytes(weights)
        return path

    def card(self, name: str, **fields: Any) -> Path:
        """A dataset card over the two files."""
        card = {
            "format": "prompt_completion",
            "columns": {"prompt": "question", "completion": "answer"},
            "splits": {"train": {"files": "train.jsonl"}, "test": {"files": "test.jsonl"}},
        }
        path = self.folder / "datasets" / f"{name}.yaml"
        path.write_text(json.dumps(card | fields))
        return path

    def recipe(self, text: str | dict[str, Any], name: str = "recipe") -> Path:
        """A recipe file."""
        path = self.folder / "recipes" / f"{name}.yaml"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    def resolved(self, *overrides: str, **sections: Any) -> Resolved:
        """The plain recipe with some sections and overrides, resolved."""
        return resolve(load(self.recipe(PLAIN | sections), overrides))

    def facts(self, *overrides: str, **sections: Any) -> dict[str, Any]:
        """Its identity."""
        return identity(*pin(self.resolved(*overrides, **sections)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return Workplace(tmp_path)


def said(act: Callable[[], object]) -> str:
    """What is refused."""
    with pytest.raises(RecipeError) as caught:
        act()
    return str(caught.value)


# --- loading ---------------------------------------------------------------------------------------------------------


def test_a_section_of_one_word_is_short_for_its_name(place: Workplace) -> None:
    recipe = load(place.recipe("base: embedded\nmethod: qlora\nobjective: dpo\ndata: rows\ntarget: cpu\n")).recipe
    assert recipe.base == schema.Base(name="embedded")
    assert recipe.method == schema.Qlora()
    assert recipe.objective == schema.Dpo()
    assert (recipe.data.name, recipe.target.name) == ("rows", "cpu")


def test_a_recipe_is_called_what_it_says_else_like_its_file(place: Workplace) -> None:
    assert load(place.recipe(PLAIN, "my recipe")).recipe.name == "my recipe"
    assert load(place.recipe(PLAIN | {"name": None}, "null")).recipe.name == "null"
    path = place.recipe(PLAIN | {"name": "other"})
    assert load(path).recipe.name == "other"
    assert load(path, ["name=third"]).recipe.name == "third"
    assert load(path, ["name="]).recipe.name == "recipe"


@pytest.mark.parametrize("name", ["a/b", "../up", ".hidden", "a[1]", "a*", "what?", "back\\slash", "two\nlines", ""])
def test_a_name_that_is_no_folder_is_refused(place: Workplace, name: str) -> None:
    assert "recipe.yaml:1 name: found" in said(lambda: load(place.recipe(PLAIN | {"name": name})))


def test_an_extending_recipe_changes_what_it_says_and_keeps_the_rest(place: Workplace) -> None:
    place.recipe(
        "name: parent\nbase: ./base\nmethod: {name: lora, rank: 4, dropout: 0.1}\ndata: {name: rows, split: train}\n"
        "training: {steps: 7, batch_size: 3}\ntracking: {wandb: {project: p, tags: [a, b]}}\n",
        "parent",
    )
    child = place.recipe(
        "extends: parent.yaml\nmethod: {rank: 8}\ntraining: {batch_size: 5}\n"
        "tracking: {wandb: {mode: offline, tags: [c]}}\n",
        "child",
    )
    recipe = load(child).recipe
    assert recipe.name == "child"
    assert recipe.method == schema.Lora(rank=8, dropout=0.1)
    assert (recipe.training.steps, recipe.training.batch_size) == (7, 5)
    assert recipe.data == schema.Data(name="rows", split="train")
    assert recipe.tracking.wandb == tracking.Wandb(project="p", mode="offline", tags=["c"])


def test_what_belongs_to_a_renamed_thing_falls_away(place: Workplace) -> None:
    place.recipe(
        "base: {name: owner/one, revision: abc, trust_remote_code: true, init: random}\n"
        "method: {name: lora, rank: 4}\nobjective: {name: dpo, beta: 0.5}\n"
        "data: {name: rows, template: plain}\ntarget: {name: cpu, threads: 2}\n",
        "parent",
    )
    child = place.recipe("extends: parent.yaml\nbase: owner/two\nmethod: vera\nobjective: sft\ndata: texts\n", "child")
    recipe = load(child, ["target=h200"]).recipe
    assert recipe.base == schema.Base(name="owner/two", init="random")
    assert recipe.method == schema.Vera()
    assert recipe.objective == schema.Sft()
    assert recipe.data == schema.Data(name="texts", template="plain")
    assert recipe.target == schema.Target(name="h200", threads=2)
    same = place.recipe("extends: parent.yaml\nbase: owner/one\nmethod: lora\nobjective: dpo\n", "same")
    kept = load(same).recipe
    assert kept.base.revision == "abc"
    assert kept.base.trust_remote_code
    assert kept.method == schema.Lora(rank=4)
    assert kept.objective == schema.Dpo(beta=0.5)


def test_only_one_level_is_extended(place: Workplace) -> None:
    place.recipe(PLAIN, "one")
    place.recipe({"extends": "one.yaml"}, "two")
    three = place.recipe("seed: 1\nextends: two.yaml\n", "three")
    refused = said(lambda: load(three))
    assert "two.yaml:1 extends: the file that is extended extends another one itself" in refused
    assert "one level only" in refused
    own = place.recipe("extends: own.yaml\n", "own")
    assert "extends another one itself" in said(lambda: load(own))
    lost = place.recipe("seed: 1\nextends: nowhere.yaml\n", "lost")
    assert re.search(r"lost\.yaml:2 extends: there is no .*recipes/nowhere\.yaml", said(lambda: load(lost)))
    odd = place.recipe("extends: [a.yaml, b.yaml]\n", "odd")
    assert "odd.yaml:1 extends: found ['a.yaml', 'b.yaml'] (list)" in said(lambda: load(odd))


def test_a_problem_stands_in_the_file_that_states_it(place: Workplace) -> None:
    place.recipe("base: ./base\ndata: rows\nmethod:\n  name: lora\n  rank: 0\n", "parent")
    child = place.recipe("extends: parent.yaml\ntraining:\n  stepps: 3\n", "child")
    refused = said(lambda: load(child, ["seed=-1", "evaluation.batch_size=many"]))
    assert re.search(r"^\S*/parent\.yaml:5 method\.rank: found 0", refused, re.M)
    assert re.search(r"^\S*/child\.yaml:3 training\.stepps: unknown field\n +did you mean 'steps'", refused, re.M)
    assert re.search(r"^--set seed seed: found -1", refused, re.M)
    assert re.search(r"^--set evaluation\.batch_size evaluation\.batch_size: found 'many'", refused, re.M)


def test_set_writes_values_lists_and_nested_fields(place: Workplace) -> None:
    recipe = load(
        place.recipe(PLAIN | {"tracking": {"wandb": {"project": "p"}}}),
        [
            "method.name=lora",
            "method.rank=4",
            "method.targets=[q_proj, v_proj]",
            "training.learning_rate=1e-3",
            "evaluation.base=no",
            "tracking.wandb.mode=offline",
            "training={steps: 2, batch_size: 8}",
            "training.steps=3",
            "seed=5",
            "base.init=random",
        ],
    ).recipe
    assert recipe.method == schema.Lora(rank=4, targets=["q_proj", "v_proj"])
    assert recipe.training == schema.Training(learning_rate=1e-3, steps=3, batch_size=8)
    assert recipe.evaluation.base is False
    assert recipe.tracking.wandb == tracking.Wandb(project="p", mode="offline")
    assert (recipe.seed, recipe.base.init) == (5, "random")


def test_set_of_a_name_lets_go_of_what_belonged_to_the_old_one(place: Workplace) -> None:
    base = {"name": "a/b", "revision": "r", "init": "random"}
    path = place.recipe({"base": base, "method": {"name": "lora", "rank": 4}, "data": "rows"})
    for override in ("base=c/d", "base.name=c/d"):
        assert load(path, [override]).recipe.base == schema.Base(name="c/d", init="random")
    for override in ("method=full", "method.name=full", "method={name: full}"):
        assert load(path, [override]).recipe.method == schema.Full()
    assert load(path, ["method=qlora", "method.rank=2"]).recipe.method == schema.Qlora(rank=2)


def test_set_with_nothing_takes_a_value_away(place: Workplace) -> None:
    path = place.recipe(PLAIN | {"evaluation": {"suite": "arithmetic"}})
    assert load(path, ["evaluation.suite="]).recipe.evaluation.suite is None
    assert load(path, ["evaluation.suite=null"]).recipe.evaluation.suite is None


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("seed", "--set seed: is not `section.key=value`"),
        ("=3", "--set =3: is not `section.key=value`"),
        ("method..rank=3", "--set method..rank=3: is not `section.key=value`"),
        ("method.=3", "is not `section.key=value`"),
        ("rank=3", "--set rank rank: unknown field"),
        ("training.stepps=3", "--set training.stepps training.stepps: unknown field\n    did you mean 'steps'?"),
        ("seed=[1", "is not YAML"),
        ("seed.x=1", "--set seed.x seed: found {'x': 1} (section)"),
        ("training.steps=1e3", "--set training.steps training.steps: found 1000.0 (number)"),
        ("extends=other.yaml", "--set extends extends: unknown field"),
    ],
)
def test_a_set_that_cannot_be_is_refused(place: Workplace, override: str, refused: str) -> None:
    assert refused in said(lambda: load(place.recipe(PLAIN), [override]))


def test_a_path_starts_at_the_file_that_states_it_and_in_set_where_one_stands(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = place.folder / "recipes" / "inner"
    inner.mkdir()
    here = place.folder / "elsewhere"
    (inner / "parent.yaml").write_text(
        "base: ../base\ndata: {name: ./card.yaml, template: ./chat.jinja}\nevaluation: {suite: ./suite.yaml}\n"
        "method: {name: lora, init_from: ../runs/x}\n"
    )
    child = place.recipe("extends: inner/parent.yaml\nevaluation: {suite: ./other.yaml}\n", "child")
    recipe = load(child, ["data.template=./mine.jinja"]).recipe
    assert recipe.base.name == str(place.folder / "recipes" / "base")
    assert recipe.data.name == str(inner / "card.yaml")
    assert recipe.data.template == str(here / "mine.jinja")
    assert recipe.evaluation.suite == str(place.folder / "recipes" / "other.yaml")
    assert isinstance(recipe.method, schema.Lora)
    assert recipe.method.init_from == str(place.folder / "recipes" / "runs" / "x")
    monkeypatch.setenv("HOME", str(place.folder))
    assert load(child, ["base=~/recipes/base"]).recipe.base.name == str(place.folder / "recipes" / "base")
    assert load(child, ["base=/abs/olute"]).recipe.base.name == "/abs/olute"


def test_words_with_a_slash_are_paths_only_where_something_lies(place: Workplace) -> None:
    path = place.recipe({"base": "Qwen/Qwen3-0.6B", "data": "rows"})
    assert load(path).recipe.base.name == "Qwen/Qwen3-0.6B"
    made = place.make_base("Qwen/Qwen3-0.6B", b"w")
    assert load(path).recipe.base.name == str(made)


def test_a_shipped_recipe_is_found_by_its_name(place: Workplace) -> None:
    shipped = resources.shipped("recipes") / "quickstart.yaml"
    for name in ("quickstart", "quickstart.yaml", "recipes/quickstart.yaml", "recipes/quickstart"):
        assert find(Path(name)) == shipped
    (place.folder / "elsewhere" / "quickstart.yaml").write_text("base: x")
    assert find(Path("quickstart.yaml")) == Path("quickstart.yaml")
    assert "there is no such file" in said(lambda: load(Path("quickstrat.yaml")))
    assert "there is no such file" in said(lambda: load(place.folder / "quickstart"))


# --- resolution ------------------------------------------------------------------------------------------------------


def test_a_directory_and_a_card_are_found(place: Workplace) -> None:
    resolved = place.resolved(evaluation={"suite": "arithmetic"})
    assert resolved.base.kind == "directory"
    assert resolved.base.location == str(place.folder / "recipes" / "base")
    assert (resolved.base.row, resolved.base.licence) == (None, "unknown")
    assert resolved.data.name == "rows"
    assert resolved.suite is not None
    assert resolved.suite.name == "arithmetic"
    assert set(resolved.suite.cards) == {"rows"}
    assert (resolved.target.name, resolved.dtype) == ("cpu", "fp32")


def test_a_catalog_name_and_its_hub_repository_are_the_same_base(place: Workplace) -> None:
    by_name = place.resolved(base="qwen2.5-0.5b-instruct").base
    by_hub = place.resolved(base="Qwen/Qwen2.5-0.5B-Instruct").base
    assert by_name == by_hub
    assert (by_name.kind, by_name.location) == ("hub", "Qwen/Qwen2.5-0.5B-Instruct")
    assert (by_name.row, by_name.licence) == ("qwen2.5-0.5b-instruct", "apache-2.0")


def test_an_unlisted_hub_repository_is_taken_at_the_revision_that_is_asked(place: Workplace) -> None:
    base = place.resolved(base={"name": "nobody/nothing", "revision": "v1"}).base
    assert (base.kind, base.location, base.revision) == ("hub", "nobody/nothing", "v1")
    assert (base.row, base.licence) == (None, "unknown")


def test_the_embedded_base_is_the_one_in_the_package(place: Workplace) -> None:
    if not resources.embedded_base().is_dir():
        assert "there is no directory" in said(lambda: place.resolved(base="embedded"))
        return
    base = place.resolved(base="embedded").base
    assert (base.location, base.licence) == (str(resources.embedded_base().resolve()), "apache-2.0")


def test_every_unknown_name_is_told_at_once_with_the_one_that_was_meant(place: Workplace) -> None:
    path = place.recipe(
        "base: qwen2.5-0.5b-instrct\ndata:\n  name: rwos\nevaluation: {suite: arithmetik}\ntarget: h20\n"
    )
    refused = said(lambda: resolve(load(path)))
    assert re.search(
        r"recipe\.yaml:1 base\.name: no base is called .*\n +did you mean 'qwen2.5-0.5b-instruct'", refused
    )
    assert re.search(r"recipe\.yaml:3 data\.name: no dataset card is called 'rwos'", refused)
    assert re.search(r"recipe\.yaml:4 evaluation\.suite: no suite is called 'arithmetik'", refused)
    assert re.search(r"recipe\.yaml:5 target\.name: no target is called 'h20'\n +did you mean 'h200'", refused)


def test_a_directory_that_is_no_base_is_refused(place: Workplace) -> None:
    (place.folder / "recipes" / "hollow").mkdir()
    assert "has no config.json" in said(lambda: place.resolved(base="./hollow"))
    assert "there is no directory" in said(lambda: place.resolved(base="./absent"))


def test_a_base_of_pickles_or_without_weights_is_refused_when_it_is_pinned(place: Workplace) -> None:
    bare = place.make_base("bare", b"")
    (bare / "model.safetensors").unlink()
    with pytest.raises(BaseError, match="has no weights"):
        pin(place.resolved(base="./bare"))
    pin(place.resolved(base={"name": "./bare", "init": "random"}, method="full"))
    (bare / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BaseError, match=r"pickle \(pytorch_model.bin\), which can run code"):
        pin(place.resolved(base="./bare"))
    (bare / "config.json").write_text("{")
    with pytest.raises(BaseError, match=r"config\.json: cannot be read"):
        pin(place.resolved(base="./bare"))


def test_rows_a_template_and_an_adapter_that_are_not_there_are_refused_when_pinned(place: Workplace) -> None:
    place.card("gone", splits={"train": {"files": ["gone-*.jsonl"]}})
    with pytest.raises(DataError, match=r"card gone split train: no file matches 'gone-\*.jsonl'"):
        pin(place.resolved(data="gone"))
    place.card("nothing", splits={"train": {}})
    with pytest.raises(DataError, match="names no files"):
        pin(place.resolved(data="nothing"))
    with pytest.raises(DataError, match="there is no template"):
        pin(place.resolved(data={"name": "rows", "template": "./none.jinja"}))
    with pytest.raises(BaseError, match="holds no adapter"):
        pin(place.resolved(method={"name": "lora", "init_from": "./none"}))


def test_problems_of_a_card_and_a_suite_stand_in_their_own_files(place: Workplace) -> None:
    place.card("wrong", formatt="text")
    assert "wrong.yaml:1 formatt: unknown field\n    did you mean 'format'?" in said(
        lambda: place.resolved(data="wrong")
    )
    suite = place.folder / "recipes" / "suites" / "broken.yaml"
    suite.write_text(
        "tasks:\n  - {name: heldout, id: a, data: rows, split: dev}\n  - {name: heldout, id: a, data: lost}\n"
    )
    refused = said(lambda: place.resolved(evaluation={"suite": "broken"}))
    assert "broken.yaml:2 tasks[0].split: the card has no 'dev'" in refused
    assert "broken.yaml:3 tasks[1].id: the id 'a' stands twice" in refused
    assert "broken.yaml:3 tasks[1].data: no dataset card is called 'lost'" in refused


def test_defaults_that_depend_on_others_are_written_out(place: Workplace) -> None:
    recipe = place.resolved("method.name=lora", "method.rank=4").recipe
    assert isinstance(recipe.method, schema.Lora)
    assert recipe.method.alpha == 8.0
    assert (recipe.training.epochs, recipe.training.steps) == (1.0, None)
    stated = place.resolved("method={name: qlora, rank: 4, alpha: 3}", "training.steps=5").recipe
    assert isinstance(stated.method, schema.Qlora)
    assert stated.method.alpha == 3.0
    assert (stated.training.epochs, stated.training.steps) == (None, 5)


@pytest.mark.parametrize("one", ["epochs=null", "steps=30"])
def test_a_null_does_not_undo_the_other_way_to_say_how_long(one: str) -> None:
    other = "steps=30" if one != "steps=30" else "epochs=null"
    recipe = load(ROOT / "recipes" / "quickstart.yaml", [f"training.{one}", f"training.{other}"]).recipe
    assert (recipe.training.epochs, recipe.training.steps) == (None, 30)


@pytest.mark.parametrize(
    ("target", "precision", "dtype"),
    [("cpu", "auto", "fp32"), ("cpu", "bf16", "bf16"), ("h200", "auto", "bf16"), ("h200", "fp32", "fp32")],
)
def test_precision_follows_the_target_where_it_is_left_open(
    place: Workplace, target: str, precision: str, dtype: str
) -> None:
    assert place.resolved(target=target, training={"precision": precision}).dtype == dtype


def test_a_resolved_recipe_read_again_is_the_same(place: Workplace) -> None:
    place.card("shared", splits={"train": {"files": "train.jsonl", "share": [0, 0.9]}})
    resolved, contents = pin(
        place.resolved(
            data={"name": "shared", "system": "Be brief.\n"},
            method={"name": "lora", "targets": ["q_proj"]},
            evaluation={"suite": "arithmetic"},
            tracking={"wandb": {"project": "p"}},
        )
    )
    again = Resolved.model_validate(json.loads(json.dumps(resolved.model_dump(mode="json"))), strict=False)
    assert again == resolved
    assert again.model_dump(mode="json") == resolved.model_dump(mode="json")
    assert pin(again) == (resolved, contents)
    assert identity(again, contents) == identity(resolved, contents)


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        ["name=other"],
        ["evaluation.suite=arithmetic"],
        ["evaluation.batch_size=2"],
        ["evaluation.base=no"],
        ["training.checkpoint_every=1"],
        ["training.precision=fp32"],
        ["target.threads=3"],
        ["target.micro_batch_tokens=64"],
        ["target.layout=flattened"],
        ["target.attention=eager"],
        ["target.gradient_checkpointing=yes"],
        ["tracking={wandb: {project: p}}"],
    ],
    ids=lambda change: change[0],
)
def test_what_changes_no_result_changes_no_identity(place: Workplace, change: list[str]) -> None:
    assert place.facts(*change) == place.facts()


@pytest.mark.parametrize(
    "change",
    [
        ["seed=1"],
        ["repeat=1"],
        ["base.init=random", "method=full"],
        ["method=full"],
        ["method={name: lora, rank: 8}"],
        ["method={name: lora, alpha: 8}"],
        ["method={name: lora, variant: dora}"],
        ["method={name: lora, targets: [q_proj]}"],
        ["objective={name: sft, turns: last}"],
        ["training.learning_rate=1e-3"],
        ["training.epochs=2"],
        ["training.steps=1"],
        ["training.batch_size=8"],
        ["training.schedule=linear"],
        ["training.precision=bf16"],
        ["training.router_loss=0.1"],
        ["target=h200", "training.precision=fp32"],
        ["data.fraction=0.5"],
        ["data.template=plain"],
        ["data.system=Be brief."],
        ["data.max_length=64"],
        ["data.split=test"],
        ["data.too_long=cut"],
        ["data.contamination=allow"],
    ],
    ids=lambda change: change[0],
)
def test_what_changes_a_result_changes_the_identity(place: Workplace, change: list[str]) -> None:
    assert identity_hash(place.facts(*change)) != identity_hash(place.facts())


def test_two_targets_of_one_kind_make_the_same_run(place: Workplace) -> None:
    assert place.facts(target="h200") == place.facts(target="rtx-4090")


def test_the_content_decides_and_not_where_it_lies(place: Workplace) -> None:
    before = place.facts()
    copy = place.make_base("copy", b"weights")
    assert place.facts(base=str(copy)) == before
    place.card("same rows", description="other words", licence="mit", origin="elsewhere", as_of="2026-01-01")
    assert place.facts(data="same rows") == before
    (copy / "README.md").write_text("words")
    assert place.facts(base=str(copy)) == before
    (copy / "model.safetensors").write_bytes(b"other weights")
    assert place.facts(base=str(copy)) != before
    (copy / "model.safetensors").write_bytes(b"weights")
    assert place.facts(base=str(copy)) == before
    (copy / "tokenizer.json").write_text("{}")
    assert place.facts(base=str(copy)) != before


def test_rows_and_their_reading_are_part_of_the_identity(place: Workplace) -> None:
    before = place.facts()
    write_rows(place.folder / "datasets" / "train.jsonl", [{"question": "1 + 1?", "answer": "two"}])
    other_rows = place.facts()
    assert other_rows != before
    place.card("rows", columns={"prompt": "answer", "completion": "question"})
    assert place.facts() != other_rows


def test_the_share_and_seed_of_a_split_are_part_of_the_identity(place: Workplace) -> None:
    whole = place.facts()
    made = []
    for share, seed in (([0, 0.5], 0), ([0.5, 1], 0), ([0, 0.5], 1)):
        place.card("rows", splits={"train": {"files": "train.jsonl", "share": share}}, split_seed=seed)
        made.append(identity_hash(place.facts()))
    assert len({identity_hash(whole), *made}) == 4


def test_the_content_of_a_template_counts_and_not_its_path(place: Workplace) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "three")):
        (place.folder / "elsewhere" / f"{name}.jinja").write_text(text)
    a, b, c = (place.facts(f"data.template=./{name}.jinja") for name in "abc")
    assert a == b
    assert a != c
    assert a != place.facts()


def test_the_adapter_that_is_started_from_counts_by_its_content(place: Workplace) -> None:
    for name, weights in (("one", b"a"), ("two", b"a"), ("three", b"other")):
        folder = place.folder / "elsewhere" / name / "adapter"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(weights)
    one, two, three = (
        place.facts("method.name=lora", f"method.init_from=./{name}") for name in ("one", "two", "three")
    )
    assert one == two
    assert one != three
    assert one != place.facts("method.name=lora")


def test_items_that_rows_are_dropped_for_are_part_of_the_identity(place: Workplace) -> None:
    """With `contamination: drop` the suite decides which rows are trained on; otherwise it decides nothing."""
    data, scored = {"name": "rows", "contamination": "drop"}, {"suite": "arithmetic"}
    before = place.facts(data=data, evaluation=scored)
    assert before != place.facts(data=data)
    assert before == place.facts(data=data, evaluation=scored | {"batch_size": 2})
    write_rows(place.folder / "datasets" / "test.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    assert before != place.facts(data=data, evaluation=scored)


def test_a_field_that_is_stated_at_its_default_changes_nothing(place: Workplace) -> None:
    for method in METHODS:
        for objective in OBJECTIVES:
            data = {"sft": "rows", "pretrain": "texts", "dpo": "pairs"}[_tag(objective)]
            chosen = {
                "method": {"name": _tag(method)},
                "objective": {"name": _tag(objective)},
                "data": {"name": data},
                "evaluation": {"suite": "arithmetic"},
            }
            before = place.facts(**chosen)
            for key, section in {"method": method, "objective": objective, "data": schema.Data,
                                 "training": schema.Training, "base": schema.Base}.items():  # fmt: skip
                stated = {name: value for name, value in _defaults(section).items() if name != "name"}
                start = chosen.get(key, {"name": "./base"} if key == "base" else {})
                assert place.facts(**chosen | {key: start | stated}) == before, key
            assert place.facts(**chosen | {"seed": 0, "repeat": 0}) == before


def _tag(section: type[Section]) -> str:
    return str(section.model_fields["name"].default)


def _defaults(section: type[Section]) -> dict[str, Any]:
    found = {name: info.get_default(call_default_factory=True) for name, info in section.model_fields.items()}
    return {name: value for name, value in found.items() if value is not PydanticUndefined}


def test_a_hub_base_counts_by_its_commit_and_a_directory_of_datasets_by_its_files(place: Workplace) -> None:
    folder = place.folder / "datasets" / "saved" / "train"
    folder.mkdir(parents=True)
    (folder / "data-00000-of-00001.arrow").write_bytes(b"rows")
    (folder / "state.json").write_text(
        '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}'
    )
    place.card("saved", source={"directory": "saved"}, splits={})
    before = place.facts(data="saved")
    place.card("saved", source={"directory": "saved"}, splits={"other": {}})
    assert place.facts(data="saved") == before
    (folder / "data-00000-of-00001.arrow").write_bytes(b"other rows")
    assert place.facts(data="saved") != before


def test_the_untouched_base_is_one_run_whatever_is_trained_on_it(place: Workplace) -> None:
    scored = {"evaluation": {"suite": "arithmetic"}}
    one = base_reference(place.resolved("seed=3", "repeat=2", "method=vera", "training.steps=9", **scored))
    two = base_reference(place.resolved("method={name: lora, rank: 2}", "data=texts", "objective=pretrain", **scored))
    assert identity(*pin(one)) == identity(*pin(two))
    assert one.name == "base-base"
    assert not one.trains
    four_bit = base_reference(place.resolved("method={name: qlora, quantization: fp4}", **scored))
    assert four_bit.recipe.method == schema.NoMethod(quantization="fp4")
    assert identity(*pin(four_bit)) != identity(*pin(one))


def test_the_seed_counts_for_a_random_base_that_is_only_scored(place: Workplace) -> None:
    untrained = {"method": "none", "evaluation": {"suite": "arithmetic"}}
    assert place.facts("seed=1", **untrained) == place.facts(**untrained)
    fresh = untrained | {"base": {"name": "./base", "init": "random"}}
    assert place.facts("seed=1", **fresh) != place.facts(**fresh)


def test_a_fingerprint_is_of_the_content_and_notices_a_change(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    two.write_text("same")
    assert fingerprint.of_file(one) == fingerprint.of_file(two) == fingerprint.of_text("same")
    one.write_text("longer")
    assert fingerprint.of_file(one) == fingerprint.of_text("longer")
    assert fingerprint.of_value({"a": 1, "b": [2.0]}) == fingerprint.of_value({"b": [2.0], "a": 1})
    assert list(fingerprint.of_files([two, one], tmp_path)) == ["one", "two"]


def test_hashing_does_without_its_cache_where_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file where the cache should be")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    assert fingerprint.of_file(tmp_path / "file") == fingerprint.of_text("a file where the cache should be")


# --- the schema's text -----------------------------------------------------------------------------------------------


def fields(owner: type[BaseModel] = Recipe, start: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Every field of a recipe: its dotted place, the section it belongs to, its name."""
    for name, info in owner.model_fields.items():
        here = f"{start}.{name}" if start else name
        yield here, owner, name
        for model in models(info.annotation):
            yield from fields(model, here)


def models(annotation: Any) -> list[type[BaseModel]]:
    """The sections in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in models(argument)]


def test_every_field_of_the_schema_is_read_by_code() -> None:
    read: set[str] = set()
    package = ROOT / "workbench"
    for path in sorted(package.rglob("*.py")):
        if path == package / "recipe" / "schema.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)
    assert {place for place, _, name in fields() if name not in read} == set()


def test_every_field_and_section_says_what_it_means() -> None:
    silent = {place for place, owner, name in fields() if not owner.model_fields[name].description}
    assert silent - {"method.name", "objective.name"} == set()
    assert all(model.__doc__ for section in Recipe.model_fields.values() for model in models(section.annotation))


@pytest.mark.parametrize("field", sorted({place for place, _, _ in fields()}))
def test_explain_gives_the_docstring_of_every_field(field: str, workbench: Any) -> None:
    outcome = workbench("explain", field)
    assert outcome.status == 0
    texts = {owner.model_fields[name].description for place, owner, name in fields() if place == field}
    said = " ".join(outcome.output.split())
    for text in texts - {None}:
        assert " ".join(str(text).split()) in said
    assert field in said


def test_explain_of_the_recipe_lists_its_sections_and_an_unknown_field_is_answered(workbench: Any) -> None:
    listed = workbench("explain", "recipe").output
    assert all(name in listed for name in Recipe.model_fields)
    outcome = workbench("explain", "method.rnk")
    assert outcome.status == 2
    assert "did you mean 'method.rank'?" in outcome.output
    for field in ("method.rank.deeper", "..", "", "method."):
        assert workbench("explain", field).status == 2


# --- JSON schema -----------------------------------------------------------------------------------------------------

KEYWORDS = {
    "$defs", "$ref", "$schema", "title", "description", "type", "properties", "additionalProperties", "required",
    "anyOf", "enum", "const", "default", "items", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "pattern",
}  # fmt: skip
TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict, "null": type(None)}


def fits(value: Any, pattern: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is valid under the keywords that our schema uses (draft 2020-12, done by hand)."""
    assert set(pattern) <= KEYWORDS, set(pattern) - KEYWORDS
    if "$ref" in pattern and not fits(value, root["$defs"][pattern["$ref"].removeprefix("#/$defs/")], root):
        return False
    if "anyOf" in pattern and not any(fits(value, one, root) for one in pattern["anyOf"]):
        return False
    if "const" in pattern and value != pattern["const"]:
        return False
    if "enum" in pattern and value not in pattern["enum"]:
        return False
    kind = pattern.get("type")
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        return False
    if kind in TYPES and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if isinstance(value, list):
        return all(fits(item, pattern.get("items", {}), root) for item in value)
    if isinstance(value, str):
        return re.search(pattern.get("pattern", ""), value) is not None
    if isinstance(value, dict):
        known = pattern.get("properties", {})
        if pattern.get("additionalProperties") is False and not value.keys() <= known.keys():
            return False
        return value.keys() >= set(pattern.get("required", [])) and all(
            fits(inner, known[key], root) for key, inner in value.items() if key in known
        )
    if isinstance(value, int | float):
        return (
            pattern.get("minimum", value) <= value <= pattern.get("maximum", value)
            and not value <= pattern.get("exclusiveMinimum", value - 1)
            and not value >= pattern.get("exclusiveMaximum", value + 1)
        )
    return True


def accepted(value: Any) -> bool:
    """By the `jsonschema` package where it is there, else by hand."""
    made = json_schema()
    try:
        import jsonschema
    except ImportError:
        return fits(value, made, made)
    jsonschema.Draft202012Validator.check_schema(made)
    return bool(jsonschema.Draft202012Validator(made).is_valid(value))


def test_the_schema_verb_prints_the_schema(workbench: Any) -> None:
    outcome = workbench("schema")
    assert outcome.status == 0
    made = json.loads(outcome.output)
    assert made == json_schema()
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    references = set(re.findall(r'"#/\$defs/(\w+)"', outcome.output))
    assert references == set(made["$defs"])
    assert all(made["properties"][name].get("description") for name in ("base", "method", "data", "target", "seed"))


SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schema_accepts_every_shipped_recipe(path: Path) -> None:
    from workbench import documents

    assert accepted(documents.read(path).value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    assert load(path).recipe.name == path.stem


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ({"extends": "x.yaml", "method": {"rank": 8}}, True),
        ({"extends": "x.yaml", "base": {"init": "random"}}, True),
        ({"base": "x", "data": {"name": "y"}, "method": {"name": "vera", "rank": 2}}, True),
        ({"base": "x", "data": "y", "method": {"rnk": 8}}, False),
        ({"base": "x", "data": "y", "method": {"name": "vera", "alpha": 2}}, False),
        ({"base": "x", "data": "y", "seed": -1}, False),
        ({"base": "x", "data": "y", "seed": "1"}, False),
        ({"base": 3, "data": "y"}, False),
        ({"base": "x", "data": "y", "name": "a/b"}, False),
        ({"base": "x", "data": "y", "training": {"steps": 0}}, False),
        ({"base": "x", "data": "y", "training": {"schedule": "cosin"}}, False),
    ],
)
def test_the_schema_refuses_what_a_recipe_may_not_say(value: Any, good: bool) -> None:
    assert accepted(value) is good


def test_check_says_what_a_recipe_means_or_everything_that_is_wrong(workbench: Any, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    path = place.recipe(PLAIN | {"evaluation": {"suite": "arithmetic"}})
    outcome = workbench("check", str(path), "--set", "method={name: lora, rank: 2}")
    assert outcome.status == 0
    assert "ok recipe: sft with lora" in outcome.output
    assert "scored on arithmetic; fp32 on cpu" in outcome.output
    outcome = workbench("check", str(place.recipe({"base": "./base", "dat": "rows", "seed": "x"})))
    assert outcome.status == 2
    for part in ("dat: unknown field", "did you mean 'data'?", "data: is needed and not there", "seed: found 'x'"):
        assert part in outcome.output
    assert "Traceback" not in outcome.output


def test_bases_lists_the_catalog_with_what_licences_restrict(workbench: Any) -> None:
    outcome = workbench("bases")
    assert outcome.status == 0
    assert "qwen2.5-0.5b-instruct" in outcome.output
    few = workbench("bases", "qwen", "INSTRUCT", "--most", "1")
    assert "qwen2.5-0.5b-instruct" in few.output
    assert "qwen2.5-1.5b-instruct" not in few.output
    nothing = workbench("bases", "no-such-base")
    assert nothing.status == 2
    assert "none matches no-such-base" in nothing.output
