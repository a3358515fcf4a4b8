"""Rows -> token ids in the cache: the account balances, the policies do what they say, and nothing half is kept."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_rows

from workbench import bases
from workbench.data.contamination import Guard
from workbench.data.prepare import Prepared, prepare
from workbench.data.rendering import IGNORED, Renderer
from workbench.errors import DataError
from workbench.progress import Progress
from workbench.recipe.load import load
from workbench.recipe.pin import pin
from workbench.recipe.resolve import resolve
from workbench.recipe.resolved import Resolved

MAX_LENGTH = 64
QUESTIONS = [{"prompt": f"where is the cat {at}?", "completion": f" on the mat {at}"} for at in range(20)]
PAIRS = [{"prompt": f"the cat {at}?\n", "chosen": " on the red mat", "rejected": " ran"} for at in range(6)]

Prepare = Callable[..., Prepared]


def declare(
    folder: Path, base: Path, rows: Sequence[dict[str, Any]], form: str, objective: str, data: dict[str, Any]
) -> Resolved:
    """A card over the rows and a recipe over the card, resolved and pinned."""
    write_rows(folder / "rows.jsonl", list(rows))
    card = {"format": form, "splits": {"train": {"files": "rows.jsonl"}}}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    recipe = {
        "base": {"name": str(base)},
        "method": {"name": "lora", "rank": 4},
        "objective": {"name": objective},
        "data": {"name": "./card.yaml", "template": "plain", **data},
        "target": {"name": "cpu"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return pin(resolve(load(folder / "recipe.yaml")))[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rows"


@pytest.fixture
def prepared(tmp_path: Path, small_base: Path, small_tokenizer: Any, cache: Path) -> Prepare:
    """prepared(rows, max_dropped=1, ...): rows of a card through a recipe with these fields of its data section."""

    def act(
        rows: Sequence[dict[str, Any]],
        form: str = "prompt_completion",
        objective: str = "sft",
        max_length: int = MAX_LENGTH,
        items: Sequence[tuple[str, str]] = (),
        tokenizer: Any = small_tokenizer,
        **data: Any,
    ) -> Prepared:
        resolved = declare(tmp_path, small_base, rows, form, objective, data)
        template = bases.chat_template(tokenizer, resolved.recipe.data.template)
        renderer = Renderer(tokenizer, template, resolved.recipe.data.system)
        made = prepare(resolved, renderer, max_length, Guard.of(items), Progress())
        balance(made)
        return made

    return act


def balance(made: Prepared) -> None:
    """Everything in the account that can be counted again from the rows."""
    account, rows = made.account, list(made.rows)
    assert account["rows_in"] == account["rows_trained"] + sum(account["rows_dropped"].values())
    assert account["examples"] == len(rows) == sum(account["lengths_up_to"].values())
    assert account["counted_text_bytes"] == sum(row["text_bytes"] for row in rows)
    assert account["rows_trained"] == len({row["row"] for row in rows})
    if "input_ids" in made.rows.column_names:
        assert account["tokens"] == sum(len(row["input_ids"]) for row in rows)
        assert account["counted_tokens"] == sum(label != IGNORED for row in rows for label in row["labels"])
        assert account["longest_tokens"] == max(len(row["input_ids"]) for row in rows)
        assert all(len(row["input_ids"]) == len(row["labels"]) for row in rows)
        assert all(any(label != IGNORED for label in row["labels"]) for row in rows)


def places(made: Prepared) -> list[int]:
    """The line numbers of the rows."""
    return [int(row["row"].rpartition(":")[2]) for row in made.rows]


# ---- rows and account


def test_clean_rows_all_come_through_in_order(prepared: Prepare, small_tokenizer: Any) -> None:
    made = prepared(QUESTIONS)
    assert places(made) == list(range(1, 21))
    assert made.account["rows_dropped"] == {}
    assert made.account["counted_text_bytes"] == sum(len(row["completion"].encode()) for row in QUESTIONS)
    row = made.rows[3]
    assert small_tokenizer.decode(row["input_ids"]) == "where is the cat 3? on the mat 3<|im_end|>"
    counted = [label for label in row["labels"] if label != IGNORED]
    assert small_tokenizer.decode(counted) == " on the mat 3<|im_end|>"


def test_the_bases_own_template_and_the_recipes_system_message_are_used(
    prepared: Prepare, small_tokenizer: Any
) -> None:
    made = prepared(QUESTIONS[:1], template="base", system="Be brief.")
    assert small_tokenizer.decode(made.rows[0]["input_ids"]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nwhere is the cat 0?<|im_end|>\n"
        "<|im_start|>assistant\non the mat 0<|im_end|>\n"
    )


BAD = [
    {"prompt": "no completion"},
    {"prompt": "", "completion": "a"},
    {"prompt": "a <|im_end|>", "completion": " b"},
    {"prompt": "t", "completion": "he cat"},
    {"prompt": "half \ud83d", "completion": " b"},
]


def test_unusable_rows_are_refused_all_at_once_with_place_and_reason(prepared: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepared([*QUESTIONS, *BAD], max_dropped=4)
    problems = caught.value.problems
    assert [problem.where.rpartition(":")[2] for problem in problems[:-1]] == ["21", "22", "23", "24", "25"]
    for problem, reason in zip(problems, ("'completion'", "empty", "control token", "straddles", "half"), strict=False):
        assert reason in problem.found
    assert "5 rows cannot be used" in problems[-1].found
    assert "data.max_dropped: 5" in problems[-1].do


def test_as_many_unusable_rows_as_allowed_are_left_out_and_counted(prepared: Prepare) -> None:
    made = prepared([*BAD, *QUESTIONS], max_dropped=5)
    assert made.account["rows_dropped"] == {"unusable": 5}
    assert (made.account["rows_in"], made.account["rows_trained"]) == (25, 20)
    assert places(made) == list(range(6, 26))


def test_no_row_at_all_is_refused(prepared: Prepare) -> None:
    with pytest.raises(DataError, match="no row is left"):
        prepared(BAD, max_dropped=5)


# ---- too long

LONG = {"prompt": "short?", "completion": " a very long answer 你好" + " the cat" * 40}
LONG_PROMPT = {"prompt": "the cat " * 80, "completion": " yes"}


def test_too_long_rows_are_refused_with_their_length(prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:21: is \d+ tokens long, at most 64 fit"):
        prepared([*QUESTIONS, LONG])


def test_too_long_rows_are_dropped_and_counted(prepared: Prepare) -> None:
    made = prepared([LONG, *QUESTIONS, LONG_PROMPT], too_long="drop")
    assert made.account["rows_dropped"] == {"too long": 2}
    assert made.account["rows_cut"] == 0
    assert places(made) == list(range(2, 22))


def test_too_long_rows_are_cut_unless_nothing_counted_is_left(prepared: Prepare, small_tokenizer: Any) -> None:
    made = prepared([LONG, *QUESTIONS, LONG_PROMPT], too_long="cut")
    assert made.account["rows_dropped"] == {"too long": 1}
    assert made.account["rows_cut"] == 1
    assert made.account["longest_tokens"] == MAX_LENGTH
    cut = made.rows[0]
    assert len(cut["input_ids"]) == MAX_LENGTH
    counted = small_tokenizer.decode([label for label in cut["labels"] if label != IGNORED])
    assert LONG["completion"].startswith(counted)
    assert cut["text_bytes"] == len(counted.encode())


def test_a_row_of_exactly_the_limit_is_not_too_long(prepared: Prepare) -> None:
    length = prepared(QUESTIONS[:1]).account["longest_tokens"]
    assert prepared(QUESTIONS[:1], max_length=length).account["rows_cut"] == 0
    with pytest.raises(DataError, match=f"is {length} tokens long"):
        prepared(QUESTIONS[:1], max_length=length - 1)


# ---- fraction


def test_smaller_fractions_lie_inside_larger_ones(prepared: Prepare) -> None:
    rows = [{"prompt": f"where {at}?", "completion": " here"} for at in range(200)]
    kept = {fraction: set(places(prepared(rows, fraction=fraction))) for fraction in (0.2, 0.5, 1.0)}
    assert kept[0.2] < kept[0.5] < kept[1.0]
    assert 60 < len(kept[0.5]) < 140
    assert prepared(rows, fraction=0.5).account["rows_in"] == len(kept[0.5])


# ---- contamination

ITEMS = [("world/one", "WHERE is  the\tcat 3?\n"), ("world/two", "something else")]


def test_a_row_with_an_items_prompt_is_refused_whatever_its_case_and_white_space(prepared: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepared(QUESTIONS, items=ITEMS)
    first, last = caught.value.problems
    assert first.where.endswith("rows.jsonl:4")
    assert "item world/one" in first.found
    assert "1 items of the suite" in last.found
    assert "data.contamination: drop" in last.do


def test_contaminated_rows_can_be_dropped(prepared: Prepare) -> None:
    made = prepared([*QUESTIONS, QUESTIONS[3] | {"completion": " elsewhere"}], items=ITEMS, contamination="drop")
    assert made.account["rows_dropped"] == {"contaminated": 2}
    assert 4 not in places(made)
    report = made.account["contamination"]
    assert report["rows_with_an_item's_prompt"] == 2
    assert report["items_in_the_rows"] == 1
    assert [found["item"] for found in report["first"]] == ["world/one"]


def test_contaminated_rows_can_be_allowed_and_are_reported(prepared: Prepare) -> None:
    made = prepared(QUESTIONS, items=ITEMS, contamination="allow")
    assert made.account["rows_trained"] == 20
    assert made.account["contamination"]["rows_with_an_item's_prompt"] == 1
    assert made.account["contamination"]["items"] == 2


def test_case_is_folded_beyond_ascii(prepared: Prepare) -> None:
    rows = [{"prompt": "Die große Straße?", "completion": " a"}]
    with pytest.raises(DataError, match="item x"):
        prepared(rows, items=[("x", "DIE GROSSE STRASSE?")])
    assert prepared(rows, items=[("x", "die grosse strase?")]).account["rows_trained"] == 1


def test_a_shared_run_of_thirteen_words_is_reported_and_not_refused(prepared: Prepare) -> None:
    words = [f"w{at}" for at in range(20)]
    row = {"prompt": "at first " + " ".join(words[:13]) + " then?", "completion": " yes"}
    shared, not_quite = "Other START " + " ".join(words[:13]).upper(), "begin " + " ".join(words[1:13]) + " end"
    made = prepared([row], items=[("a", shared), ("b", not_quite)], max_length=200)
    report = made.account["contamination"]
    assert (report["items_sharing_a_13_gram"], report["rows_with_an_item's_prompt"]) == (1, 0)


def test_contamination_is_looked_for_in_documents_and_pairs_too(prepared: Prepare) -> None:
    with pytest.raises(DataError, match="item x"):
        prepared([{"text": "The cat sat."}], form="text", objective="pretrain", items=[("x", "the cat sat. ")])
    with pytest.raises(DataError, match="item x"):
        prepared(PAIRS, form="preference", objective="dpo", items=[("x", "the cat 2?")])


# ---- pretraining and pairs


def test_documents_become_windows_that_lose_nothing(prepared: Prepare, small_tokenizer: Any) -> None:
    texts = ["the cat sat 😀 " * 30, "short", "你好" * 50]
    made = prepared([{"text": text} for text in texts], form="text", objective="pretrain", max_length=16)
    assert made.account["rows_trained"] == 3
    assert made.account["examples"] > 20
    assert made.account["counted_text_bytes"] == sum(len(text.encode()) for text in texts)
    assert made.account["longest_tokens"] == 16
    end = small_tokenizer.eos_token_id
    for number, text in enumerate(texts, 1):
        windows = [row for row in made.rows if row["row"].endswith(f":{number}")]
        assert all(row["input_ids"][0] == end and row["labels"][0] == IGNORED for row in windows)
        assert all(row["input_ids"][1:] == row["labels"][1:] for row in windows)
        ids = [token for row in windows for token in row["input_ids"][1:]]
        assert small_tokenizer.decode(ids[:-1]) == text
        assert ids[-1] == end


@pytest.mark.parametrize("template", ["plain", "base"])
def test_pairs_share_one_prompt_and_end_both_answers(prepared: Prepare, small_tokenizer: Any, template: str) -> None:
    made = prepared(PAIRS, form="preference", objective="dpo", template=template)
    assert made.account["rows_trained"] == 6
    row = made.rows[2]
    prompt, chosen, rejected = (
        small_tokenizer.decode(row[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids")
    )
    expected = {
        "plain": ("the cat 2?\n", " on the red mat<|im_end|>", " ran<|im_end|>"),
        "base": (
            "<|im_start|>user\nthe cat 2?<|im_end|>\n<|im_start|>assistant\n",
            "on the red mat<|im_end|>\n",
            "ran<|im_end|>\n",
        ),
    }
    assert (prompt, chosen, rejected) == expected[template]
    answers = [" on the red mat", " ran"] if template == "plain" else ["on the red mat", "ran"]
    assert row["text_bytes"] == sum(len(answer) for answer in answers)


def test_too_long_pairs_are_cut_and_those_that_no_longer_differ_are_dropped(prepared: Prepare) -> None:
    same_start = {"prompt": "which?\n", "chosen": " the cat" * 60 + " yes", "rejected": " the cat" * 60 + " no"}
    differing = {"prompt": "which?\n", "chosen": " the cat" * 60, "rejected": " a dog" * 60}
    long_prompt = {"prompt": "which? " * 60 + "\n", "chosen": " a", "rejected": " b"}
    made = prepared(
        [*PAIRS, same_start, differing, long_prompt], form="preference", objective="dpo", too_long="cut", max_length=32
    )
    assert made.account["rows_dropped"] == {"too long": 2}
    assert made.account["rows_cut"] == 1
    cut = made.rows[6]
    assert len(cut["prompt_ids"]) + len(cut["chosen_ids"]) == len(cut["prompt_ids"]) + len(cut["rejected_ids"]) == 32
    assert cut["text_bytes"] < len(differing["chosen"]) + len(differing["rejected"])


# ---- the cache


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_the_same_rows_are_taken_from_the_cache(prepared: Prepare, cache: Path) -> None:
    first = prepared(QUESTIONS)
    (entry,) = entries(cache)
    file = cache / entry / "rows.arrow"
    before = file.stat()
    second = prepared(QUESTIONS)
    assert entries(cache) == [entry]
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert second.account == first.account
    assert second.rows.to_list() == first.rows.to_list()


def retokenised(tokenizer: Any, **changes: Any) -> Any:
    import copy

    other = copy.deepcopy(tokenizer)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


@pytest.mark.parametrize(
    "change",
    ["rows", "order", "template", "system", "max_length", "fraction", "items", "tokenizer", "eos", "objective"],
)
def test_whatever_changes_the_result_is_prepared_anew(
    prepared: Prepare, cache: Path, small_tokenizer: Any, change: str
) -> None:
    prepared(QUESTIONS)
    rows, changed = list(QUESTIONS), {}
    match change:
        case "rows":
            rows[0] = rows[0] | {"completion": " elsewhere"}
        case "order":
            rows.reverse()
        case "template":
            changed = {"template": "base"}
        case "system":
            changed = {"system": "Be brief."}
        case "max_length":
            changed = {"max_length": MAX_LENGTH + 1}
        case "fraction":
            changed = {"fraction": 0.5}
        case "items":
            changed = {"items": [("x", "another question")]}
        case "tokenizer":
            other = retokenised(small_tokenizer)
            other.add_tokens(["cat"])
            changed = {"tokenizer": other}
        case "eos":
            changed = {"tokenizer": retokenised(small_tokenizer, eos_token="<|endoftext|>")}
        case "objective":
            rows = [{"text": row["prompt"]} for row in rows]
            changed = {"form": "text", "objective": "pretrain"}
    prepared(rows, **changed)
    assert len(entries(cache)) == 2


def test_a_bos_token_that_is_set_is_prepared_anew(prepared: Prepare, cache: Path, small_tokenizer: Any) -> None:
    documents = [{"text": "the cat sat"}]
    prepared(documents, form="text", objective="pretrain")
    begun = retokenised(small_tokenizer, bos_token="<|endoftext|>")
    made = prepared(documents, form="text", objective="pretrain", tokenizer=begun)
    assert len(entries(cache)) == 2
    assert made.rows[0]["input_ids"][0] == small_tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_the_same_rows_under_another_card_name_are_the_same_entry(
    prepared: Prepare, cache: Path, tmp_path: Path, small_base: Path, small_tokenizer: Any
) -> None:
    prepared(QUESTIONS)
    (tmp_path / "elsewhere").mkdir()
    resolved = declare(
        tmp_path / "elsewhere", small_base, QUESTIONS, "prompt_completion", "sft", {"name": "./card.yaml"}
    )
    prepare(resolved, Renderer(small_tokenizer, None), MAX_LENGTH, Guard.of([]), Progress())
    assert len(entries(cache)) == 1


@pytest.mark.parametrize(
    ("rows", "fields"),
    [([*QUESTIONS, BAD[0]], {}), ([*QUESTIONS, LONG], {}), (QUESTIONS, {"items": ITEMS})],
    ids=["unusable", "too long", "contaminated"],
)
def test_a_preparation_that_fails_leaves_nothing_and_fails_again(
    prepared: Prepare, cache: Path, rows: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    for _ in range(2):
        with pytest.raises(DataError):
            prepared(rows, **fields)
        assert entries(cache) == []


def test_a_defect_in_the_middle_leaves_nothing_either(
    tmp_path: Path, small_base: Path, small_tokenizer: Any, cache: Path
) -> None:
    class Broken(Guard):
        def meet(self, text: str, where: str) -> bool:
            if where.endswith(":7"):
                raise RuntimeError("pulled the plug")
            return super().meet(text, where)

    resolved = declare(tmp_path, small_base, QUESTIONS, "prompt_completion", "sft", {})
    with pytest.raises(RuntimeError, match="pulled the plug"):
        prepare(resolved, Renderer(small_tokenizer, None), MAX_LENGTH, Broken(), Progress())
    assert entries(cache) == []


def test_the_fingerprint_names_the_ids_in_their_order(prepared: Prepare) -> None:
    one, again, other = prepared(QUESTIONS), prepared(QUESTIONS, max_dropped=1), prepared(QUESTIONS[::-1])
    assert one.account["fingerprint"] == again.account["fingerprint"] != other.account["fingerprint"]


# ---- memory

MEASURE = """
    import sys, tracemalloc
    from pathlib import Path
    import pyarrow as pa
    sys.path.insert(0, sys.argv[4])
    from test_prepare import declare
    from transformers import AutoTokenizer
    from workbench.data.contamination import Guard
    from workbench.data.prepare import prepare
    from workbench.data.rendering import Renderer
    from workbench.progress import Progress

    folder, base, num_rows = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    rows = [{"text": f"row {number} the cat sat on the mat " * 4} for number in range(num_rows)]
    resolved = declare(folder, base, rows, "text", "pretrain", {})
    del rows
    renderer = Renderer(AutoTokenizer.from_pretrained(base), None)
    guard, progress = Guard.of([("a", "x")]), Progress()
    tracemalloc.start()
    made = prepare(resolved, renderer, 512, guard, progress)
    assert made.account["rows_trained"] == num_rows
    print(tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
"""
MOST_BYTES_A_ROW = 400
"""What may stay of a row in memory: its 16-character name, in a table that finds repeated names. The row itself has
600 bytes of text and 2,000 bytes of ids and labels."""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, small_base: Path) -> None:
    peaks = []
    for num_rows in (5_000, 20_000):
        folder = tmp_path / str(num_rows)
        folder.mkdir()
        arguments = [str(folder), str(small_base), str(num_rows), str(Path(__file__).parent)]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURE), *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 15_000 * MOST_BYTES_A_ROW, peaks
