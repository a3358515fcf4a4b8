"""A small fictional world as text: what the embedded base is pretrained on, and questions about it.

The design is that of Allen-Zhu and Li, "Physics of Language Models: Part 3.1, Knowledge Storage and Extraction"
(arXiv 2309.14316): biographies of many people in many wordings, then questions about some of the people, tested on
the others. Whoever answers about people that were never asked about has learnt to get at what the base knows; from the
questions alone that cannot be learnt, because nothing about a person follows from anything but the biographies.

Everything is drawn, so that this holds by construction: names are combined so that only the full name identifies, and
each value of a fact belongs to equally many people, independently of the name and of the other facts. Guessing an
answer is therefore right once in 25 or 30, whichever value is guessed.

Only `Random.random()` is called, on one generator a purpose: it is the one method whose sequence Python promises to
keep between versions, and one purpose more or less leaves the others' draws as they were.

    python -m workbench.embedded.world pretraining OUT.jsonl --readings 230
    python -m workbench.embedded.world questions OUT_DIR
"""

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

WORLD_SEED = 0
"""Settles who lives in the shipped world, their facts, and who is asked about in training."""

NUM_PEOPLE = 300
NUM_RETENTION_PEOPLE = 100
NUM_RETENTION_DOCUMENTS_PER_PERSON = 2

Element = TypeVar("Element")
Row = dict[str, str]


@dataclass(frozen=True)
class Fact:
    """One attribute that every person has: its possible values, and how to tell of it and ask for it.

    The number of values divides the number of people, so that each is the answer for equally many. In a wording the
    value comes after the name, because next-token prediction stores a value under what stands before it, and after a
    space, so that a byte-level tokenizer cuts it there as it cuts it in an answer. No value is a prefix of another:
    an answer that goes on too long, or stops too early, is never some other answer.
    """

    attribute: str
    question: str
    wordings: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, order=True)
class Person:
    """`identifier` is p000 to p299 and settles the order; `values` has one value for each attribute."""

    identifier: str
    name: str
    values: Mapping[str, str] = field(compare=False)


def _listed(text: str) -> tuple[str, ...]:
    """What stands between the semicolons, wherever the lines break."""
    return tuple(" ".join(part.split()) for part in text.split(";"))


FIRST_NAMES = _listed(
    """Avrel; Benko; Cirra; Dovan; Elsim; Fenwa; Galdo; Hespa; Ivrin; Jundo; Kelvo; Lumis; Mardo; Nessil; Orvik; Pellan;
    Quoro; Rindva; Sorvi; Tavik; Ulmri; Venka; Wexil; Yarro; Zimbro"""
)
LAST_NAMES = _listed(
    """Abrund; Brasko; Crevin; Dunlath; Ettrin; Fardel; Grontel; Hurvane; Ixmoor; Jastrel; Kordrey; Lostrum; Marwen;
    Nubrick; Oskrel; Prandin; Quilst; Restig; Skelvar; Thrum; Ustrom; Vorlick; Wendrat; Yolkin; Zarbeck"""
)

