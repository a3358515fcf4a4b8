"""Splits and subsets by content: disjoint, covering, nested, and deaf to order and to what is appended."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conftest import write_rows

from workbench.catalog.cards import Card, Split
from workbench.data import formats, splits
from workbench.data.formats import Example

NUM_ROWS = 2_000
SHARES = {"train": (0.0, 0.7), "dev": (0.7, 0.8), "test": (0.8, 1.0)}


def rows(num: int = NUM_ROWS) -> list[dict[str, Any]]:
    return [{"text": f"row {number}"} for number in range(num)]


def card(seed: int = 0, shares: dict[str, tuple[float, float]] = SHARES) -> Card:
    return Card(
        format="text",
        splits={name: Split(files="rows.jsonl", share=share) for name, share in shares.items()},
        split_seed=seed,
    )


def texts(path: Path, split: str, of: Card) -> list[str]:
    found = list(formats.examples([path], of, split))
    assert all(isinstance(row, Example) for row in found)
    return [row.text for row in found if isinstance(row, Example)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", rows())


def test_shares_are_disjoint_and_cover_every_row(path: Path) -> None:
    by_split = {split: texts(path, split, card()) for split in SHARES}
    together = [text for found in by_split.values() for text in found]
    assert sorted(together) == sorted(row["text"] for row in rows())
    for split, (start, end) in SHARES.items():
        # five standard deviations of a binomial share
        spread = 5 * (NUM_ROWS * (end - start) * (1 - end + start)) ** 0.5
        assert abs(len(by_split[split]) - NUM_ROWS * (end - start)) < spread


def test_appending_rows_moves_none(path: Path, tmp_path: Path) -> None:
    longer = write_rows(tmp_path / "longer.jsonl", rows(NUM_ROWS + 500))
    for split in SHARES:
        before, after = texts(path, split, card()), texts(longer, split, card())
        assert after[: len(before)] == before
        assert set(after[len(before) :]) <= {row["text"] for row in rows(NUM_ROWS + 500)[NUM_ROWS:]}


def test_the_order_of_rows_and_columns_is_irrelevant(path: Path, tmp_path: Path) -> None:
    wide = [{"text": row["text"], "note": "a"} for row in rows()]
    mixed = [dict(reversed(row.items())) for row in wide]
    random.Random(1).shuffle(mixed)
    one, other = write_rows(tmp_path / "wide.jsonl", wide), write_rows(tmp_path / "mixed.jsonl", mixed)
    for split in SHARES:
        assert sorted(texts(one, split, card())) == sorted(texts(other, split, card()))
        assert texts(one, split, card()) != texts(other, split, card())


def test_the_split_does_not_depend_on_the_file_it_stands_in(path: Path, tmp_path: Path) -> None:
    halves = [
        write_rows(tmp_path / "a.jsonl", rows()[: NUM_ROWS // 2]),
        write_rows(tmp_path / "b.jsonl", rows()[NUM_ROWS // 2 :]),
    ]
    found = [row.text for row in formats.examples(halves, card(), "test") if isinstance(row, Example)]
    assert found == texts(path, "test", card())


def test_the_seed_gives_another_split(path: Path) -> None:
    assert set(texts(path, "test", card(seed=0))) != set(texts(path, "test", card(seed=1)))


def test_equal_rows_stand_on_the_same_side(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows(300) * 2)
    for split in SHARES:
        found = texts(path, split, card())
        assert sorted(found) == sorted(list(set(found)) * 2)


def test_the_whole_interval_is_every_row(path: Path) -> None:
    assert len(texts(path, "all", card(shares={"all": (0.0, 1.0)}))) == NUM_ROWS
    assert texts(path, "none", card(shares={"none": (0.5, 0.5)})) == []


def test_fractions_nest_and_are_about_as_large_as_they_say() -> None:
    keys = [formats.content_key(row) for row in rows()]
    kept = {fraction: {key for key in keys if splits.in_fraction(key, fraction)} for fraction in (0.1, 0.2, 0.5, 1.0)}
    assert kept[0.1] < kept[0.2] < kept[0.5] < kept[1.0] == set(keys)
    for fraction, found in kept.items():
        assert abs(len(found) - fraction * NUM_ROWS) <= 5 * (NUM_ROWS * fraction * (1 - fraction)) ** 0.5


def test_a_fraction_is_independent_of_the_split() -> None:
    keys = [formats.content_key(row) for row in rows()]
    train = [key for key in keys if splits.in_share(key, 0, 0.0, 0.5)]
    kept = sum(splits.in_fraction(key, 0.5) for key in train)
    assert abs(kept - len(train) / 2) <= 5 * (len(train) / 4) ** 0.5


def test_positions_lie_in_the_unit_interval_and_are_what_they_were() -> None:
    places = [splits.position(str(number), 0, "split") for number in range(5_000)]
    assert all(0 <= place < 1 for place in places)
    # Written down once: another value would move rows between the splits of every existing dataset.
    assert places[:2] == pytest.approx([0.7051496787886143, 0.1990652974679421], abs=0)
