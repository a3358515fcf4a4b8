"""Suites are frozen: what their fingerprint covers, what is refused, and that nothing is scored twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome, write_rows

from workbench.errors import EvaluationError, RecipeError
from workbench.evaluation import items as suite_items
from workbench.recipe import resolve
from workbench.recipe.resolved import ResolvedSuite

ROWS = [
    {"name": f"q{at}", "prompt": f"the {one} sat on the", "completion": f" {other}", "choices": [f" {other}", " moon"]}
    for at, (one, other) in enumerate([("cat", "mat"), ("dog", "rug"), ("hen", "egg"), ("cow", "hay"), ("fox", "log")])
]
SHOTS = [{"name": f"s{at}", "prompt": f"a {at} is a", "completion": f" number {at}"} for at in range(3)]
TEXTS = [{"name": "t0", "text": "the cat ran to the park\n" * 4}, {"name": "t1", "text": "a red ball\n"}]
TASKS: list[dict[str, Any]] = [
    {"name": "heldout", "id": "text", "data": "./texts.yaml", "max_bytes": 64},
    {"name": "choice", "id": "place", "data": "./asked.yaml", "options": "choices", "template": "plain"},
    {"name": "generate", "id": "words", "data": "./asked.yaml", "max_new_tokens": 4, "fewshot": 1, "template": "plain"},
]


def write_suite(
    folder: Path, tasks: list[dict[str, Any]] = TASKS, name: str = "mixed", texts: list[dict[str, Any]] = TEXTS,
    rows: list[dict[str, Any]] = ROWS, shots: list[dict[str, Any]] = SHOTS, **more: Any,
) -> Path:  # fmt: skip
    """A suite with its cards and rows; returns the suite's file."""
    write_rows(folder / "texts.jsonl", texts)
    write_rows(folder / "asked.jsonl", rows)
    write_rows(folder / "shots.jsonl", shots)
    cards = {
        "texts": {"format": "text", "id": "name", "splits": {"test": {"files": "texts.jsonl"}}},
        "asked": {
            "format": "prompt_completion", "id": "name",
            "splits": {"test": {"files": "asked.jsonl"}, "train": {"files": "shots.jsonl"}},
        },
    }  # fmt: skip
    for card, words in cards.items():
        (folder / f"{card}.yaml").write_text(yaml.safe_dump(words))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"tasks": tasks, **more}))
    return path


def found(path: Path) -> ResolvedSuite:
    return resolve.find_suite(str(path), path.parent, "--suite")


def fingerprint(path: Path) -> str:
    suite = found(path)
    return suite_items.suite_fingerprint(suite, suite_items.load(suite))


def with_task(at: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**task, **fields} if number == at else task for number, task in enumerate(TASKS)]


