"""Hand-written YAML: what a scalar is, where a problem stands, what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench import documents
from workbench.catalog.cards import Card
from workbench.catalog.suites import Suite
from workbench.errors import RecipeError
from workbench.recipe.schema import Recipe

BASE = "base: embedded\ndata: rows\n"


def problems(model: Any, text: str) -> list[str]:
    """What is said about a document, a line a problem."""
    with pytest.raises(RecipeError) as caught:
        documents.check(model, documents.parse(text, "file.yaml"))
    return [str(problem) for problem in caught.value.problems]


def refusal(text: str) -> str:
    """What is said about text that cannot be read at all."""
    with pytest.raises(RecipeError) as caught:
        documents.parse(text, "file.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2e-4", 2e-4),
        ("1e3", 1e3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("0o10", "0o10"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("none", "none"),
        ("2026-01-02", "2026-01-02"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("'null'", "null"),
        ("=", "="),
        ("", None),
    ],
)
def test_a_scalar_is_what_it_looks_like(written: str, read: object) -> None:
    value = documents.parse(f"key: {written}", "file.yaml").value["key"]
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(("word", "meaning"), [("yes", True), ("on", True), ("no", False), ("off", False)])
def test_a_switch_takes_the_words_for_true_and_false(word: str, meaning: bool) -> None:
    document = documents.parse(f"base: {{name: x}}\ndata: {{name: y}}\nevaluation: {{base: {word}}}", "file.yaml")
    assert documents.check(Recipe, document).evaluation.base is meaning


def test_a_field_of_text_keeps_the_words_that_switches_take() -> None:
    document = documents.parse("base: {name: no}\ndata: {name: on}\nname: off", "file.yaml")
    recipe = documents.check(Recipe, document)
    assert (recipe.base.name, recipe.data.name, recipe.name) == ("no", "on", "off")


def test_a_number_too_long_for_an_integer_is_no_crash() -> None:
    assert documents.parse(f"seed: {'9' * 5000}", "file.yaml").value["seed"] == float("inf")


@pytest.mark.parametrize("written", ["1e999", ".inf", ".nan", "9" * 5000])
def test_a_number_that_is_not_finite_is_refused(written: str) -> None:
    (said,) = problems(Recipe, f"base: {{name: x}}\ndata: {{name: y}}\ntraining: {{learning_rate: {written}}}")
    assert said.startswith("file.yaml:3 training.learning_rate: found")
    assert "number" in said


def test_keys_that_stand_twice_are_all_named_with_both_lines() -> None:
    said = refusal("base: x\nmethod:\n  rank: 1\n  name: lora\n  rank: 2\nbase: y\n")
    assert "file.yaml:5 method.rank: stands twice (first at file.yaml:3)" in said
    assert "file.yaml:6 base: stands twice (first at file.yaml:1)" in said


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    assert "aliases repeat without end" in refusal("\n".join(lines))


def test_an_alias_of_itself_is_refused_with_its_line() -> None:
    assert refusal("x: 1\nbase: &a {inner: *a}") == "file.yaml:2: aliases repeat without end"


def test_an_ordinary_alias_is_taken() -> None:
    assert documents.parse("a: &one [1, 2]\nb: *one", "file.yaml").value == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("text", ["x: " + "[" * 3000 + "]" * 3000, "{x: " * 3000 + "1" + "}" * 3000])
def test_endless_nesting_is_refused(text: str) -> None:
    assert refusal(text) == "file.yaml: is nested too deeply"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base:\n\tname: x", "file.yaml:2: is not YAML: found character '\\t'"),
        ("base: [1, 2", "file.yaml:1: is not YAML"),
        ("base: x\n---\nbase: y", "is not YAML: but found another document"),
        ("a\x00b: 1", "is not YAML: unacceptable character #x0000"),
        ("base: *nobody", "file.yaml:1: is not YAML: found undefined alias"),
        ("base: x\n? [a, b]\n: 1", "file.yaml:2: a key must be a word"),
        ("base: x\n: 1", "file.yaml:2: is not YAML"),
        ("base: x\nseed: !mine 3", "file.yaml:2 seed: has the tag !mine"),
        ("seed: !!python/name:os.system x", "file.yaml:1 seed: has the tag tag:yaml.org,2002:python/name:os.system"),
        ("", "file.yaml: is empty"),
        ("# only a comment\n", "file.yaml: is empty"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbfbase: x\r\ndata: y\r\n")
    document = documents.read(path)
    assert document.value == {"base": "x", "data": "y"}
    assert document.where(("data",)).endswith("recipe.yaml:2 data")


def test_a_binary_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(b"base: \xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"model\.yaml: is not UTF-8 text \(byte 6\): is it a binary file\?"):
        documents.read(path)


def test_a_missing_file_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "qwen-lora.yaml").write_text("base: x")
    with pytest.raises(RecipeError, match=r"there is no such file\n    did you mean 'qwen-lora.yaml'"):
        documents.read(tmp_path / "qwen-lroa.yaml")
    with pytest.raises(RecipeError, match=r"there is no folder .*nowhere either"):
        documents.read(tmp_path / "nowhere" / "x.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="empty holds no YAML file"):
        documents.read(tmp_path / "empty" / "x.yaml")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a directory"):
        documents.read(tmp_path)


def test_places_are_named_as_a_person_in_this_folder_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "a.yaml").write_text("x: 1")
    (tmp_path / "b.yaml").write_text("x: 1")
    assert documents.read(Path("a.yaml").absolute()).name == "a.yaml"
    assert documents.read(tmp_path / "b.yaml").name == str(tmp_path / "b.yaml")


def test_a_place_is_the_line_of_the_key_or_of_its_nearest_ancestor() -> None:
    document = documents.parse("tasks:\n  - id: a\n    stop:\n      - x\n      - y\n  - {id: b}\n", "file.yaml")
    assert document.where(("tasks", 0, "stop", 1)) == "file.yaml:5 tasks[0].stop[1]"
    assert document.where(("tasks", 1, "id")) == "file.yaml:6 tasks[1].id"
    assert document.where(("tasks", 1, "missing", "deeper")) == "file.yaml:6 tasks[1].missing.deeper"
    assert document.where(("absent",)) == "file.yaml:1 absent"
    assert document.where(()) == "file.yaml:1"


def test_an_unknown_field_is_answered_with_the_one_that_was_meant() -> None:
    (said,) = problems(Recipe, "base: {name: x}\ndata: {name: y}\nmethod:\n  name: lora\n  rnk: 3\n")
    assert said.startswith("file.yaml:5 method.rnk: unknown field\n    did you mean 'rank'? allowed: rank, alpha")


def test_every_problem_is_told_at_once_and_without_the_tag_of_the_union() -> None:
    text = """\
