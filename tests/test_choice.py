"""Choosing among options: our log-probabilities against lm-evaluation-harness, and its tasks inside our suites."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome, write_rows

from workbench.bases import Loading, context_length, load_model, load_tokenizer
from workbench.catalog.suites import Choice, Heldout, LmEval
from workbench.data.formats import Message
from workbench.data.rendering import Renderer
from workbench.errors import EvaluationError
from workbench.evaluation import harness, scoring
from workbench.evaluation import items as suite_items
from workbench.evaluation.items import Item
from workbench.evaluation.likelihood import continuation_logprobs
from workbench.evaluation.scoring import Scorer
from workbench.progress import Progress
from workbench.recipe import resolve

OPTIONS = (" ball", " dog", " red kite", " big, big tree")
PROMPTS = ("Lily had a", "Tom and Ben went to see the", "In the park there was a", "One day, Sue found a")


@pytest.fixture(scope="module", params=["stories260K", "small"])
def base(request: pytest.FixtureRequest, stories: Path, small_base: Path) -> Path:
    return stories if request.param == "stories260K" else small_base


def scorer(directory: Path, batch_size: int = 8, context: int | None = None) -> Scorer:
    loading = Loading(directory=directory)
    model = load_model(loading)
    renderer = Renderer(load_tokenizer(loading), None)
    return Scorer(model, renderer, context or context_length(model.config), 0, batch_size, Progress())


@pytest.fixture(scope="module")
def ready(base: Path) -> Scorer:
    return scorer(base)


@pytest.fixture(scope="module")
def language_model(ready: Scorer) -> Any:
    """The same model in lm-evaluation-harness."""
    models = pytest.importorskip("lm_eval.models.huggingface")
    return models.HFLM(pretrained=ready.model, tokenizer=ready.renderer.tokenizer, batch_size=8, device="cpu")


def items() -> list[Item]:
    return [
        Item(id=str(at), cluster=str(at), messages=(Message("user", text),), expected=OPTIONS[at], options=OPTIONS)
        for at, text in enumerate(PROMPTS)
    ]


def pairs(ready: Scorer) -> list[tuple[list[int], list[int]]]:
    """The ids that the choice task asks with."""
    found = []
    for item in items():
        prompt = ready.renderer.prompt(item.messages)
        found += [(prompt, ready.renderer.answer_ids(item.messages, option, prompt)) for option in item.options]
    return found


def test_option_logprobs_are_those_of_lm_eval_given_the_same_ids(ready: Scorer, language_model: Any) -> None:
    asked = pairs(ready)
    requests = [((f"context {at}", "option"), list(one), list(two)) for at, (one, two) in enumerate(asked)]
    theirs = language_model._loglikelihood_tokens(requests, disable_tqdm=True)
    ours = continuation_logprobs(ready.model, asked, ready.batch_size, 0, Progress(), "options")
    assert len(ours) == len(PROMPTS) * len(OPTIONS)
    for one, (total, greedy) in zip(ours, theirs, strict=True):
        assert one.total == pytest.approx(total, rel=1e-5)
        assert one.greedy == greedy


def test_one_case_at_string_level_agrees_with_lm_eval(ready: Scorer, language_model: Any) -> None:
    """No space at the prompt's end (it would move one into the option); both put the tokenizer's BOS first."""
    from lm_eval.api.instance import Instance

    prompt, option = "Once upon a time, there was a little", " girl"
    request = Instance(request_type="loglikelihood", doc={}, arguments=(prompt, option), idx=0)
    total, _ = language_model.loglikelihood([request], disable_tqdm=True)[0]
    message = (Message("user", prompt),)
    context = ready.renderer.prompt(message)
    pair = (context, ready.renderer.answer_ids(message, option, context))
    assert language_model._encode_pair(prompt, option) == (list(pair[0]), list(pair[1]))
    ours = continuation_logprobs(ready.model, [pair], 1, 0, Progress(), "option")[0]
    assert ours.total == pytest.approx(total, rel=1e-5)


def test_the_rows_are_worked_out_from_the_logprobs(ready: Scorer) -> None:
    totals = [score.total for score in continuation_logprobs(ready.model, pairs(ready), 8, 0, Progress(), "options")]
    for primary in ("accuracy", "accuracy_per_byte", "answer_bits_per_byte"):
        rows = scoring.choice(Choice(id="c", data="d", primary=primary), items(), ready)
        for at, row in enumerate(rows):
            own = totals[at * len(OPTIONS) : (at + 1) * len(OPTIONS)]
            rates = [total / len(option.encode()) for total, option in zip(own, OPTIONS, strict=True)]
            assert row["accuracy"] == float(own.index(max(own)) == at)
            assert row["accuracy_per_byte"] == float(rates.index(max(rates)) == at)
            assert row["answer_bits_per_byte"] == pytest.approx(-rates[at] / math.log(2))
            assert row["margin"] == pytest.approx(own[at] - max(own[:at] + own[at + 1 :]))
            assert row["answer"] == OPTIONS[own.index(max(own))]
            assert row["value"] == row[primary]


def test_dividing_by_bytes_changes_the_answer_where_options_differ_in_length(stories: Path) -> None:
    """The metric is not always the same as plain accuracy: the short option wins by its sum, not by its rate."""
    ready = scorer(stories)
    story = " little girl named Lily. She loved to play outside in the park"
    item = Item(
        id="a", cluster="a", messages=(Message("user", "Once upon a time, there was a"),),
        expected=story, options=(" boy", story),
    )  # fmt: skip
    row = scoring.choice(Choice(id="c", data="d"), [item], ready)[0]
    assert (row["accuracy"], row["accuracy_per_byte"]) == (0.0, 1.0)


def test_an_item_longer_than_the_context_is_refused(stories: Path) -> None:
    with pytest.raises(EvaluationError, match="tokens long, the base takes 8"):
        scoring.choice(Choice(id="c", data="d"), items(), scorer(stories, context=8))


QUESTIONS = [
    {"prompt": "Lily had a", "completion": " ball"}, {"prompt": "Tom saw a", "completion": " dog"},
    {"prompt": "Mom made a", "completion": " cake"}, {"prompt": "Once upon a", "completion": " time"},
    {"prompt": "She loved to play outside in the", "completion": " park"},
    {"prompt": "They lived happily ever", "completion": " after"}, {"prompt": "The bird can", "completion": " fly"},
    {"prompt": "Ben was very", "completion": " happy"}, {"prompt": "The sun was", "completion": " shining"},
    {"prompt": "He said", "completion": " sorry"},
]  # fmt: skip
WORDS = sorted({row["completion"] for row in QUESTIONS})


def lm_eval_task(**more: Any) -> dict[str, Any]:
    return {
        "task": "endings", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{words.index(completion.strip())}}", "doc_to_choice": "{{words}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}], **more,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, stories: Path) -> Path:
    """A suite of our own choice task and of the same questions as a local lm-eval task, and a recipe that asks it."""
    pytest.importorskip("lm_eval")
    place = tmp_path / "suites"
    words = [word.strip() for word in WORDS]
    write_rows(place / "rows.jsonl", [{**row, "words": words, "options": WORDS} for row in QUESTIONS])
    card = {
        "format": "prompt_completion",
        "splits": {"test": {"files": "rows.jsonl"}, "train": {"files": "rows.jsonl"}},
    }
    (place / "endings-card.yaml").write_text(yaml.safe_dump(card))
    (place / "task.yaml").write_text(yaml.safe_dump(lm_eval_task()))
    tasks = [
        {"name": "choice", "id": "ours", "data": "./endings-card.yaml", "template": "plain", "options": "options"},
        {"name": "lm_eval", "id": "theirs", "task": "task.yaml"},
    ]
    (place / "endings.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    recipe = {
        "base": str(stories), "method": "none", "data": {"name": "./suites/endings-card.yaml", "template": "plain"},
        "evaluation": {"suite": "./suites/endings.yaml"}, "target": "cpu", "training": {"precision": "fp32"},
    }  # fmt: skip
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def test_a_local_lm_eval_task_runs_from_a_suite_and_agrees_with_our_own(
    workbench: Callable[..., Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval

    asked: list[dict[str, Any]] = []
    evaluate = lm_eval.simple_evaluate
    monkeypatch.setattr(lm_eval, "simple_evaluate", lambda **words: (asked.append(words), evaluate(**words))[1])
    outcome = workbench("train", "asked.yaml")
    assert outcome.status == 0, outcome.output
    place = next((folder / "runs").glob("asked-*")) / "eval" / "endings"
    rows = [json.loads(line) for line in (place / "items.jsonl").read_text().splitlines()]
    by_task = {name: [row for row in rows if row["task"] == name] for name in ("ours", "theirs")}
    assert len(by_task["ours"]) == len(by_task["theirs"]) == len(QUESTIONS)
    assert [row["value"] for row in by_task["ours"]] == [row["value"] for row in by_task["theirs"]]
    assert {"id", "cluster", "value", "weight", "state"} <= by_task["theirs"][0].keys()
    for name in by_task:  # a report can show what was asked
        assert [row["question"] for row in by_task[name]] == [row["prompt"] for row in QUESTIONS]
    results = json.loads((place / "results.json").read_text())
    ours, theirs = results["tasks"]["ours"], results["tasks"]["theirs"]
    assert 0.0 < theirs["value"] < 1.0
    assert theirs["value"] == ours["value"]
    assert (theirs["items"], theirs["clusters"]) == (ours["items"], ours["clusters"])
    assert theirs["metric"] == "acc"
    assert results["fingerprint"] != results["items_fingerprint"]  # covers the documents that lm-eval read
    # its cache is not keyed by the model: it is never used
    assert len(asked) == 1
    assert not asked[0].get("use_cache")
    assert not asked[0].get("cache_requests")


def run_task(folder: Path, ready: Scorer, config: dict[str, Any], **task: Any) -> list[dict[str, Any]]:
    (folder / "suites" / "task.yaml").write_text(yaml.safe_dump(config))
    chosen = LmEval(id="t", task="task.yaml", **task)
    return harness.run(chosen, folder / "suites", ready)[0]


def test_documents_that_changed_change_the_fingerprint(folder: Path, stories: Path) -> None:
    ready, task = scorer(stories), LmEval(id="t", task="task.yaml")
    rows, before = harness.run(task, folder / "suites", ready)
    assert harness.run(task, folder / "suites", ready) == (rows, before)
    path = folder / "suites" / "rows.jsonl"
    path.write_text(path.read_text().replace("Lily had a", "Anna had a"))
    assert harness.run(task, folder / "suites", ready)[1] != before


def test_rolling_bits_per_byte_are_our_own(folder: Path, small_base: Path) -> None:
    """With a tokenizer that puts no BOS of its own: lm-eval would score that BOS as a part of the text."""
    ready = scorer(small_base)
    config = lm_eval_task(output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{prompt}}")
    del config["doc_to_choice"]
    config["metric_list"] = [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}]
    rows = run_task(folder, ready, config, primary="bits_per_byte", max_items=4)
    texts = [Item(id=str(at), cluster=str(at), text=row["prompt"]) for at, row in enumerate(QUESTIONS[:4])]
    ours = scoring.heldout(Heldout(id="h", data="d"), texts, ready)
    assert [row["weight"] for row in rows] == [row["weight"] for row in ours]
    for one, other in zip(rows, ours, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-5)
    with pytest.raises(EvaluationError, match="no mean over documents"):
        run_task(folder, ready, config, primary="byte_perplexity")


def test_a_group_keeps_the_documents_of_all_its_tasks(folder: Path, stories: Path) -> None:
    ready = scorer(stories)
    for name in ("one", "two"):
        config = lm_eval_task() | {"task": name}
        (folder / "suites" / f"{name}.yaml").write_text(yaml.safe_dump(config))
    rows = run_task(folder, ready, {"group": "both", "task": ["one", "two"]}, max_items=3)
    assert [row["id"] for row in rows] == ["one:0", "one:1", "one:2", "two:0", "two:1", "two:2"]
    assert len({row["cluster"] for row in rows}) == 6


def test_a_task_with_several_filters_needs_one_named(folder: Path, stories: Path) -> None:
    ready = scorer(stories)
    take = [{"function": "take_first"}]
    config = lm_eval_task(
        output_type="generate_until", doc_to_target="{{completion}}",
        generation_kwargs={"until": ["."], "max_gen_toks": 4},
        filter_list=[
            {"name": "strict", "filter": [{"function": "regex", "regex_pattern": "zzz"}, *take]},
            {"name": "loose", "filter": [{"function": "regex", "regex_pattern": r"( \w+)"}, *take]},
        ],
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )  # fmt: skip
    del config["doc_to_choice"]
    with pytest.raises(EvaluationError, match="several ways: loose, strict"):
        run_task(folder, ready, config, primary="exact_match", max_items=5)
    strict = run_task(folder, ready, config, primary="exact_match,strict", max_items=5)
    loose = run_task(folder, ready, config, primary="exact_match,loose", max_items=5)
    assert len(strict) == len(loose) == 5
    assert sum(row["value"] for row in strict) == 0
    assert [row["output"] for row in loose] != [row["output"] for row in strict]
    with pytest.raises(EvaluationError, match="no filter 'other'"):
        run_task(folder, ready, config, primary="exact_match,other", max_items=5)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"task": "nowhere.yaml"}, "there is no task file"),
        ({"task": "task.yaml", "primary": "accuracy"}, "no metric 'accuracy'"),
    ],
)
def test_a_task_that_is_not_to_be_had_is_said_so(folder: Path, stories: Path, task: dict[str, Any], words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        harness.run(LmEval(id="t", **task), folder / "suites", scorer(stories))


def test_a_task_whose_data_are_missing_is_said_so(folder: Path, stories: Path) -> None:
    (folder / "suites" / "rows.jsonl").unlink()
    with pytest.raises(EvaluationError, match="cannot run it"):
        harness.run(LmEval(id="t", task="task.yaml"), folder / "suites", scorer(stories))


def load_choice(folder: Path, rows: list[dict[str, Any]], **task: Any) -> tuple[Item, ...]:
    write_rows(folder / "rows.jsonl", rows)
    card = {"format": "prompt_completion", "splits": {"test": {"files": "rows.jsonl"}}}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    tasks = [{"name": "choice", "id": "c", "data": "./card.yaml", **task}]
    (folder / "suite.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    suite = resolve.find_suite(str(folder / "suite.yaml"), folder, "--suite")
    return suite_items.load(suite)[0].items


def test_the_options_are_all_answers_of_the_split_also_for_a_subset(tmp_path: Path) -> None:
    found = load_choice(tmp_path, QUESTIONS, max_items=3)
    assert len(found) == 3
    assert all(item.options == tuple(WORDS) for item in found)


def test_an_items_own_options_come_from_its_column(tmp_path: Path) -> None:
    rows = [{**row, "choices": [row["completion"], " moon"]} for row in QUESTIONS]
    found = load_choice(tmp_path, rows, options="choices")
    assert [item.options for item in found] == [(row["completion"], " moon") for row in QUESTIONS]


@pytest.mark.parametrize(
    ("options", "words"),
    [([" moon", " sun"], "its answer ' ball' is not among the options"), ("choices", "are no list of texts")],
)
def test_options_without_the_answer_are_refused(tmp_path: Path, options: Any, words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        load_choice(tmp_path, QUESTIONS, options=options)
