"""Bits per byte of raw text: the number worked out by hand, the cutting of documents, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import write_rows

from workbench.bases import Loading, context_length, load_model, load_tokenizer
from workbench.catalog.suites import Heldout
from workbench.data.rendering import Renderer
from workbench.errors import DataError, EvaluationError
from workbench.evaluation import items as suite_items
from workbench.evaluation import scoring
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.items import Item
from workbench.evaluation.scoring import Scorer
from workbench.progress import Progress
from workbench.recipe import resolve

TASK = Heldout(id="text", data="text")


@pytest.fixture(scope="module")
def model(stories: Path) -> Any:
    return load_model(Loading(directory=stories))


@pytest.fixture(scope="module")
def tokenizer(stories: Path) -> Any:
    return load_tokenizer(Loading(directory=stories))


def scorer(model: Any, tokenizer: Any, batch_size: int = 4) -> Scorer:
    return Scorer(model, Renderer(tokenizer, None), context_length(model.config), 0, batch_size, Progress())


def item(text: str, name: str = "a") -> Item:
    return Item(id=name, cluster=name, text=text)


def bits_by_hand(model: Any, ids: list[int], bos: int, window: int) -> float:
    """Each token after BOS and the window's tokens before it, one forward pass a window."""
    total = 0.0
    for first in range(0, len(ids), window):
        piece = ids[first : first + window]
        with torch.no_grad():
            logits = model(torch.tensor([[bos, *piece]])).logits[0].double()
        for at, token in enumerate(piece):
            total -= float(logits[at].log_softmax(-1)[token]) / math.log(2)
    return total


def load(folder: Path, rows: list[dict[str, Any]], **task: Any) -> list[Item]:
    write_rows(folder / "rows.jsonl", rows)
    card = {"format": "text", "splits": {"test": {"files": "rows.jsonl"}}, "id": "name"}
    (folder / "text.yaml").write_text(yaml.safe_dump(card))
    suite = {"tasks": [{"name": "heldout", "id": "text", "data": "./text.yaml", **task}]}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    found = resolve.find_suite(str(folder / "suite.yaml"), folder, "--suite")
    return list(suite_items.load(found)[0].items)


def test_bits_per_byte_are_those_worked_out_by_hand(model: Any, tokenizer: Any) -> None:
    text = "Once upon a time, there was a little girl named Lily. She had a naïve café.\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    row = scoring.heldout(TASK, [item(text)], scorer(model, tokenizer))[0]
    bits = bits_by_hand(model, ids, tokenizer.bos_token_id, 511)
    assert row["bits"] == pytest.approx(bits, rel=1e-5)
    assert row["weight"] == len(text.encode()) == len(text) + 2  # bytes, not characters; BOS has none
    assert row["value"] == pytest.approx(bits / len(text.encode()), rel=1e-5)


def test_a_text_longer_than_the_context_is_scored_once_in_disjoint_windows(model: Any, tokenizer: Any) -> None:
    text = "The dog saw a cat. It ran to the big tree and sat in the sun.\n" * 60
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 2 * 511  # three windows: two whole ones of the context without BOS, and the rest
    row = scoring.heldout(TASK, [item(text)], scorer(model, tokenizer, batch_size=2))[0]
    assert row["bits"] == pytest.approx(bits_by_hand(model, ids, tokenizer.bos_token_id, 511), rel=1e-5)
    assert row["weight"] == len(text.encode())


