"""data.shuffle_labels: the same answers on other rows, the same for every seed and order, and none left in place."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows
from test_prepare import Prepare, cache, prepared  # noqa: F401 (fixtures)

from workbench.catalog.cards import Card
from workbench.data import formats, splits
from workbench.data.formats import BadRow, Example
from workbench.data.shuffling import shuffled
from workbench.errors import DataError

Given = list[tuple[str, str]]


def pairs(count: int = 60, answers: int = 60) -> list[dict[str, Any]]:
    return [{"prompt": f"question {at}", "completion": f"answer {at % answers}"} for at in range(count)]


def reader(
    folder: Path, rows: Sequence[dict[str, Any]], form: str = "prompt_completion"
) -> Callable[[], Iterator[Any]]:
    path = write_rows(folder / "rows.jsonl", list(rows))
    card = Card(format=form, splits={"train": {"files": "rows.jsonl"}})  # type: ignore[arg-type]
    return lambda: formats.examples([path], card, "train")


def dealt(
    folder: Path, rows: Sequence[dict[str, Any]], fraction: float = 1.0, form: str = "prompt_completion"
) -> Given:
    """(what is asked, the answer it got) in file order."""
    made = [row for row in shuffled(reader(folder, rows, form), fraction) if isinstance(row, Example)]
    return [(row.prompt_text().strip(), row.messages[-1].content) for row in made]


def given(rows: Sequence[dict[str, Any]]) -> Given:
    return [(row["prompt"], row["completion"]) for row in rows]


def test_every_row_gets_another_rows_answer_and_no_answer_is_lost(tmp_path: Path) -> None:
    before, after = given(pairs()), dealt(tmp_path, pairs())
    assert [question for question, _ in after] == [question for question, _ in before]
    assert Counter(answer for _, answer in after) == Counter(answer for _, answer in before)
    assert not set(before) & set(after)


def test_neighbours_in_the_file_do_not_stay_neighbours(tmp_path: Path) -> None:
    """A shift by one would let a model learn the order instead."""
    moved = [int(answer.split()[1]) - at for at, (_, answer) in enumerate(dealt(tmp_path, pairs()))]
    assert max(Counter(moved).values()) <= 6


def test_the_deal_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    mixed = pairs()
    random.Random(3).shuffle(mixed)
    assert mixed != pairs()
    assert set(dealt(tmp_path, mixed)) == set(dealt(tmp_path, pairs()))


def test_rows_that_stand_several_times_do_not_keep_their_answer(tmp_path: Path) -> None:
    """Equal rows have one hash: side by side in the circle they would hand each other the right answer."""
    after = dealt(tmp_path, pairs(30) * 4)
    kept = sum(question.split()[1] == answer.split()[1] for question, answer in after)
    assert kept <= 12  # by chance 3 of 117 places are a row's own: about 3 of 120


def test_few_different_answers_agree_as_often_as_chance_has_it(tmp_path: Path) -> None:
    rows = pairs(400, answers=4)
    kept = sum(before == after for before, after in zip(given(rows), dealt(tmp_path, rows), strict=True))
    assert 60 <= kept <= 140  # a quarter of 400, four standard deviations either way; avoiding them would teach


def test_only_rows_that_are_used_take_part(tmp_path: Path) -> None:
    rows = pairs(200)
    used = [row for row in rows if splits.in_fraction(formats.content_key(row), 0.3)]
    assert 30 < len(used) < 90
    after = dict(dealt(tmp_path, rows, 0.3))
    answers = Counter(after[row["prompt"]] for row in used)
    assert answers == Counter(row["completion"] for row in used)


def test_only_the_last_answer_of_a_conversation_is_dealt(tmp_path: Path) -> None:
    talks = [
        {
            "messages": [
                {"role": "user", "content": f"first {at}"},
                {"role": "assistant", "content": f"one {at}"},
                {"role": "user", "content": f"then {at}"},
                {"role": "assistant", "content": f"two {at}"},
            ]
        }
        for at in range(12)
    ]
    made = [row for row in shuffled(reader(tmp_path, talks, "messages"), 1.0) if isinstance(row, Example)]
    for at, row in enumerate(made):
        before = [turn["content"] for turn in talks[at]["messages"]]
        assert [message.content.strip() for message in row.messages[:3]] == before[:3]
        assert row.messages[3].role == "assistant"
        assert row.messages[3].content != before[3]
    assert {row.messages[3].content for row in made} == {f"two {at}" for at in range(12)}


def test_bad_rows_pass_through_and_take_no_part(tmp_path: Path) -> None:
    rows = [*pairs(10), {"prompt": "no answer"}]
    made = list(shuffled(reader(tmp_path, rows), 1.0))
    assert [type(row) for row in made] == [Example] * 10 + [BadRow]


@pytest.mark.parametrize("rows", [pairs(1), pairs(5, answers=1)], ids=["one row", "one answer"])
def test_a_deal_that_changes_nothing_is_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match=r"data\.shuffle_labels: leaves every answer where it is"):
        dealt(tmp_path, rows)


# --- through a recipe ------------------------------------------------------------------------------------------------


def labels(made: Any) -> list[tuple[int, ...]]:
    return [tuple(label for label in row["labels"] if label >= 0) for row in made.rows]


def prompts(made: Any) -> list[tuple[int, ...]]:
    return [
        tuple(i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label < 0) for row in made.rows
    ]


def test_tokenised_rows_are_the_dealt_ones(prepared: Prepare) -> None:  # noqa: F811
    rows = [{"prompt": f"where is cat {at}?", "completion": f" on mat {at}"} for at in range(20)]
    plain, other, again = prepared(rows), prepared(rows, shuffle_labels=True), prepared(rows, shuffle_labels=True)
    assert prompts(plain) == prompts(other)
    assert Counter(labels(plain)) == Counter(labels(other))
    assert not [at for at, (one, two) in enumerate(zip(labels(plain), labels(other), strict=True)) if one == two]
    assert plain.account["counted_tokens"] == other.account["counted_tokens"]
    assert plain.account["fingerprint"] != other.account["fingerprint"] == again.account["fingerprint"]