def with_row(rows: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    return [{**rows[0], **fields}, *rows[1:]]


CHANGES: dict[str, dict[str, Any]] = {
    "a text": {"texts": with_row(TEXTS, text="the cat ran to the park.\n" * 4)},
    "a question": {"rows": with_row(ROWS, prompt="the cat stood on the")},
    "an answer": {"rows": with_row(ROWS, completion=" moon")},
    "an option": {"rows": with_row(ROWS, choices=[" mat", " sun"])},
    "the order of options": {"rows": with_row(ROWS, choices=[" moon", " mat"])},
    "an item's name": {"rows": with_row(ROWS, name="other")},
    "one item less": {"rows": ROWS[:-1]},
    "the order of items": {"rows": ROWS[::-1]},
    "a solved example": {"shots": [{**shot, "completion": " no"} for shot in SHOTS]},
    "the number of solved examples": {"tasks": with_task(2, fewshot=2)},
    "the longest answer": {"tasks": with_task(2, max_new_tokens=5)},
    "the extraction": {"tasks": with_task(2, extract=r"\w+")},
    "a stop text": {"tasks": with_task(2, stop=["\n"])},
    "the refusal": {"tasks": with_task(2, refusal="sorry")},
    "the template": {"tasks": with_task(1, template="base")},
    "a list of options": {"tasks": with_task(1, options=[row["completion"] for row in ROWS])},
    "what is compared": {"tasks": with_task(1, primary="answer_bits_per_byte")},
    "the longest item": {"tasks": with_task(0, max_bytes=80)},
    "a subset": {"tasks": with_task(1, max_items=3)},
    "a task's name": {"tasks": with_task(0, id="other")},
    "one task less": {"tasks": TASKS[:-1]},
    "a task of lm-eval": {"tasks": [*TASKS, {"name": "lm_eval", "id": "more", "task": "arc_easy"}]},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with(change: str, tmp_path: Path) -> None:
    before = fingerprint(write_suite(tmp_path / "one"))
    assert fingerprint(write_suite(tmp_path / "two", **CHANGES[change])) != before


def test_the_fingerprint_does_not_change_with_path_name_or_description(tmp_path: Path) -> None:
    before = fingerprint(write_suite(tmp_path / "one"))
    assert fingerprint(write_suite(tmp_path / "one")) == before
    elsewhere = tmp_path / "two" / "deeper"
    path = write_suite(elsewhere, name="renamed", description="what it measures")
    for card in ("texts", "asked"):  # the same rows from another card, another file and another split's name
        shutil.move(elsewhere / f"{card}.jsonl", elsewhere / f"{card}-moved.jsonl")
        words = yaml.safe_load((elsewhere / f"{card}.yaml").read_text())
        words["splits"]["validation"] = {"files": f"{card}-moved.jsonl"}
        del words["splits"]["test"]
        (elsewhere / f"{card}-card.yaml").write_text(yaml.safe_dump(words | {"description": "rows", "licence": "MIT"}))
        (elsewhere / f"{card}.yaml").unlink()
    tasks = [{**task, "data": task["data"].replace(".yaml", "-card.yaml"), "split": "validation"} for task in TASKS]
    path.write_text(yaml.safe_dump({"tasks": tasks, "description": "what it measures"}))
    assert fingerprint(path) == before


def test_a_suite_frozen_at_another_fingerprint_is_refused(tmp_path: Path) -> None:
    frozen = fingerprint(write_suite(tmp_path))
    assert suite_items.load(found(write_suite(tmp_path, fingerprint=frozen)))
    changed = write_suite(tmp_path, fingerprint=frozen, rows=with_row(ROWS, prompt="the cat stood on the"))
    with pytest.raises(EvaluationError, match="its items changed") as refused:
        suite_items.load(found(changed))
    assert frozen[:16] in str(refused.value)


def chosen(path: Path) -> list[str]:
    return [item.id for item in suite_items.load(found(path))[0].items]


def test_a_subset_is_chosen_by_content(tmp_path: Path) -> None:
    rows = [{"name": f"q{at}", "prompt": f"{at} and one is", "completion": f" {at + 1}"} for at in range(60)]
    tasks = [{"name": "choice", "id": "sum", "data": "./asked.yaml", "max_items": 12, "template": "plain"}]
    before = chosen(write_suite(tmp_path, tasks=tasks, rows=rows))
    assert len(before) == 12
    assert before == [row["name"] for row in rows if row["name"] in before]  # in the file's order
    assert before != [row["name"] for row in rows[:12]]
    assert set(chosen(write_suite(tmp_path, tasks=tasks, rows=rows[::-1]))) == set(before)
    more_shots = [*SHOTS, *({"name": f"x{at}", "prompt": f"{at} is", "completion": " it"} for at in range(50))]
    assert chosen(write_suite(tmp_path, tasks=tasks, rows=rows, shots=more_shots)) == before
    longer = rows + [{"name": f"n{at}", "prompt": f"{at} and two is", "completion": f" {at + 2}"} for at in range(20)]
    after = chosen(write_suite(tmp_path, tasks=tasks, rows=longer))
    assert {name for name in after if name.startswith("q")} <= set(before)  # new rows may enter; no old one does
    wider = chosen(write_suite(tmp_path, tasks=[{**tasks[0], "max_items": 24}], rows=rows))
    assert set(before) < set(wider)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": with_task(1, id="text")}, "the id 'text' stands twice"),
        ({"tasks": with_task(1, data="./nothing.yaml")}, "no dataset card"),
        ({"tasks": with_task(1, split="tset")}, "has no 'tset'"),
        ({"tasks": []}, "tasks"),
        ({"tasks": with_task(1, tempalte="plain")}, "tempalte"),
    ],
)
def test_a_wrong_suite_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        found(write_suite(tmp_path, **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": with_row(ROWS, choices=[" sun", " moon"])}, "its answer ' mat' is not among the options"),
        ({"rows": with_row(ROWS, choices=" mat")}, "are no list of texts"),
        ({"tasks": with_task(0, data="./asked.yaml")}, "heldout takes raw text"),
        ({"tasks": with_task(1, data="./texts.yaml")}, "heldout takes raw text"),
    ],
)
def test_items_that_cannot_be_asked_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        suite_items.load(found(write_suite(tmp_path, **change)))


Train = Callable[..., Outcome]