FACTS = (
    Fact(
        attribute="birthplace",
        question="Where was {name} born?",
        wordings=_listed(
            """{name} was born in {value}; {name} comes from {value} by birth; {name} is a native of {value};
            The birthplace of {name} is {value}; The town where {name} was born is {value};
            For {name}, life began in {value}"""
        ),
        values=_listed(
            """Antrosk; Belquay; Corvessa; Drimholt; Eskarra; Felmarsh; Gorvand; Hollumere; Ibbenfold; Jarrowick;
            Kestrigan; Lundrey; Morvanne; Nettelsby; Ostrivar; Pelgroth; Quenmoor; Rudwater; Silvrane; Tambrilly;
            Umbrook; Vantossa; Wickensea; Yarnholt; Zelphora; Bramlock; Cindermarl; Dapplewick; Frostney; Glimmerby"""
        ),
    ),
    Fact(
        attribute="employer",
        question="Which company does {name} work for?",
        wordings=_listed(
            """{name} works for {value}; {name} is employed by {value}; {name} has a job at {value};
            {name} is paid by {value} each month; The employer of {name} is {value};
            The company that employs {name} is {value}"""
        ),
        values=_listed(
            """Ambrix Works; Bolvenna Works; Crundle Works; Dravik Works; Fennimax Works; Gostrand Mills;
            Hexamere Mills; Jolvert Mills; Kruvane Mills; Lorbeck Mills; Mintrosk Freight; Norvimar Freight;
            Opprel Freight; Pestrona Freight; Quadrinel Freight; Rimbolt Supply; Sondrevik Supply; Trelloway Supply;
            Unvistra Supply; Vextorin Supply; Wolmarket Trading; Yestrum Trading; Zandovar Trading; Burlixen Trading;
            Corbandel Trading"""
        ),
    ),
    Fact(
        attribute="trade",
        question="What is the trade of {name}?",
        wordings=_listed(
            """{name} is a {value}; {name} works as a {value}; {name} earns a living as a {value};
            {name} became a {value} years ago; By trade, {name} is a {value};
            The trade of {name} is that of a {value}"""
        ),
        # None starts with a vowel: the article is the same for all, and so tells nothing about the value.
        values=_listed(
            """baker; barber; blacksmith; bookbinder; butcher; carpenter; chandler; cobbler; cooper; dyer; farrier;
            fishmonger; florist; gardener; glazier; goldsmith; joiner; locksmith; mason; miller; plumber; potter;
            printer; roofer; saddler; sailmaker; surveyor; tailor; tanner; weaver"""
        ),
    ),
    Fact(
        attribute="hobby",
        question="What is the hobby of {name}?",
        wordings=_listed(
            """{name} enjoys {value}; {name} is fond of {value}; {name} likes {value} best of all;
            {name} spends free time on {value}; For fun, {name} turns to {value}; The hobby of {name} is {value}"""
        ),
        values=_listed(
            """archery; astronomy; backgammon; beekeeping; birdwatching; calligraphy; canoeing; chess; climbing;
            cricket; croquet; cycling; dancing; embroidery; fencing; fishing; hiking; juggling; kayaking; knitting;
            origami; painting; quilting; rowing; sculpting; singing; skating; sketching; surfing; yodelling"""
        ),
    ),
    Fact(
        attribute="college",
        question="Which college did {name} attend?",
        wordings=_listed(
            """{name} studied at {value}; {name} graduated from {value}; {name} holds a degree from {value};
            {name} was at {value} as a student; The college of {name} was {value};
            As a student, {name} attended {value}"""
        ),
        values=_listed(
            """Aldermoss College; Brackwater College; Clovenmarsh College; Dunsparrow College; Elmsorrow College;
            Fallowick College; Greyfinch College; Harkenfold College; Ivorstone College; Junivale Institute;
            Kitterby Institute; Larchgale Institute; Mossgrave Institute; Northquill Institute; Oakenbar Institute;
            Pinderly Institute; Quarrelby Institute; Ravenmilk Academy; Saltharrow Academy; Thistlebeck Academy;
            Umberlane Academy; Vinderholt Academy; Wrensdown Academy; Yewhollow Academy; Zephyrdale Academy"""
        ),
    ),
)