base: {init: fresh}
data: {name: 3}
method:
  name: vera
  rank: 0
  alpha: 4
objective:
  name: dpo
  beta: -1
  loss: hinge
seed: 1.5
"""
    said = [line.split("\n")[0] for line in problems(Recipe, text)]
    assert sorted(said) == sorted(
        [
            "file.yaml:1 base.name: is needed and not there",
            "file.yaml:1 base.init: found 'fresh' (text)",
            "file.yaml:2 data.name: found 3 (whole number)",
            "file.yaml:5 method.rank: found 0 (whole number)",
            "file.yaml:6 method.alpha: unknown field",
            "file.yaml:9 objective.beta: found -1 (whole number)",
            "file.yaml:10 objective.loss: found 'hinge' (text)",
            "file.yaml:11 seed: found 1.5 (number)",
        ]
    )


def test_a_union_without_a_name_or_with_an_unknown_one_says_what_may_stand_there() -> None:
    start = "base: {name: x}\ndata: {name: y}\n"
    (said,) = problems(Recipe, start + "method: {name: lroa, rank: 2}")
    assert said == (
        "file.yaml:3 method: found 'lroa' (text)\n"
        "    did you mean 'lora'? allowed: lora, qlora, ia3, vera, oft, full, none"
    )
    (said,) = problems(Recipe, start + "method: {rank: 2}")
    assert said.startswith("file.yaml:3 method: says no name\n    write `name: ...`")
    for wrong in ("5", "[lora]", ""):
        (said,) = problems(Recipe, start + f"method: {wrong}")
        assert said.startswith("file.yaml:3 method: found")
        assert said.endswith("a section with fields is needed")


def test_a_value_that_fits_no_alternative_is_one_problem() -> None:
    start = "base: {name: x}\ndata: {name: y}\nmethod:\n  name: lora\n"
    (said,) = problems(Recipe, start + "  targets: qproj\n")
    assert said.startswith("file.yaml:5 method.targets: found 'qproj' (text)\n")
    assert "all-linear" in said
    assert "list" in said
    (said,) = problems(Recipe, start + "  targets:\n    - q_proj\n    - 7\n")
    assert said == "file.yaml:7 method.targets[1]: found 7 (whole number)\n    should be a valid string"


def test_problems_in_lists_of_tagged_sections_stand_at_their_own_line() -> None:
    text = """\
tasks:
  - {name: heldout, id: a, data: x}
  - name: generate
    id: b
    data: x
    fewshot: -1
    max_bytes: 3
  - {name: choise, id: c, data: x}
"""
    said = [line.split("\n")[0] for line in problems(Suite, text)]
    assert said == [
        "file.yaml:6 tasks[1].fewshot: found -1 (whole number)",
        "file.yaml:7 tasks[1].max_bytes: unknown field",
        "file.yaml:8 tasks[2]: found 'choise' (text)",
    ]


def test_problems_under_names_that_the_writer_chose_stand_at_their_own_line() -> None:
    text = """\
format: text
splits:
  train:
    files: rows.jsonl
    shares: [0, 0.5]
  test:
    files: 3
"""
    said = problems(Card, text)
    assert len(said) == 2
    assert said[0] == "file.yaml:5 splits.train.shares: unknown field\n    did you mean 'share'? allowed: files, share"
    assert said[1].startswith("file.yaml:7 splits.test.files: found 3 (whole number)\n")


def test_an_empty_section_and_an_empty_document_say_what_is_needed() -> None:
    assert problems(Recipe, "{}") == [
        "file.yaml:1 base: is needed and not there",
        "file.yaml:1 data: is needed and not there",
    ]
    (said,) = problems(Recipe, "base: {name: x}\ndata: {name: y}\ntraining:\n")
    assert said == "file.yaml:3 training: found nothing\n    a section with fields is needed"


def test_did_you_mean_lists_what_is_allowed_and_guesses_only_when_close() -> None:
    assert documents.did_you_mean("lorra", ["lora", "full"]) == "did you mean 'lora'? allowed: lora, full"
    assert documents.did_you_mean("zzz", ["lora", "full"]) == "allowed: lora, full"
    assert documents.did_you_mean("x", []) == "nothing is allowed here"
    assert documents.did_you_mean("x", [f"name{number}" for number in range(30)]).endswith("name23, ...")


def test_a_long_value_is_cut_in_a_message() -> None:
    (said,) = problems(Recipe, f"base: {{name: x}}\ndata: {{name: y}}\nseed: {'ab' * 500}")
    assert max(len(line) for line in said.splitlines()) < 120
