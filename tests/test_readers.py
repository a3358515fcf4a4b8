"""Data files -> raw rows, and raw rows of every format -> examples or reasons."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_rows

import datasets
from workbench.catalog.cards import Card, Source, Split
from workbench.data import formats, readers
from workbench.data.formats import BadRow, Example, Message
from workbench.data.readers import RawRow
from workbench.errors import DataError
from workbench.recipe import pin
from workbench.recipe.resolved import ResolvedCard

ROWS = [{"text": f"row {number}: 你好 😀", "number": number} for number in range(1, 4)]


def card(**fields: Any) -> Card:
    return Card(**{"format": "text", "splits": {"train": Split(files="x")}} | fields)


def read(path: Path, **fields: Any) -> list[RawRow]:
    return list(readers.read(path, card(**fields)))


def texts(path: Path, **fields: Any) -> list[str]:
    return [row.values["text"] for row in read(path, **fields)]


def places(rows: list[RawRow]) -> list[str]:
    return [row.where.rpartition("/")[2] for row in rows]


def one(values: dict[str, Any], tmp_path: Path, **fields: Any) -> Example | BadRow:
    (row,) = formats.examples([write_rows(tmp_path / "rows.jsonl", [values])], card(**fields), "train")
    return row


def refusal(values: dict[str, Any], tmp_path: Path, **fields: Any) -> str:
    row = one(values, tmp_path, **fields)
    assert isinstance(row, BadRow), row
    assert row.where.endswith("rows.jsonl:1")
    return row.reason


def turns(values: dict[str, Any], tmp_path: Path, **fields: Any) -> list[tuple[str, str]]:
    row = one(values, tmp_path, **fields)
    assert isinstance(row, Example), row
    return [(message.role, message.content) for message in row.messages]


# ---- kinds of files


def test_json_lines_skip_blank_lines_but_count_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n   \n" + json.dumps(ROWS[1]), encoding="utf-8")
    rows = read(path)
    assert [row.values for row in rows] == ROWS[:2]
    assert places(rows) == ["rows.jsonl:1", "rows.jsonl:4"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_json_lines_with_a_byte_order_mark_or_windows_line_ends(tmp_path: Path, encoding: str, newline: str) -> None:
    path = tmp_path / "rows.jsonl"
    text = newline.join(json.dumps(row, ensure_ascii=False) for row in ROWS) + newline
    path.write_bytes(text.encode(encoding))
    assert [row.values for row in read(path)] == ROWS


def test_a_bad_json_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": str(number)}) for number in range(1, 10)]
    lines[6] = '{"text": "half'
    path.write_text("\n".join(lines), encoding="utf-8")
    rows = read(path)
    assert [(row.where.rpartition(":")[2], row.problem[:11]) for row in rows if row.problem] == [("7", "is not JSON")]
    assert [row.values["text"] for row in rows if not row.problem] == ["1", "2", "3", "4", "5", "6", "8", "9"]


@pytest.mark.parametrize(("line", "found"), [("[1]", "[1] (list)"), ('"a"', "'a' (text)"), ("null", "nothing")])
def test_a_json_line_that_is_no_object_is_a_bad_row(tmp_path: Path, line: str, found: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line, encoding="utf-8")
    assert [row.problem for row in read(path)] == [f"is {found}, an object with columns is needed"]


def test_json_nested_without_end_is_a_bad_row_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[" * 200_000, encoding="utf-8")
    assert read(path)[0].problem.startswith("is not JSON")


def test_a_json_array(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([*ROWS, 5]), encoding="utf-8-sig")
    rows = read(path)
    assert [row.values for row in rows[:3]] == ROWS
    assert places(rows) == [f"rows.json:{number}" for number in (1, 2, 3, 4)]
    assert "5 (whole number)" in rows[3].problem


@pytest.mark.parametrize(("text", "found"), [('{"text": "a"}', "a list of rows"), ('{"text": "a"}\n{}', ".jsonl")])
def test_json_that_is_no_array_is_refused(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=found):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_with_quoted_commas_and_line_ends(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, lineterminator=line_end)
        writer.writerows([["text", "label"], ['a, "b"\nc', "x"], ["你", ""]])
    rows = read(path)
    assert [row.values for row in rows] == [{"text": 'a, "b"\nc', "label": "x"}, {"text": "你", "label": ""}]
    assert places(rows) == ["rows.csv:1", "rows.csv:2"]


def test_a_csv_row_with_another_number_of_columns_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,b\nc\nd,e,f\ng,h\n", encoding="utf-8")
    assert [(row.where[-1], bool(row.problem)) for row in read(path)] == [
        ("1", False),
        ("2", True),
        ("3", True),
        ("4", False),
    ]


def test_a_csv_with_an_unnamed_index_column_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(",text\n0,a\n1,b\n", encoding="utf-8")  # as pandas writes it
    assert texts(path) == ["a", "b"]


def test_a_csv_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,text\na,b,c\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.csv:1: names the column 'text' twice"):
        read(path)


def test_a_csv_field_may_be_longer_than_pythons_own_limit(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "a" * 200_000 + "\n", encoding="utf-8")
    assert len(texts(path)[0]) == 200_000


def test_parquet_over_several_batches(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "turns": [{"role": "user", "content": "a"}]} for number in range(2_500)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=700)
    found = read(tmp_path / "rows.parquet")
    assert [row.values for row in found] == rows
    assert (places(found)[0], places(found)[-1]) == ("rows.parquet:1", "rows.parquet:2500")


def test_a_directory_written_by_save_to_disk_gives_the_rows_of_each_split(tmp_path: Path) -> None:
    made = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS[:2]), "test": datasets.Dataset.from_list(ROWS[2:])}
    )
    made.save_to_disk(str(tmp_path / "saved"))
    saved = Card(format="text", source=Source(directory="saved"), splits={})
    resolved = ResolvedCard(name="saved", folder=str(tmp_path), card=saved)
    for split, rows in (("train", ROWS[:2]), ("test", ROWS[2:])):
        found = list(formats.examples(pin.split_files(resolved, split), saved, split))
        assert [row.text for row in found if isinstance(row, Example)] == [row["text"] for row in rows]
        assert [row.where.rpartition(":")[2] for row in found] == [str(at) for at in range(1, len(rows) + 1)]


def test_text_as_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\n\r\ntwo 😀".encode())
    assert texts(path) == ["one\r\n\r\ntwo 😀"]


@pytest.mark.parametrize(
    ("text", "separator", "documents"),
    [
        ("one\ntwo\n<|e|>\nthree\n<|e|>\n", "<|e|>", ["one\ntwo\n", "three\n"]),
        ("one<|e|>two<|e|>three", "<|e|>", ["one\n", "two\n", "three\n"]),
        ("one\n<|e|>\n \n<|e|>\ntwo", "<|e|>", ["one\n", "two\n"]),
        ("one\nmore\n\n\ntwo\n", "\n\n", ["one\nmore\n", "two\n"]),
        ("one\r\n---\r\ntwo\r\n", "---", ["one\n", "two\n"]),
        ("no separator here", "<|e|>", ["no separator here\n"]),
    ],
)
def test_text_between_separators(tmp_path: Path, text: str, separator: str, documents: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    assert texts(path, separator=separator) == documents


def test_a_separator_across_the_reading_chunks_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    first = "a" * (readers._CHUNK_CHARACTERS - 3)
    path.write_text(f"{first}<|endoftext|>b", encoding="utf-8")
    assert texts(path, separator="<|endoftext|>") == [first + "\n", "b\n"]


def test_the_real_stories_are_split_at_every_separator(shared: Path) -> None:
    path = shared / "corpora" / "tinystories_train_2MiB.txt"
    whole = path.read_text(encoding="utf-8")
    found = texts(path, separator="<|endoftext|>")
    assert len(found) == sum(bool(part.strip()) for part in whole.split("<|endoftext|>"))
    assert not any("<|endoftext|>" in text for text in found)


def test_text_cut_at_line_ends_loses_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    lines = [f"line {number} 你好\r\n" * (number % 3 + 1) for number in range(60)]
    path.write_bytes("".join(lines).encode())
    found = texts(path, document_bytes=100)
    assert "".join(found).encode() == path.read_bytes()
    assert all(text.endswith("\r\n") for text in found)
    assert all(100 <= len(text.encode()) < 100 + 64 for text in found[:-1])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.txt"])
def test_an_empty_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"{name}: is empty"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_binary_file_is_refused_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 100)
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read(tmp_path / name)


def test_the_place_of_bytes_that_are_no_text_is_named_by_the_row_before(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 2000 + b'{"text": "\xff"}\n' + b'{"text": "b"}\n' * 2000)
    with pytest.raises(DataError) as caught:
        read(path)
    found = caught.value.problems[0].found
    assert 1000 < int(found.rpartition(":")[2]) <= 2000, found


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_file_that_is_none_is_refused_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a table at all" * 10)
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        read(tmp_path / name)


def test_an_unknown_ending_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonlines").write_text("{}")
    with pytest.raises(DataError, match=r"no known kind \(\.jsonlines\)\n.*did you mean '\.jsonl'"):
        read(tmp_path / "rows.jsonlines")
    (tmp_path / "rows").write_text("{}")
    with pytest.raises(DataError, match="no ending"):
        read(tmp_path / "rows")


# ---- formats

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": " Hello "}


def test_messages_keep_answers_exactly_and_end_questions_with_one_line_end(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief.\n\n"}
    assert turns({"messages": [system, USER, ANSWER]}, tmp_path, format="messages") == [
        ("system", "Be brief.\n"),
        ("user", "Hi\n"),
        ("assistant", " Hello "),
    ]


def test_messages_from_another_column(tmp_path: Path) -> None:
    found = turns({"chat": [USER, ANSWER]}, tmp_path, format="messages", columns={"messages": "chat"})
    assert [role for role, _ in found] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        ([USER], "ends with a user turn, an assistant turn is needed"),
        ([USER, ANSWER, {"role": "system", "content": "x"}], "ends with a system turn"),
        ([USER, USER, ANSWER], "has two user turns in a row"),
        ([USER, ANSWER, ANSWER], "has two assistant turns in a row"),
        ([{"role": "asistant", "content": "x"}], "turn 1 has the unknown role 'asistant'; did you mean 'assistant'?"),
        ([USER, {"role": "tool", "content": "x"}], "turn 2 has the unknown role 'tool'; allowed: system, user"),
        ([USER, {"role": ["assistant"], "content": "x"}], "turn 2 has the unknown role"),
        ([USER, {"role": None, "content": "x"}], "turn 2 has the unknown role None"),
        ([USER, {"role": "assistant", "content": "  \n"}], "turn 2 is empty"),
        ([USER, {"role": "assistant", "content": None}], "turn 2 is nothing, text is needed"),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], "text is needed"),
        ([USER, {"role": "assistant"}], "turn 2 has no 'role' and 'content'"),
        ([USER, "Hello"], "turn 2 has no 'role' and 'content'"),
        ([], "a list of turns is needed"),
        ("Hi", "a list of turns is needed"),
        (None, "the conversation is nothing"),
    ],
)
def test_a_conversation_that_cannot_be_used_says_why(tmp_path: Path, conversation: Any, reason: str) -> None:
    assert reason in refusal({"messages": conversation}, tmp_path, format="messages")


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    reason = refusal({"mesages": [USER, ANSWER]}, tmp_path, format="messages")
    assert reason.startswith("has no column 'messages'; did you mean 'mesages'?")


def test_prompt_and_completion_through_patterns(tmp_path: Path) -> None:
    columns = {"prompt": "Question: {question}{hint}\nAnswer:", "completion": " {answer}"}
    row = {"question": "2+2?", "answer": 4, "hint": None}
    found = turns(row, tmp_path, format="prompt_completion", columns=columns)
    assert found == [("user", "Question: 2+2?\nAnswer:"), ("assistant", " 4")]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("Q: {qestion}", "needs a column 'qestion'; did you mean 'question'?"),
        ("Q: {question", "cannot be filled"),
        ("Q: {}", "cannot be filled"),
        ("Q: {question.length}", "cannot be filled"),
        ("Q: {question[key]}", "cannot be filled"),
    ],
)
def test_a_pattern_that_does_not_fit_says_why(tmp_path: Path, pattern: str, reason: str) -> None:
    columns = {"prompt": pattern, "completion": "answer"}
    found = refusal({"question": "a", "answer": "b"}, tmp_path, format="prompt_completion", columns=columns)
    assert reason in found


@pytest.mark.parametrize("row", [{"prompt": " ", "completion": "a"}, {"prompt": "a", "completion": ""}])
def test_an_empty_prompt_or_completion_is_a_bad_row(tmp_path: Path, row: dict[str, str]) -> None:
    assert refusal(row, tmp_path, format="prompt_completion").endswith("is empty")


def test_a_completion_that_is_no_text_is_a_bad_row(tmp_path: Path) -> None:
    reason = refusal({"prompt": "a", "completion": 4}, tmp_path, format="prompt_completion")
    assert reason == "completion is 4 (whole number), text is needed"


def test_half_of_a_surrogate_pair_is_a_bad_row(tmp_path: Path) -> None:
    assert "surrogate" in refusal({"text": "broken \ud83d emoji"}, tmp_path)
    assert isinstance(one({"text": "whole \U0001f600 emoji"}, tmp_path), Example)


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"instruction": "Add.", "input": "2 2", "output": "4"}, "Add.\n\n2 2\n"),
        ({"instruction": "Add.", "input": "", "output": "4"}, "Add.\n"),
        ({"instruction": "Add.", "input": None, "output": "4"}, "Add.\n"),
        ({"instruction": "Add.", "output": "4"}, "Add.\n"),
    ],
)
def test_instructions_with_and_without_input(tmp_path: Path, row: dict[str, Any], asked: str) -> None:
    assert turns(row, tmp_path, format="instruction") == [("user", asked), ("assistant", "4")]


def test_sharegpt_names_become_roles(tmp_path: Path) -> None:
    conversation = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "Q"},
        {"from": "gpt", "value": "A"},
        {"from": "user", "value": "Q2"},
        {"from": "assistant", "value": "A2"},
    ]
    found = turns({"conversations": conversation}, tmp_path, format="sharegpt")
    assert [role for role, _ in found] == ["system", "user", "assistant", "user", "assistant"]
    bad = {"conversations": [{"from": "humn", "value": "Q"}]}
    assert "did you mean 'human'?" in refusal(bad, tmp_path, format="sharegpt")


BAD_ANSWER = {"role": "assistant", "content": "No"}


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [USER, ANSWER], "rejected": [USER, BAD_ANSWER]},
        {"prompt": "ignored", "chosen": [USER, ANSWER], "rejected": [USER, BAD_ANSWER]},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [BAD_ANSWER]},
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, BAD_ANSWER]},
    ],
)
def test_preference_as_conversations(tmp_path: Path, row: dict[str, Any]) -> None:
    found = one(row, tmp_path, format="preference")
    assert isinstance(found, Example), found
    assert found.messages == (Message("user", "Hi\n"),)
    assert (found.chosen, found.rejected) == ((Message("assistant", " Hello "),), (Message("assistant", "No"),))
    assert found.prompt_text() == "Hi\n"


def test_preference_as_three_texts(tmp_path: Path) -> None:
    found = one({"prompt": "Hi", "chosen": " a", "rejected": " b"}, tmp_path, format="preference")
    assert isinstance(found, Example)
    assert (found.messages, found.chosen, found.rejected) == (
        (Message("user", "Hi"),),
        (Message("assistant", " a"),),
        (Message("assistant", " b"),),
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "are the same"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "are the same"),
        ({"chosen": [{**USER, "content": "?"}, ANSWER], "rejected": [USER, BAD_ANSWER]}, "differ before"),
        ({"prompt": "Hi", "chosen": [ANSWER], "rejected": [BAD_ANSWER]}, "no turn before the answer"),
        ({"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": "b"}, "text is needed"),
        ({"prompt": "Hi", "chosen": "a"}, "has no column 'rejected'"),
        ({"promt": "Hi", "chosen": "a", "rejected": "b"}, "did you mean 'promt'?"),
    ],
)
def test_a_pair_that_cannot_be_used_says_why(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    assert reason in refusal(row, tmp_path, format="preference")


def test_text_rows_keep_their_text_exactly(tmp_path: Path) -> None:
    found = one({"body": "  a\r\nb \n"}, tmp_path, columns={"text": "body"})
    assert isinstance(found, Example)
    assert found.text == found.prompt_text() == "  a\r\nb \n"


def test_duplicate_rows_get_distinct_names_and_one_content(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"text": "same"}, {"text": "other"}, {"text": "same"}] * 2)
    found = list(formats.examples([path], card(), "train"))
    names = [row.id for row in found if isinstance(row, Example)]
    assert len(set(names)) == len(found) == 6
    assert names[2] == f"{names[0]}#2"
    assert names[5] == f"{names[0]}#4"


def test_names_from_a_column_stay_distinct_even_against_the_numbered_ones(tmp_path: Path) -> None:
    rows = [{"text": f"{at}", "name": name} for at, name in enumerate(["a", "a#2", "a", "a#2", "a"])]
    found = list(formats.examples([write_rows(tmp_path / "r.jsonl", rows)], card(id="name"), "train"))
    names = [row.id for row in found if isinstance(row, Example)]
    assert names[:2] == ["a", "a#2"]
    assert len(set(names)) == 5


def test_the_cluster_is_a_column_or_the_row_itself(tmp_path: Path) -> None:
    found = one({"text": "a", "person": 7}, tmp_path, cluster="person")
    assert isinstance(found, Example)
    assert found.cluster == "7"
    alone = one({"text": "a"}, tmp_path)
    assert isinstance(alone, Example)
    assert alone.cluster == alone.id


def test_too_many_bad_rows_are_told_with_the_first_ten_and_the_way_out() -> None:
    bad = [BadRow(f"rows.jsonl:{number}", "is empty") for number in range(1, 11)]
    formats.refuse_above(bad, 12, 12, "card x")
    with pytest.raises(DataError) as caught:
        formats.refuse_above(bad, 12, 11, "card x")
    message = str(caught.value)
    assert "rows.jsonl:10: is empty" in message
    assert "12 rows cannot be used" in message
    assert "data.max_dropped: 12" in message