def test_the_metric_is_all_bits_over_all_bytes(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    load(tmp_path, [{"name": "a", "text": "A cat."}, {"name": "b", "text": "qx zzq vv kkj " * 20}])
    suite = resolve.find_suite(str(tmp_path / "suite.yaml"), tmp_path, "--suite")
    loaded = suite_items.load(suite)
    done = evaluate(suite, loaded, {"text": scorer(model, tokenizer)}, {})
    bits, sizes = [row["bits"] for row in done.rows], [row["weight"] for row in done.rows]
    value = done.results["tasks"]["text"]["value"]
    assert value == pytest.approx(sum(bits) / sum(sizes))
    assert value != pytest.approx(sum(row["value"] for row in done.rows) / 2, rel=0.01)  # no average of averages
    assert done.results["tasks"]["text"]["higher_is_better"] is False


def test_documents_are_cut_at_line_ends_and_their_pieces_are_one_cluster(tmp_path: Path) -> None:
    lines = [f"line {number} of the long document\n" for number in range(12)]
    rows = [{"name": "long", "text": "".join(lines)}, {"name": "short", "text": "one line\n"}]
    found = load(tmp_path, rows, max_bytes=100)
    pieces = [one for one in found if one.cluster == "long"]
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == "".join(lines)
    assert all(piece.text.endswith("\n") and len(piece.text.encode()) <= 100 for piece in pieces)
    assert [piece.id for piece in pieces] == [f"long.{number}" for number in range(1, len(pieces) + 1)]
    assert all(piece.question == "".join(lines) for piece in pieces)  # contamination is of the whole document
    assert [(one.id, one.text) for one in found if one.cluster == "short"] == [("short", "one line\n")]


def test_a_line_longer_than_an_item_is_cut_between_characters(tmp_path: Path) -> None:
    text = "ä€𝄞" * 40
    found = load(tmp_path, [{"name": "a", "text": text}], max_bytes=64)
    assert len(found) > 1
    assert "".join(piece.text for piece in found) == text
    assert all(0 < len(piece.text.encode()) <= 64 for piece in found)


def test_pieces_of_a_document_are_counted_as_one_cluster(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    load(tmp_path, [{"name": n, "text": f"{n} had a cat and a dog.\n" * 9} for n in ("Tom", "Sue")], max_bytes=64)
    suite = resolve.find_suite(str(tmp_path / "suite.yaml"), tmp_path, "--suite")
    done = evaluate(suite, suite_items.load(suite), {"text": scorer(model, tokenizer)}, {})
    assert done.results["tasks"]["text"]["clusters"] == 2
    assert done.results["tasks"]["text"]["items"] > 4


def test_a_tokenizer_that_does_not_give_the_text_back_is_refused(small_base: Path, small_tokenizer: Any) -> None:
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    lossy = PreTrainedTokenizerFast.from_pretrained(small_base)
    model = load_model(Loading(directory=small_base))
    lossless = scoring.heldout(TASK, [item("The CAT sat")], scorer(model, lossy))
    assert lossless[0]["state"] == "ok"
    lossy.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert scoring.heldout(TASK, [item("the cat sat")], scorer(model, lossy))[0]["state"] == "ok"
    with pytest.raises(EvaluationError, match="does not give this text back") as refused:
        scoring.heldout(TASK, [item("The CAT sat", "row-7")], scorer(model, lossy))
    assert "row-7" in str(refused.value)


@pytest.mark.parametrize("text", ["a story</s>another", "<s>a story"])
def test_a_control_token_in_the_text_is_refused(model: Any, tokenizer: Any, text: str) -> None:
    """It would count as one token for many bytes, or end the text in the middle."""
    with pytest.raises(EvaluationError, match="control token"):
        scoring.heldout(TASK, [item(text)], scorer(model, tokenizer))


def test_eos_stands_before_the_text_where_there_is_no_bos(small_base: Path) -> None:
    directory = Loading(directory=small_base)
    model, tokenizer = load_model(directory), load_tokenizer(directory)
    assert tokenizer.bos_token_id is None
    text = "the cat sat on the mat"
    row = scoring.heldout(TASK, [item(text)], scorer(model, tokenizer))[0]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row["bits"] == pytest.approx(bits_by_hand(model, ids, tokenizer.eos_token_id, 511), rel=1e-5)
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="neither a BOS nor an EOS"):
        scoring.heldout(TASK, [item(text)], scorer(model, tokenizer))


def test_stories260k_predicts_its_own_kind_of_text_well(model: Any, tokenizer: Any, shared: Path) -> None:
    """0.90 bits per byte on a TinyStories slice, about 4.4 on Shakespeare (measured when the data were gathered)."""
    corpus = (shared / "corpora" / "tinystories_train_2MiB.txt").read_text(encoding="utf-8")
    plays = (shared / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    stories = [item(text.strip(), str(at)) for at, text in enumerate(corpus.split("<|endoftext|>")[:12])]
    lines = [item(plays[at : at + 1500], str(at)) for at in range(1_000_000, 1_012_000, 1500)]
    ratios = []
    for chosen in (stories, lines):
        rows = scoring.heldout(TASK, chosen, scorer(model, tokenizer, batch_size=8))
        ratios.append(sum(row["bits"] for row in rows) / sum(row["weight"] for row in rows))
    assert 0.8 < ratios[0] < 1.0
    assert 4.2 < ratios[1] < 4.6


def test_stories260k_tells_its_story_from_bos(model: Any, tokenizer: Any) -> None:
    made = scoring.greedy(scorer(model, tokenizer), [[tokenizer.bos_token_id]], 60)
    text, ended = made[0]
    assert text.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    )
    assert not ended