@pytest.fixture
def recipe(tmp_path: Path, small_base: Path) -> Path:
    """A recipe of a few steps with the suite beside it."""
    write_suite(tmp_path, tasks=TASKS[:2])
    rows = [{"prompt": f"the {word} went to the", "completion": " park"} for word in ("ant", "bee", "owl", "eel")]
    write_rows(tmp_path / "trained.jsonl", rows)
    card = {"format": "prompt_completion", "splits": {"train": {"files": "trained.jsonl"}}}
    (tmp_path / "trained.yaml").write_text(yaml.safe_dump(card))
    words = {
        "base": str(small_base), "method": {"name": "lora", "rank": 4},
        "data": {"name": "./trained.yaml", "template": "plain"},
        "training": {"steps": 3, "batch_size": 2, "learning_rate": 0.01, "precision": "fp32"},
        "evaluation": {"suite": "./mixed.yaml"}, "target": "cpu",
    }  # fmt: skip
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(words))
    return path


def one(folder: Path, pattern: str) -> Path:
    matches = list((folder / "runs").glob(pattern))
    assert len(matches) == 1, matches
    return matches[0]


def stamps(run: Path, suite: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run / "eval" / suite).iterdir()}


def test_a_base_is_scored_once_for_all_runs_that_start_from_it(workbench: Train, recipe: Path, tmp_path: Path) -> None:
    assert workbench("train", recipe.name).status == 0
    base = one(tmp_path, "base-*")
    before = stamps(base, "mixed")
    assert before.keys() == {"items.jsonl", "results.json"}
    outcome = workbench("train", recipe.name, "--set", "seed=1", "--set", "name=other")
    assert outcome.status == 0, outcome.output
    assert one(tmp_path, "base-*") == base
    assert stamps(base, "mixed") == before
    # another system message makes other prompts: the base is asked again, and the runs are not compared
    outcome = workbench("train", recipe.name, "--set", "data.system=be kind", "--set", "name=kind")
    assert outcome.status == 0, outcome.output
    assert stamps(base, "mixed") != before
    refused = workbench("compare", one(tmp_path, "short-*").name, one(tmp_path, "kind-*").name)
    assert refused.status == 3
    assert "data.system: - (short) | be kind (kind)" in refused.output


def test_a_finished_run_is_scored_on_another_suite(workbench: Train, recipe: Path, tmp_path: Path) -> None:
    assert workbench("train", recipe.name).status == 0
    run, base = one(tmp_path, "short-*"), one(tmp_path, "base-*")
    kept = {path: path.stat().st_mtime_ns for path in [*run.glob("adapter/*"), *run.glob("eval/mixed/*")]}
    write_suite(tmp_path, tasks=TASKS[:1], name="texts-only")
    outcome = workbench("eval", run.name, "--suite", "./texts-only.yaml")
    assert outcome.status == 0, outcome.output
    for path in (run, base):
        results = json.loads((path / "eval" / "texts-only" / "results.json").read_text())
        assert list(results["tasks"]) == ["text"]
        assert results["tasks"]["text"]["metric"] == "bits_per_byte"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    before = stamps(run, "texts-only")
    assert workbench("eval", run.name, "--suite", "./texts-only.yaml").status == 0
    assert stamps(run, "texts-only") == before  # the same items are not scored again
    compared = workbench("compare", base.name, run.name, "--suite", "texts-only")
    assert compared.status == 0, compared.output
    assert "text  bits per byte, lower is better" in compared.output

    write_suite(tmp_path, tasks=TASKS[:1], name="texts-only", texts=with_row(TEXTS, text="the dog ran\n"))
    assert workbench("eval", run.name, "--suite", "./texts-only.yaml").status == 0
    assert stamps(run, "texts-only")["results.json"] != before["results.json"]  # changed items are


def test_a_suite_that_is_not_there_is_said_so(workbench: Train, recipe: Path, tmp_path: Path) -> None:
    outcome = workbench("train", recipe.name, "--set", "evaluation.suite=mixd")
    assert outcome.status == 2
    assert "no suite is called 'mixd'" in outcome.output
    assert not (tmp_path / "runs").exists()


def test_a_run_whose_items_all_end_in_an_error_is_not_finished(workbench: Train, recipe: Path, tmp_path: Path) -> None:
    """Every time it is asked, not only the first."""
    long = [{**row, "prompt": "the cat sat on the mat and " * 300} for row in ROWS]
    write_suite(tmp_path, tasks=[{**TASKS[2], "fewshot": 0}], rows=long)
    words = ["--set", "method=none", "--set", "name=asked"]
    for _ in range(2):
        outcome = workbench("train", recipe.name, *words)
        assert outcome.status == 2, outcome.output
        assert "every item of the suite ended in an error" in outcome.output
    run = one(tmp_path, "asked-*")
    rows = [json.loads(line) for line in (run / "eval" / "mixed" / "items.jsonl").read_text().splitlines()]
    assert {row["state"] for row in rows} == {"error"}
    assert not (run / "status.json").exists()
