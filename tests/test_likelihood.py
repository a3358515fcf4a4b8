"""Log-probabilities of continuations: right one at a time, and unmoved by how they are batched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import write_rows

from workbench.bases import Loading, context_length, load_model, load_tokenizer
from workbench.data.rendering import Renderer
from workbench.evaluation import items as suite_items
from workbench.evaluation.evaluate import Evaluation, evaluate
from workbench.evaluation.likelihood import Pair, continuation_logprobs
from workbench.evaluation.scoring import Scorer
from workbench.progress import Progress
from workbench.recipe import resolve

BASES = ("stories260K", "qwen3_moe")
PAIRS: list[Pair] = [
    ([1], [40, 41, 42]),
    ([1, 7, 9, 200, 33], [5]),
    ([3, 3, 3, 3], [3, 3, 3, 3, 3, 3, 3, 3, 3]),
    ([1, 300], [310, 311]),
    ([9] * 30, [8, 7, 6]),
    ([9] * 30, [8, 7]),
    ([2, 4, 6], [8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]),
]


@pytest.fixture(scope="module", params=BASES)
def directory(request: pytest.FixtureRequest, stories: Path, family_base: Callable[[str], Path]) -> Path:
    return stories if request.param == "stories260K" else family_base(request.param)


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    return load_model(Loading(directory=directory))


def alone(model: Any, pair: Pair) -> tuple[float, bool]:
    """One sequence through plain transformers: no padding, no mask, every position read from the whole logits."""
    context, continuation = pair
    ids = torch.tensor([[*context, *continuation]])
    with torch.no_grad():
        logprobs = model(ids).logits[0].double().log_softmax(-1)
    total, greedy = 0.0, True
    for at, token in enumerate(continuation):
        row = logprobs[len(context) - 1 + at]
        total += float(row[token])
        greedy = greedy and int(row.argmax()) == token
    return total, greedy


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_continuations_score_as_plain_transformers_scores_them_one_at_a_time(model: Any, batch_size: int) -> None:
    found = continuation_logprobs(model, PAIRS, batch_size, 0, Progress(), "pairs")
    for pair, score in zip(PAIRS, found, strict=True):
        total, greedy = alone(model, pair)
        assert score.total == pytest.approx(total, rel=1e-5)
        assert score.greedy == greedy


def test_the_token_that_fills_rows_up_does_not_matter(model: Any) -> None:
    zero = continuation_logprobs(model, PAIRS, 4, 0, Progress(), "pairs")
    other = continuation_logprobs(model, PAIRS, 4, 211, Progress(), "pairs")
    assert [score.total for score in zero] == pytest.approx([score.total for score in other], rel=1e-6)


def test_the_likeliest_continuation_is_called_greedy(model: Any) -> None:
    ids = [1, 7, 9]
    with torch.no_grad():
        made = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False, eos_token_id=None)[0].tolist()
    likeliest, other = made[3:], [*made[3:-1], (made[-1] + 1) % 400]
    scores = continuation_logprobs(model, [(ids, likeliest), (ids, other)], 2, 0, Progress(), "pairs")
    assert [score.greedy for score in scores] == [True, False]
    assert scores[0].total > scores[1].total


def test_no_pairs_give_no_scores(model: Any) -> None:
    assert continuation_logprobs(model, [], 4, 0, Progress(), "pairs") == []


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One task of each kind, over items of unequal length."""
    folder = tmp_path_factory.mktemp("suite")
    people = ["Lily", "Tom", "Ben", "Sue", "Max", "Anna", "Tim", "Mia"]
    things = ["ball", "dog", "red kite", "cake", "big box", "hat", "tree", "small blue car"]
    write_rows(
        folder / "text.jsonl",
        [{"text": f"Once there was a child. {name} had a {thing}.\n" * (at + 1)}
         for at, (name, thing) in enumerate(zip(people, things, strict=True))],
    )  # fmt: skip
    write_rows(
        folder / "asked.jsonl",
        [{"prompt": f"{'One day, ' * (at % 4)}{name} went out. {name} had a", "completion": f" {thing}"}
         for at, (name, thing) in enumerate(zip(people, things, strict=True))],
    )  # fmt: skip
    cards = {
        "text": {"format": "text", "splits": {"test": {"files": "text.jsonl"}}},
        "asked": {"format": "prompt_completion", "splits": {"test": {"files": "asked.jsonl"}}},
    }
    for name, card in cards.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(card))
    tasks = [
        {"name": "heldout", "id": "text", "data": "./text.yaml"},
        {"name": "choice", "id": "thing", "data": "./asked.yaml", "template": "plain"},
        {"name": "generate", "id": "words", "data": "./asked.yaml", "template": "plain", "max_new_tokens": 5},
    ]
    path = folder / "mixed.yaml"
    path.write_text(yaml.safe_dump({"tasks": tasks}))
    return path


def scored(directory: Path, model: Any, suite_file: Path, batch_size: int) -> Evaluation:
    suite = resolve.find_suite(str(suite_file), suite_file.parent, "--suite")
    renderer = Renderer(load_tokenizer(Loading(directory=directory)), None)
    scorer = Scorer(model, renderer, context_length(model.config), 0, batch_size, Progress())
    loaded = suite_items.load(suite)
    return evaluate(suite, loaded, {one.task.id: scorer for one in loaded}, {})


def test_batch_size_moves_no_metric(directory: Path, model: Any, suite_file: Path) -> None:
    one = scored(directory, model, suite_file, 1)
    assert {row["task"] for row in one.rows} == {"text", "thing", "words"}
    for batch_size in (3, 16):
        other = scored(directory, model, suite_file, batch_size)
        for row, again in zip(one.rows, other.rows, strict=True):
            assert again.keys() == row.keys()
            for name, value in row.items():
                expected = pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value
                assert again[name] == expected, (batch_size, row["task"], row["id"], name)
        for task, facts in one.results["tasks"].items():
            found = other.results["tasks"][task]
            assert found["value"] == pytest.approx(facts["value"], rel=1e-4), (batch_size, task)
            for name in ("low", "high"):  # order statistics of a bootstrap: noise in the last bits may pick another one
                assert found[name] == pytest.approx(facts[name], rel=1e-3), (batch_size, task, name)
        assert other.results["fingerprint"] == one.results["fingerprint"]
