"""Data files -> raw rows, each with the file and row number it came from. Files are streamed; memory stays flat."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from workbench import documents
from workbench.catalog.cards import Card
from workbench.errors import DataError, Problem

_LONGEST_CSV_FIELD = 2**31 - 1
"""Python's own limit of 131,072 characters would refuse a long document."""
_CHUNK_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class RawRow:
    """One row of a file, or why it could not be read."""

    where: str
    """`file:row`, counted from 1."""
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def read(path: Path, card: Card) -> Iterator[RawRow]:
    """The rows of one file, by its ending.

    Raises:
        DataError: the file is empty, binary, or of an unknown kind. A row that cannot be read is yielded with its
            problem instead.
    """
    shown = documents.display(path)
    if path.stat().st_size == 0:
        raise DataError(Problem(shown, "is empty", "a split needs at least one row"))
    endings = {
        ".jsonl": _json_lines,
        ".json": _json_array,
        ".csv": _csv,
        ".parquet": _parquet,
        ".arrow": _arrow,
        ".txt": _text,
    }
    if path.suffix not in endings:
        advice = documents.did_you_mean(path.suffix, list(endings))
        raise DataError(Problem(shown, f"is of no known kind ({path.suffix or 'no ending'})", advice))
    last = "its start"
    try:
        for row in endings[path.suffix](path, shown, card):
            yield row
            last = row.where
    except UnicodeDecodeError:
        raise DataError(Problem(shown, f"is not UTF-8 text, soon after {last}", "is it a binary file?")) from None
    except (pa.ArrowException, OSError, csv.Error) as error:
        raise DataError(Problem(shown, f"cannot be read: {error}")) from None


def _row(where: str, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(where, value)
    return RawRow(where, problem=f"is {documents.shown(value)}, an object with columns is needed")


def _json_lines(path: Path, shown: str, card: Card) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                yield _row(f"{shown}:{number}", json.loads(line))
            except (ValueError, RecursionError) as error:
                yield RawRow(f"{shown}:{number}", problem=f"is not JSON: {error}")


def _json_array(path: Path, shown: str, card: Card) -> Iterator[RawRow]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise DataError(Problem(shown, f"is not JSON: {error}", "rows one a line belong in a .jsonl file")) from None
    if not isinstance(value, list):
        raise DataError(Problem(shown, f"holds {documents.shown(value)}", "a list of rows is needed"))
    for number, row in enumerate(value, 1):
        yield _row(f"{shown}:{number}", row)


def _csv(path: Path, shown: str, card: Card) -> Iterator[RawRow]:
    csv.field_size_limit(_LONGEST_CSV_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        names = list(reader.fieldnames or [])
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(Problem(f"{shown}:1", f"names the column {twice[0]!r} twice", "rename one of the two"))
        for number, row in enumerate(reader, 1):
            # What is too much stands under None, what is missing is None; "" may be a name (an unnamed index column).
            if None in row or None in row.values():
                yield RawRow(f"{shown}:{number}", problem="has another number of columns than the first line")
            else:
                yield RawRow(f"{shown}:{number}", row)


def _parquet(path: Path, shown: str, card: Card) -> Iterator[RawRow]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield RawRow(f"{shown}:{number}", row)


def _arrow(path: Path, shown: str, card: Card) -> Iterator[RawRow]:
    number = 0
    with pa.memory_map(str(path)) as source:
        for batch in pa.ipc.open_stream(source):
            for row in batch.to_pylist():
                number += 1
                yield RawRow(f"{shown}:{number}", row)


def _text(path: Path, shown: str, card: Card) -> Iterator[RawRow]:
    for number, text in enumerate(_documents(path, card), 1):
        yield RawRow(f"{shown}:{number}", {"text": text})


def _documents(path: Path, card: Card) -> Iterator[str]:
    """The documents of a text file: between separators, or cut at line ends, else the file as one."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for text in _between(stream, card.separator) if card.separator else _cut_at_lines(stream, card.document_bytes):
            if text.strip():
                yield text


def _between(stream: TextIO, separator: str) -> Iterator[str]:
    """What stands between separators, each with one line end at its end. A separator may span or share lines."""
    rest = ""
    while chunk := stream.read(_CHUNK_CHARACTERS):
        *whole, rest = (rest + chunk).split(separator)
        for text in whole:
            yield text.strip("\r\n") + "\n"
    yield rest.strip("\r\n") + "\n"


def _cut_at_lines(stream: TextIO, document_bytes: int | None) -> Iterator[str]:
    parts: list[str] = []
    size = 0
    for line in stream:
        parts.append(line)
        size += len(line.encode())
        if document_bytes is not None and size >= document_bytes:
            yield "".join(parts)
            parts, size = [], 0
    yield "".join(parts)