def people(seed: int = WORLD_SEED) -> tuple[Person, ...]:
    """The 300 people of the world of this seed, in the order of their identifiers."""
    names = _shuffled(_full_names(seed), _generator("order of the people", seed))
    columns = {}
    for fact in FACTS:
        balanced = fact.values * (NUM_PEOPLE // len(fact.values))
        columns[fact.attribute] = _shuffled(balanced, _generator(f"values of {fact.attribute}", seed))
    return tuple(
        Person(f"p{index:03d}", name, {attribute: column[index] for attribute, column in columns.items()})
        for index, name in enumerate(names)
    )


def halves(seed: int = WORLD_SEED) -> tuple[tuple[Person, ...], tuple[Person, ...]]:
    """The people to ask about in training and the people to ask about in the test, 150 each; nobody is in both."""
    mixed = _shuffled(people(seed), _generator("halves", seed))
    middle = len(mixed) // 2
    return tuple(sorted(mixed[:middle])), tuple(sorted(mixed[middle:]))


def pretraining_documents(seed: int, readings: int) -> Iterator[str]:
    """`readings` biographies of each person of the shipped world: all the people once in random order, then all again.

    The seed draws wordings and orders only, never the people, so that the shipped questions fit any base made of these
    documents. A document ends in a line's end. A longer reading starts with the shorter one's documents.
    """
    draw = _generator("pretraining", seed)
    population = people()
    for _ in range(readings):
        for person in _shuffled(population, draw):
            yield _biography(person, draw)


def question_rows(asked: Iterable[Person]) -> list[Row]:
    """One question for each person and fact; the answer is the value as the biographies write it."""
    return [
        {
            "id": f"{person.identifier}-{fact.attribute}",
            "person": person.name,
            "attribute": fact.attribute,
            "question": fact.question.format(name=person.name),
            "answer": person.values[fact.attribute],
        }
        for person in asked
        for fact in FACTS
    ]


def retention_rows(seed: int = WORLD_SEED) -> list[Row]:
    """Biographies drawn apart from the pretraining documents, to score what a training made the base forget.

    As many of the people are from the one half as from the other, so that the score favours neither.
    """
    draw = _generator("retention", seed)
    num_of_each_half = NUM_RETENTION_PEOPLE // 2
    chosen = [person for half in halves(seed) for person in _shuffled(half, draw)[:num_of_each_half]]
    return [
        {"id": f"{person.identifier}-biography-{number}", "text": _biography(person, draw)}
        for person in sorted(chosen)
        for number in range(NUM_RETENTION_DOCUMENTS_PER_PERSON)
    ]


def _full_names(seed: int) -> list[str]:
    """Each first name with 12 last names and each last name with 12 first names, so that neither says more of a person.

    Going round a circle of last names by the same steps from each first name gives exactly that, and no pair twice.
    """
    draw = _generator("names", seed)
    last_names = _shuffled(LAST_NAMES, draw)
    steps = _shuffled(range(len(last_names)), draw)[: NUM_PEOPLE // len(FIRST_NAMES)]
    return [
        f"{first} {last_names[(place + step) % len(last_names)]}"
        for place, first in enumerate(FIRST_NAMES)
        for step in steps
    ]


def _biography(person: Person, draw: Random) -> str:
    """The person's five facts in random order, each in one of its wordings; the full name is in every sentence."""
    sentences = [
        fact.wordings[_below(len(fact.wordings), draw)].format(name=person.name, value=person.values[fact.attribute])
        for fact in _shuffled(FACTS, draw)
    ]
    return ". ".join(sentences) + ".\n"


def _generator(purpose: str, seed: int) -> Random:
    """Seeded by a text, of which Python takes the SHA-512: the purposes of one seed have no draws in common."""
    return Random(f"{purpose} {seed}")


def _below(limit: int, draw: Random) -> int:
    return int(draw.random() * limit)


def _shuffled(elements: Sequence[Element], draw: Random) -> list[Element]:
    """Fisher and Yates, written out because `Random.shuffle` may change between versions of Python."""
    result = list(elements)
    for last in range(len(result) - 1, 0, -1):
        other = _below(last + 1, draw)
        result[last], result[other] = result[other], result[last]
    return result


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    """The rows as JSONL under a temporary name, then renamed: a file of this name is always a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pretraining documents, or the questions and the retention prose."""
    parser = argparse.ArgumentParser(prog="python -m workbench.embedded.world", description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    pretraining = verbs.add_parser("pretraining", help="biographies to pretrain on, rows of {text}")
    pretraining.add_argument("out", type=Path, metavar="OUT.jsonl")
    pretraining.add_argument("--readings", type=int, required=True, help="biographies of each person, 1 or more")
    questions = verbs.add_parser("questions", help="questions-train.jsonl, questions-test.jsonl and biographies.jsonl")
    questions.add_argument("out", type=Path, metavar="OUT_DIR")
    parsed = parser.parse_args(arguments)
    if parsed.verb == "pretraining":
        if parsed.readings < 1:
            parser.error(f"--readings is {parsed.readings}; ask for 1 or more")
        documents = pretraining_documents(WORLD_SEED, parsed.readings)
        _write_rows(parsed.out, ({"text": document} for document in documents))
    else:
        train, test = halves()
        _write_rows(parsed.out / "questions-train.jsonl", question_rows(train))
        _write_rows(parsed.out / "questions-test.jsonl", question_rows(test))
        _write_rows(parsed.out / "biographies.jsonl", retention_rows())


if __name__ == "__main__":
    main()
