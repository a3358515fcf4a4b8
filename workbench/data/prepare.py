"""The rows of a recipe -> token ids on disk, once, with an account that balances.

The result is an Arrow file in the cache, keyed by everything it depends on; it is read memory-mapped, so memory stays
flat however many rows there are (data.shuffle_labels holds their answers).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import datasets
from workbench import files, fingerprint, resources
from workbench.data import formats, splits
from workbench.data.contamination import Guard
from workbench.data.formats import BadRow, Example, UnusableError
from workbench.data.rendering import IGNORED, Renderer
from workbench.data.shuffling import shuffled
from workbench.errors import DataError, Problem
from workbench.progress import Progress
from workbench.recipe import lengths, pin
from workbench.recipe.resolved import Resolved

_CODE_VERSION = 2
"""Raised when rendering changes what it gives for the same rows."""
_PROSE = {"description", "licence", "origin", "as_of", "lengths"}
_ROWS_A_BATCH = 512
_LENGTH_BINS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)

_CAUSAL = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("text_bytes", pa.int64()),
        ("row", pa.string()),
    ]
)
_PAIRS = pa.schema(
    [
        ("prompt_ids", pa.list_(pa.int32())),
        ("chosen_ids", pa.list_(pa.int32())),
        ("rejected_ids", pa.list_(pa.int32())),
        ("text_bytes", pa.int64()),
        ("row", pa.string()),
    ]
)


@dataclass(frozen=True)
class Prepared:
    """Tokenised rows, and the account of how they came about."""

    rows: Any
    """A memory-mapped datasets.Dataset."""
    account: dict[str, Any]


@dataclass
class _Account:
    rows_in: int = 0
    rows_trained: int = 0
    examples: int = 0
    cut: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    counted_tokens: int = 0
    text_bytes: int = 0
    longest: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, ids: list[int], counted: int, text_bytes: int) -> None:
        self.examples += 1
        self.tokens += len(ids)
        self.counted_tokens += counted
        self.text_bytes += text_bytes
        self.longest = max(self.longest, len(ids))
        self.lengths[next((edge for edge in _LENGTH_BINS if len(ids) <= edge), _LENGTH_BINS[-1] * 2)] += 1
        self.digest.update(np.asarray(ids, dtype=np.int32).tobytes())

    def as_words(self, guard: Guard) -> dict[str, Any]:
        left_out = sum(self.dropped.values())
        if self.rows_in != self.rows_trained + left_out:
            raise AssertionError(f"rows do not balance: {self.rows_in} != {self.rows_trained} + {left_out}")
        return {
            "rows_in": self.rows_in,
            "rows_trained": self.rows_trained,
            "rows_cut": self.cut,
            "rows_dropped": dict(sorted(self.dropped.items())),
            "examples": self.examples,
            "tokens": self.tokens,
            "counted_tokens": self.counted_tokens,
            "counted_text_bytes": self.text_bytes,
            "longest_tokens": self.longest,
            "lengths_up_to": {str(edge): self.lengths[edge] for edge in sorted(self.lengths)},
            "fingerprint": self.digest.hexdigest(),
            "contamination": guard.report(),
        }


def prepare(resolved: Resolved, renderer: Renderer, max_length: int, guard: Guard, progress: Progress) -> Prepared:
    """Tokenise the recipe's rows, or take them from the cache.

    Args:
        max_length: longest example in tokens.
        guard: knows the suite's items.

    Raises:
        DataError: more unusable rows than the recipe allows, contaminated rows, or no row at all.
    """
    paths = pin.split_files(resolved.data, resolved.recipe.data.split)
    place = resources.cache_directory() / "rows" / _key(resolved, renderer, max_length, guard, paths)
    if not (place / "account.json").exists():
        with files.whole_directory(place, keep=True) as fresh:
            account = _write(fresh / "rows.arrow", resolved, renderer, max_length, guard, paths, progress)
            files.write_json(fresh / "account.json", account)
    rows = datasets.Dataset.from_file(str(place / "rows.arrow"))
    account = files.read_json(place / "account.json")
    lengths.remember(resolved, account)
    return Prepared(rows, account)


def _key(resolved: Resolved, renderer: Renderer, max_length: int, guard: Guard, paths: list[Path]) -> str:
    data = resolved.recipe.data
    return fingerprint.of_value(
        {
            "code": _CODE_VERSION,
            "files": [fingerprint.of_file(path) for path in paths],
            "card": resolved.data.card.model_dump(mode="json", exclude=_PROSE),
            "data": data.model_dump(mode="json", exclude={"name"}),
            "objective": resolved.recipe.objective.model_dump(mode="json"),
            "tokenizer": fingerprint.of_text(renderer.tokenizer.backend_tokenizer.to_str()),
            "special": [renderer.start_ids, sorted(renderer.end_ids), sorted(renderer.special_ids)],
            "marks": [renderer.tokenizer.bos_token_id, renderer.tokenizer.eos_token_id],
            "template": renderer.template,
            "max_length": max_length,
            "items": sorted(digest.hex() for digest in guard.prompts),
        }
    )


def _write(
    target: Path,
    resolved: Resolved,
    renderer: Renderer,
    max_length: int,
    guard: Guard,
    paths: list[Path],
    progress: Progress,
) -> dict[str, Any]:
    account = _Account()
    schema = _PAIRS if resolved.recipe.objective.name == "dpo" else _CAUSAL
    bad: list[BadRow] = []
    num_bad = 0
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in progress.over(_rows(resolved, paths), "tokenise"):
            outcome = _one(row, resolved, renderer, max_length, guard, account)
            if isinstance(outcome, BadRow):
                account.dropped["unusable"] += 1
                num_bad += 1
                bad += [outcome] if len(bad) < 10 else []
                continue
            batch += outcome
            if len(batch) >= _ROWS_A_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
                batch = []
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    place = f"card {resolved.data.name} split {resolved.recipe.data.split}"
    formats.refuse_above(bad, num_bad, resolved.recipe.data.max_dropped, place)
    _refuse_contaminated(guard, resolved)
    if account.examples == 0:
        raise DataError(Problem(place, "no row is left to train on", "see data.fraction, data.too_long and the split"))
    return account.as_words(guard)


def _rows(resolved: Resolved, paths: list[Path]) -> Iterator[Example | BadRow]:
    data = resolved.recipe.data

    def read() -> Iterator[Example | BadRow]:
        return formats.examples(paths, resolved.data.card, data.split)

    return shuffled(read, data.fraction) if data.shuffle_labels else read()


def _one(
    row: Example | BadRow, resolved: Resolved, renderer: Renderer, max_length: int, guard: Guard, account: _Account
) -> list[dict[str, Any]] | BadRow:
    """The table rows that one row becomes; counts it in the account."""
    data = resolved.recipe.data
    if isinstance(row, BadRow):
        account.rows_in += 1
        return row
    if not splits.in_fraction(formats.content_key(row.values), data.fraction):
        return []
    account.rows_in += 1
    if guard.meet(row.prompt_text(), row.where) and data.contamination == "drop":
        account.dropped["contaminated"] += 1
        return []
    try:
        made = _render(row, resolved, renderer, max_length)
    except UnusableError as error:
        return BadRow(row.where, str(error))
    longest = max(length for _, length in made)
    if longest > max_length:
        if data.too_long == "refuse":
            return BadRow(row.where, f"is {longest} tokens long, at most {max_length} fit (data.too_long: drop or cut)")
        made = _cut(made, max_length, renderer) if data.too_long == "cut" else []
        if not made:
            account.dropped["too long"] += 1
            return []
        account.cut += 1
    for table_row, _ in made:
        ids = (
            table_row.get("input_ids") or table_row["prompt_ids"] + table_row["chosen_ids"] + table_row["rejected_ids"]
        )
        labels = table_row.get("labels")
        counted = sum(label != IGNORED for label in labels) if labels else len(ids) - len(table_row["prompt_ids"])
        account.add(ids, counted, table_row["text_bytes"])
    account.rows_trained += 1
    return [table_row for table_row, _ in made]


def _render(row: Example, resolved: Resolved, renderer: Renderer, max_length: int) -> list[tuple[dict[str, Any], int]]:
    """(table row, its length in tokens) of one example; a document becomes several windows."""
    if resolved.recipe.objective.name == "pretrain":
        rendered = renderer.document(row.text, max_length)
    elif resolved.recipe.objective.name == "sft":
        rendered = [renderer.conversation(row.messages)]
    else:
        chosen = renderer.conversation((*row.messages, *row.chosen))
        rejected = renderer.conversation((*row.messages, *row.rejected))
        cut = chosen.prompt_length
        if chosen.ids[:cut] != rejected.ids[: rejected.prompt_length]:
            raise UnusableError("the prompt of chosen and rejected is not the same, token by token")
        table_row = {
            "prompt_ids": chosen.ids[:cut],
            "chosen_ids": chosen.ids[cut:],
            "rejected_ids": rejected.ids[cut:],
            "text_bytes": chosen.text_bytes + rejected.text_bytes,
            "row": row.where,
        }
        return [(table_row, max(len(chosen.ids), len(rejected.ids)))]
    return [
        ({"input_ids": one.ids, "labels": one.labels(), "text_bytes": one.text_bytes, "row": row.where}, len(one.ids))
        for one in rendered
    ]


def _cut(
    made: list[tuple[dict[str, Any], int]], max_length: int, renderer: Renderer
) -> list[tuple[dict[str, Any], int]]:
    """Rows cut at the end to `max_length`; those left without a counted token, or a difference, fall away."""
    kept = []
    for row, _ in made:
        if "input_ids" in row:
            row = {**row, "input_ids": row["input_ids"][:max_length], "labels": row["labels"][:max_length]}
            answers = [[label for label in row["labels"] if label != IGNORED]]
            useful = bool(answers[0])
        else:
            room = max(0, max_length - len(row["prompt_ids"]))
            row = {**row, "chosen_ids": row["chosen_ids"][:room], "rejected_ids": row["rejected_ids"][:room]}
            answers = [row["chosen_ids"], row["rejected_ids"]]
            useful = answers[0] != answers[1]
        if useful:
            row["text_bytes"] = min(row["text_bytes"], sum(renderer.text_bytes(ids) for ids in answers))
            kept.append((row, max_length))
    return kept


def _refuse_contaminated(guard: Guard, resolved: Resolved) -> None:
    if resolved.recipe.data.contamination != "refuse" or not guard.matches:
        return
    problems = [Problem(row, f"has the same prompt as item {item} of the suite") for item, row in _first(guard)]
    problems.append(
        Problem(
            "data.contamination",
            f"{len(guard.matches)} items of the suite also stand in the training rows",
            "data.contamination: drop leaves those rows out, allow only reports them",
        )
    )
    raise DataError(problems)


def _first(guard: Guard) -> Iterator[tuple[str, str]]:
    yield from list(guard.matches.items())[:5]
