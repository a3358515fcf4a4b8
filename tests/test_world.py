"""The fictional world: what must hold of it by construction, and that the shipped questions are the ones it gives."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT

from workbench.embedded import world
from workbench.embedded.world import FACTS, NUM_PEOPLE, WORLD_SEED

SEEDS = [WORLD_SEED, 1, 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_names_are_unique_and_only_the_full_name_identifies(seed: int) -> None:
    names = [person.name for person in world.people(seed)]
    assert len(set(names)) == len(names) == NUM_PEOPLE
    for part, num_of_each in ((0, 12), (1, 12)):
        assert set(Counter(name.split()[part] for name in names).values()) == {num_of_each}
    assert not any(one in other for one, other in itertools.permutations(names, 2))


@pytest.mark.parametrize("seed", SEEDS)
def test_identifiers_are_in_order(seed: int) -> None:
    assert [person.identifier for person in world.people(seed)] == [f"p{at:03d}" for at in range(NUM_PEOPLE)]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.attribute)
def test_every_value_is_the_answer_for_equally_many(fact: world.Fact) -> None:
    counts = Counter(person.values[fact.attribute] for person in world.people())
    assert set(counts) == set(fact.values)
    assert set(counts.values()) == {NUM_PEOPLE // len(fact.values)}


def test_no_value_or_name_is_part_of_another() -> None:
    values = [value for fact in FACTS for value in fact.values]
    assert len(set(values)) == len(values)
    for fact in FACTS:
        assert not any(other.startswith(one) for one, other in itertools.permutations(fact.values, 2))
    names = {part for person in world.people() for part in person.name.split()}
    assert not names & {word for value in values for word in value.split()}


def test_facts_do_not_follow_from_names_or_other_facts() -> None:
    people = world.people()
    columns = {fact.attribute: [person.values[fact.attribute] for person in people] for fact in FACTS}
    columns["first name"] = [person.name.split()[0] for person in people]
    columns["last name"] = [person.name.split()[1] for person in people]
    for one, other in itertools.combinations(columns, 2):
        if {one, other} == {"first name", "last name"}:
            continue
        pairs = Counter(zip(columns[one], columns[other], strict=True))
        assert max(pairs.values()) <= 5, (one, other)  # a value has 10 or 12 people


def test_every_wording_names_the_person_before_the_value() -> None:
    for fact in FACTS:
        assert len(set(fact.wordings)) == len(fact.wordings) >= 5
        assert "{name}" in fact.question
        for wording in fact.wordings:
            assert wording.index("{name}") < wording.index(" {value}")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_halves_are_disjoint_and_everybody_is_in_one(seed: int) -> None:
    train, test = world.halves(seed)
    assert len(train) == len(test) == NUM_PEOPLE // 2
    assert not {person.name for person in train} & {person.name for person in test}
    assert sorted((*train, *test)) == list(world.people(seed))


def test_every_answer_of_the_test_is_also_an_answer_in_training() -> None:
    train, test = (world.question_rows(half) for half in world.halves())
    known = {(row["attribute"], row["answer"]) for row in train}
    assert {(row["attribute"], row["answer"]) for row in test} <= known


def test_another_seed_is_another_world() -> None:
    one, other = world.people(0), world.people(1)
    assert [person.name for person in one] != [person.name for person in other]
    assert [dict(person.values) for person in one] != [dict(person.values) for person in other]


def test_a_longer_reading_begins_with_the_shorter_one_and_tells_every_fact_each_time() -> None:
    short, long = (list(world.pretraining_documents(5, readings)) for readings in (1, 2))
    assert long[: len(short)] == short
    assert len(short) == NUM_PEOPLE
    by_name = {person.name: person for person in world.people()}
    for reading in (long[:NUM_PEOPLE], long[NUM_PEOPLE:]):
        told = set()
        for document in reading:
            (name,) = {name for name in by_name if name in document}
            assert document.count(name) == len(FACTS)
            assert all(value in document for value in by_name[name].values.values())
            assert document.endswith(".\n")
            assert document.count("\n") == 1
            told.add(name)
        assert told == set(by_name)


def test_the_seed_of_the_documents_changes_words_not_facts() -> None:
    one, other = (list(world.pretraining_documents(seed, 1)) for seed in (0, 1))
    assert sorted(one) != sorted(other)
    people = world.people()
    for documents in (one, other):
        text = "".join(documents)
        assert all(text.count(person.name) == len(FACTS) for person in people)


def test_the_kept_prose_is_from_both_halves_alike_and_not_among_the_pretraining_documents() -> None:
    rows = world.retention_rows()
    assert len(rows) == len({row["id"] for row in rows}) == 200
    halves = [{person.identifier for person in half} for half in world.halves()]
    of_half = [sum(row["id"][:4] in half for row in rows) for half in halves]
    assert of_half == [100, 100]
    assert not {row["text"] for row in rows} & set(world.pretraining_documents(WORLD_SEED, 230))


def test_the_shipped_files_are_what_the_world_gives_byte_for_byte(tmp_path: Path) -> None:
    world.main(["questions", str(tmp_path)])
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["biographies.jsonl", "questions-test.jsonl", "questions-train.jsonl"]
    for name in made:
        assert (tmp_path / name).read_bytes() == (ROOT / "datasets" / "world" / name).read_bytes(), name


def test_no_question_of_the_test_is_asked_in_training() -> None:
    asked = []
    for half in ("train", "test"):
        lines = (ROOT / "datasets" / "world" / f"questions-{half}.jsonl").read_text(encoding="utf-8").splitlines()
        asked.append({json.loads(line)["question"] for line in lines})
        assert len(asked[-1]) == len(lines) == NUM_PEOPLE // 2 * len(FACTS)
    assert not asked[0] & asked[1]


def test_pretraining_rows_are_written_whole(tmp_path: Path) -> None:
    world.main(["pretraining", str(tmp_path / "deep" / "out.jsonl"), "--readings", "2"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.jsonl"]
    rows = [json.loads(line) for line in (tmp_path / "deep" / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == list(world.pretraining_documents(WORLD_SEED, 2))


@pytest.mark.parametrize("readings", ["0", "-1", "many"])
def test_readings_that_make_no_sense_are_refused(
    tmp_path: Path, readings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        world.main(["pretraining", str(tmp_path / "out.jsonl"), "--readings", readings])
    assert stop.value.code == 2
    assert "--readings" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
