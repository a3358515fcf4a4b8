"""Greedy answers: what is extracted, which state an item ends in, and that batching and padding change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Outcome, write_rows

from workbench.bases import Loading, chat_template, context_length, load_model, load_tokenizer
from workbench.catalog.suites import Generate
from workbench.data.formats import Message
from workbench.data.rendering import Renderer
from workbench.errors import EvaluationError
from workbench.evaluation import items as suite_items
from workbench.evaluation import scoring
from workbench.evaluation.items import Item
from workbench.evaluation.scoring import Scorer, extract
from workbench.progress import Progress
from workbench.recipe import resolve


@pytest.fixture(scope="module")
def tiny(stories: Path) -> tuple[Any, Any]:
    """The real model that tells stories, and its tokenizer."""
    loading = Loading(directory=stories)
    return load_model(loading), load_tokenizer(loading)


def scorer(tiny: tuple[Any, Any], batch_size: int = 4, context: int | None = None) -> Scorer:
    model, tokenizer = tiny
    return Scorer(
        model, Renderer(tokenizer, None), context or context_length(model.config), 0, batch_size, Progress()
    )  # fmt: skip


def asked(prompt: str, expected: str = "x", name: str = "a") -> Item:
    return Item(id=name, cluster=name, messages=(Message("user", prompt),), question=prompt, expected=expected)


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        (None, "  Paris \n", "Paris"),
        (None, "", ""),
        (r"####\s*(-?[\d.,]*\d)", "so 7\n#### 18", "18"),
        (r"####\s*(-?[\d.,]*\d)", "#### 3\nno, #### 1,200.", "1,200"),  # the last match
        (r"\d+", "12 apples and 34 pears", "34"),  # no group: the whole match
        (r"(\d+) (\w+)", "12 apples", "12"),  # the first group
        (r"answer:( \w+ )", "answer: yes indeed", "yes"),  # stripped
        (r"\d+", "none", None),
        ("json:answer", 'sure: {"answer": 42, "why": "six times seven"} ok', "42"),
        ("json:answer", '{"answer": " yes "}', "yes"),
        ("json:answer", '{"other": 1}', None),
        ("json:answer", '{"answer": 1', None),
        ("json:answer", '["answer"]', None),
        ("json:answer", "no json at all", None),
    ],
)
def test_extraction(rule: str | None, text: str, found: str | None) -> None:
    assert extract(rule, text) == found


def test_an_optional_group_that_took_no_part_is_no_answer() -> None:
    assert extract(r"yes|no (\d+)", "yes") is None


@pytest.mark.parametrize("field", ["extract", "refusal"])
def test_a_pattern_that_is_no_regex_is_refused_before_anything_is_asked(tmp_path: Path, field: str) -> None:
    with pytest.raises(EvaluationError, match=f"task sums {field}.*is no regex"):
        loaded_items(card_and_suite(tmp_path, **{field: "#### ("}))


def states(tiny: tuple[Any, Any], items: list[Item], **task: Any) -> list[tuple[str, float]]:
    rows = scoring.generate(Generate(id="g", data="d", **task), items, scorer(tiny))
    return [(row["state"], row["value"]) for row in rows]


PROMPT = "Once upon a time, there was a little girl named"
"""Goes on: ` Lily. She loved to play outside in the park. ...`"""


def test_the_five_states_are_kept_apart(tiny: tuple[Any, Any]) -> None:
    right, wrong = asked(PROMPT, "Lily"), asked(PROMPT, "Tom")
    stop = {"stop": ["."], "max_new_tokens": 12}
    assert states(tiny, [right, wrong], **stop) == [("ok", 1.0), ("ok", 0.0)]
    assert states(tiny, [right], max_new_tokens=12) == [("truncated", 0.0)]  # never ended
    assert states(tiny, [asked(PROMPT, "7")], extract=r"\d+", **stop) == [("unparseable", 0.0)]
    assert states(tiny, [right], refusal=r"^ ?Lily", **stop) == [("refused", 1.0)]
    long = asked("the cat sat. " * 200)
    assert states(tiny, [right, long], **stop) == [("ok", 1.0), ("error", 0.0)]


def test_an_answer_that_is_right_before_it_is_cut_off_counts_and_says_so(tiny: tuple[Any, Any]) -> None:
    assert states(tiny, [asked(PROMPT, "Lily")], extract=r"^\s*(\w+)", max_new_tokens=12) == [("truncated", 1.0)]


def test_a_prompt_too_long_is_an_error_row_that_says_why(tiny: tuple[Any, Any]) -> None:
    task = Generate(id="g", data="d", max_new_tokens=8)
    ids = Renderer(tiny[1], None).prompt(asked(PROMPT).messages)
    fits = scoring.generate(task, [asked(PROMPT)], scorer(tiny, context=len(ids) + 8))[0]
    short = scoring.generate(task, [asked(PROMPT)], scorer(tiny, context=len(ids) + 7))[0]
    assert fits["state"] == "truncated"
    assert short["state"] == "error"
    assert short["reason"] == "the prompt is too long"
    assert short["answer"] is None
    assert fits["question"] == short["question"] == PROMPT


def test_an_expected_answer_that_the_rule_does_not_find_is_refused(tiny: tuple[Any, Any]) -> None:
    with pytest.raises(EvaluationError, match="extract finds nothing in the expected answer 'Lily'"):
        states(tiny, [asked(PROMPT, "Lily")], extract=r"\d+")


def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(tiny: tuple[Any, Any]) -> None:
    prompt = [Renderer(tiny[1], None).prompt(asked(PROMPT).messages)]
    (whole, _), (cut, ended) = (scoring.greedy(scorer(tiny), prompt, 30, stop)[0] for stop in ((), ("park",)))
    assert "outside in the park" in whole
    assert cut == whole[: whole.index("park")]
    assert ended
    earliest, _ = scoring.greedy(scorer(tiny), prompt, 30, ("park", "She"))[0]
    assert earliest == whole[: whole.index("She")]


def test_the_end_of_text_ends_an_answer(tiny: tuple[Any, Any]) -> None:
    """A model made to say one token for ever: with that token as its end, the answer is empty and whole."""
    from transformers import AutoModelForCausalLM

    model, tokenizer = tiny
    stuck = AutoModelForCausalLM.from_config(model.config).eval()
    with torch.no_grad():
        stuck.lm_head.weight = torch.nn.Parameter(torch.zeros_like(stuck.lm_head.weight))
        stuck.lm_head.weight[tokenizer.eos_token_id] = 0.0  # all logits equal: argmax is the first token, <unk>
    renderer = Renderer(tokenizer, None)
    chosen = Scorer(stuck, renderer, 512, 0, 4, Progress())
    assert scoring.greedy(chosen, [[1, 5]], 6)[0][1] is False
    renderer.end_ids = frozenset({0})
    assert scoring.greedy(chosen, [[1, 5], [1, 5, 9, 9]], 6) == [("", True), ("", True)]


PROMPTS = [
    "Tom", "One day, a dog", "Once upon a time, there was a little girl named", "The sun", "Ben liked",
    "Lily and her mom went to the", "A big bird sat on a",
    "It was a cold day and the small cat did not want to go out. So it",
]  # fmt: skip


def test_padding_on_the_left_does_not_change_a_greedy_text(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    prompts = [Renderer(tokenizer, None).prompt([Message("user", text)]) for text in PROMPTS]
    alone = []
    for prompt in prompts:  # plain transformers: one row, no padding
        made = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
        alone.append(tokenizer.decode(made, skip_special_tokens=True))
    assert len(set(alone)) == len(PROMPTS)
    assert [text for text, _ in scoring.greedy(scorer(tiny), prompts, 24)] == alone


@pytest.mark.parametrize("batch_size", [3, 16])
def test_batch_size_does_not_change_a_greedy_answer(tiny: tuple[Any, Any], batch_size: int) -> None:
    items = [asked(text, name=str(at)) for at, text in enumerate(PROMPTS)]
    task = Generate(id="g", data="d", max_new_tokens=20, stop=["."])
    one = scoring.generate(task, items, scorer(tiny, 1))
    assert {row["state"] for row in one} >= {"ok"}
    assert scoring.generate(task, items, scorer(tiny, batch_size)) == one
    assert [row["id"] for row in one] == [item.id for item in items]


def card_and_suite(folder: Path, **task: Any) -> Path:
    """Four questions to solve beforehand and two to ask."""
    write_rows(folder / "train.jsonl", [{"prompt": f"{n} + 1 =\n", "completion": f"{n + 1}"} for n in range(4)])
    write_rows(folder / "test.jsonl", [{"prompt": f"{n} + 1 =\n", "completion": f"{n + 1}"} for n in (2, 9)])
    splits = {name: {"files": f"{name}.jsonl"} for name in ("train", "test")}
    (folder / "sums.yaml").write_text(yaml.safe_dump({"format": "prompt_completion", "splits": splits}))
    tasks = [{"name": "generate", "id": "sums", "data": "./sums.yaml", "max_new_tokens": 4, **task}]
    path = folder / "sums-suite.yaml"
    path.write_text(yaml.safe_dump({"tasks": tasks}))
    return path


def loaded_items(path: Path) -> tuple[Item, ...]:
    return suite_items.load(resolve.find_suite(str(path), path.parent, "--suite"))[0].items


def test_few_shot_in_plain_is_running_text(tmp_path: Path, small_tokenizer: Any) -> None:
    two, nine = loaded_items(card_and_suite(tmp_path, fewshot=3))
    renderer = Renderer(small_tokenizer, None)
    prompt = renderer.prompt(renderer.with_shots(nine.shots, nine.messages))
    text = small_tokenizer.decode(prompt)
    solved = [line for line in text.split("\n\n") if line]
    assert len(solved) == 4
    assert solved[-1] == "9 + 1 =\n"
    assert set(solved[:3]) < {f"{n} + 1 =\n{n + 1}" for n in range(4)}
    assert small_tokenizer.eos_token_id not in prompt  # an end of text between examples would end the thread
    assert all("2 + 1" not in shot.content for shot in two.shots)  # the question itself is never a solved example
    assert len(two.shots) == 6


def test_few_shot_in_a_chat_is_turns_of_their_own(tmp_path: Path, small_tokenizer: Any) -> None:
    _, nine = loaded_items(card_and_suite(tmp_path, fewshot=2))
    renderer = Renderer(small_tokenizer, chat_template(small_tokenizer, "base"), system="Add.")
    text = small_tokenizer.decode(renderer.prompt(renderer.with_shots(nine.shots, nine.messages)))
    assert text.startswith("<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_start|>user\n9 + 1 =<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>user") == 3
    assert text.count("<|im_start|>assistant") == 3
    for shot in (0, 2):
        question, answer = (message.content.strip() for message in nine.shots[shot : shot + 2])
        assert f"user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>" in text


def test_every_item_has_the_same_solved_examples_but_for_its_own_question(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"prompt": f"{n} + 1 =\n", "completion": f"{n + 1}"} for n in range(4)])
    path = card_and_suite(tmp_path, fewshot=2, split="train")
    shots = {item.messages[0].content: item.shots for item in loaded_items(path)}
    usual = max(shots.values(), key=list(shots.values()).count)
    solved = {message.content for message in usual if message.role == "user"}
    for question, own in shots.items():
        assert question not in {message.content for message in own}
        assert (own == usual) == (question not in solved)


def test_more_solved_examples_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="the split train has 3 examples beside") as refused:
        loaded_items(card_and_suite(tmp_path, fewshot=4))
    assert "fewshot" in str(refused.value)


def test_rows_appended_to_the_asked_split_do_not_move_the_solved_examples(tmp_path: Path) -> None:
    path = card_and_suite(tmp_path, fewshot=2)
    before = loaded_items(path)
    with (tmp_path / "test.jsonl").open("a") as stream:
        stream.writelines(f'{{"prompt": "{n} + 1 =\\n", "completion": "{n + 1}"}}\n' for n in range(20, 40))
    after = loaded_items(path)
    assert after[:2] == before
    assert len(after) == 22


@pytest.fixture
def trained(workbench: Callable[..., Outcome], tmp_path: Path, small_base: Path) -> str:
    """A run that learnt to answer two questions by heart."""
    rows = [
        {"prompt": "the cat sat on the", "completion": " mat"},
        {"prompt": "the dog ran to the", "completion": " park"},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    card = {"format": "prompt_completion", "splits": {"train": {"files": "rows.jsonl"}}}
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(card))
    recipe = {
        "base": str(small_base), "method": {"name": "lora", "rank": 8},
        "data": {"name": "./rows.yaml", "template": "plain"},
        "training": {"steps": 30, "batch_size": 2, "learning_rate": 0.02, "precision": "fp32"}, "target": "cpu",
    }  # fmt: skip
    (tmp_path / "parrot.yaml").write_text(yaml.safe_dump(recipe))
    outcome = workbench("train", "parrot.yaml")
    assert outcome.status == 0, outcome.output
    return next((tmp_path / "runs").glob("parrot-*")).name


def columns(output: str) -> list[list[str]]:
    """The cells of the printed table, row by row."""
    lines = [line for line in output.splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]


def test_generate_prints_base_and_adapter_side_by_side(
    workbench: Callable[..., Outcome], trained: str, small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = workbench("generate", trained, "the cat sat on the", "--tokens", "6")
    assert outcome.status == 0, outcome.output
    heading, row = columns(outcome.output)[:2]
    assert heading == ["prompt", "base", trained]
    assert row[0] == "the cat sat on the"
    assert row[2] == "mat"
    assert row[1] != row[2]

    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("the cat sat on the\n\nthe dog ran to the\n"))
    outcome = workbench("generate", trained, "--tokens", "6")
    assert [row[2] for row in columns(outcome.output)[1:] if row[0].startswith("the ")] == ["mat", "park"]

    long = workbench("generate", trained, "the cat " * 400)
    assert long.status == 2, long.output
    assert "tokens long" in long.output
    assert "Traceback" not in long.output
