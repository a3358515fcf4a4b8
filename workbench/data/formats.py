"""Raw rows of any format -> examples: a conversation, a preference pair or a text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench import documents, fingerprint
from workbench.catalog.cards import COLUMNS, Card
from workbench.data import readers, splits
from workbench.data.readers import RawRow
from workbench.errors import DataError, Problem

ROLES = ("system", "user", "assistant")
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_SHAREGPT = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str

    def as_words(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Example:
    """One usable row. Of a preference pair, `messages` is the prompt."""

    where: str
    id: str
    cluster: str
    values: Mapping[str, Any]
    """The raw row."""
    messages: tuple[Message, ...] = ()
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    text: str = ""

    def prompt_text(self) -> str:
        """What the model is asked (or the document): what contamination is looked for in."""
        if self.text:
            return self.text
        asked = self.messages if self.chosen else self.messages[: last_answer(self.messages)]
        return "\n".join(message.content for message in asked)


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    where: str
    reason: str


class UnusableError(Exception):
    """Why a row cannot be used (becomes a BadRow)."""


def examples(paths: list[Path], card: Card, split: str) -> Iterator[Example | BadRow]:
    """The rows of a split, in file order, each as an example or as a bad row."""
    chosen = card.splits.get(split)
    share = chosen.share if chosen else None
    seen: dict[str, int] = {}
    for path in paths:
        for raw in readers.read(path, card):
            if raw.problem:
                yield BadRow(raw.where, raw.problem)
                continue
            key = content_key(raw.values)
            if share is not None and not splits.in_share(key, card.split_seed, *share):
                continue
            try:
                example = _example(raw, card, key)
            except UnusableError as error:
                yield BadRow(raw.where, str(error))
                continue
            yield replace(example, id=_distinct(example.id, seen))


def _distinct(name: str, seen: dict[str, int]) -> str:
    """The name itself the first time, then name#2, name#3, ..., never one that another row has."""
    chosen = name
    while chosen in seen:
        seen[name] += 1
        chosen = f"{name}#{seen[name]}"
    seen[chosen] = 1
    return chosen


def content_key(values: Mapping[str, Any]) -> str:
    """The content of a row as a hash: what its split, its place in a subset and its name depend on."""
    return fingerprint.of_text(repr(sorted((key, repr(value)) for key, value in values.items())))


def _example(raw: RawRow, card: Card, key: str) -> Example:
    columns = {name: _column(raw.values, card, name) for name in COLUMNS[card.format]}
    name = str(_plain_column(raw.values, card.id)) if card.id else key[:16]
    cluster = str(_plain_column(raw.values, card.cluster)) if card.cluster else name
    made: dict[str, Any] = {}
    match card.format:
        case "text":
            made["text"] = _text(columns["text"], "text")
        case "messages":
            made["messages"] = _conversation(columns["messages"], "role", "content", {role: role for role in ROLES})
        case "sharegpt":
            made["messages"] = _conversation(columns["conversations"], "from", "value", _SHAREGPT)
        case "prompt_completion":
            turns = (_text(columns["prompt"], "prompt"), _text(columns["completion"], "completion"))
            made["messages"] = (Message("user", turns[0]), Message("assistant", turns[1]))
        case "instruction":
            made["messages"] = _instruction(columns)
        case "preference":
            made |= _preference(columns)
    return Example(where=raw.where, id=name, cluster=cluster, values=raw.values, **made)


def _column(values: Mapping[str, Any], card: Card, ours: str) -> Any:
    theirs = card.columns.get(ours, ours)
    if "{" in theirs:
        try:
            return theirs.format_map({key: "" if value is None else value for key, value in values.items()})
        except KeyError as error:
            advice = documents.did_you_mean(str(error.args[0]), [str(key) for key in values])
            raise UnusableError(f"the pattern {theirs!r} needs a column {error.args[0]!r}; {advice}") from None
        except (ValueError, IndexError, AttributeError, TypeError) as error:
            raise UnusableError(f"the pattern {theirs!r} cannot be filled: {error}") from None
    turns = ours == "prompt" and isinstance(values.get(card.columns.get("chosen", "chosen")), list)
    if theirs not in values and (ours == "input" or turns):
        return ""
    return _plain_column(values, theirs)


def _plain_column(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise UnusableError(f"has no column {name!r}; {documents.did_you_mean(name, [str(key) for key in values])}")
    return values[name]


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise UnusableError(f"{column} is {documents.shown(value)}, text is needed")
    if not value.strip():
        raise UnusableError(f"{column} is empty")
    if _HALF_A_PAIR.search(value):
        raise UnusableError(f"{column} holds half of a surrogate pair, which is no character")
    return value


def _instruction(columns: Mapping[str, Any]) -> tuple[Message, ...]:
    asked = _text(columns["instruction"], "instruction")
    if columns["input"]:
        asked += "\n\n" + _text(columns["input"], "input")
    return (Message("user", asked + "\n"), Message("assistant", _text(columns["output"], "output")))


def _conversation(value: Any, role_key: str, content_key: str, roles: Mapping[str, str]) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UnusableError(f"the conversation is {documents.shown(value)}, a list of turns is needed")
    messages = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, Mapping) or role_key not in turn or content_key not in turn:
            raise UnusableError(f"turn {number} has no {role_key!r} and {content_key!r}")
        if str(turn[role_key]) not in roles:
            advice = documents.did_you_mean(str(turn[role_key]), list(roles))
            raise UnusableError(f"turn {number} has the unknown role {turn[role_key]!r}; {advice}")
        content = _text(turn[content_key], f"turn {number}")
        role = roles[turn[role_key]]
        messages.append(Message(role, content if role == "assistant" else content.rstrip("\n") + "\n"))
    if messages[-1].role != "assistant":
        raise UnusableError(f"ends with a {messages[-1].role} turn, an assistant turn is needed")
    for before, after in itertools.pairwise(messages):
        if before.role == after.role:
            raise UnusableError(f"has two {before.role} turns in a row")
    return tuple(messages)


def _preference(columns: Mapping[str, Any]) -> dict[str, tuple[Message, ...]]:
    """Three texts, or chosen and rejected as conversations: whole ones, or the turns after a prompt of turns."""
    prompt, chosen, rejected = columns["prompt"], columns["chosen"], columns["rejected"]
    if chosen == rejected:
        raise UnusableError("chosen and rejected are the same")
    if isinstance(chosen, list) and isinstance(rejected, list):
        roles = {role: role for role in ROLES}
        before = prompt if isinstance(prompt, list) and chosen[: len(prompt)] != prompt else []
        one = _conversation([*before, *chosen], "role", "content", roles)
        other = _conversation([*before, *rejected], "role", "content", roles)
        if one[:-1] != other[:-1]:
            raise UnusableError("chosen and rejected differ before their last turn")
        if len(one) < 2:
            raise UnusableError("chosen has no turn before the answer, and prompt is no list of turns")
        return {"messages": one[:-1], "chosen": one[-1:], "rejected": other[-1:]}
    return {
        "messages": (Message("user", _text(columns["prompt"], "prompt")),),
        "chosen": (Message("assistant", _text(chosen, "chosen")),),
        "rejected": (Message("assistant", _text(rejected, "rejected")),),
    }


def last_answer(messages: tuple[Message, ...]) -> int:
    """The position of the last assistant turn."""
    return max(at for at, message in enumerate(messages) if message.role == "assistant")


def refuse_above(bad: list[BadRow], num_bad: int, max_dropped: int, place: str) -> None:
    """Raise when more rows are unusable than the recipe allows, naming the first ones.

    Raises:
        DataError: `num_bad` exceeds `max_dropped`.
    """
    if num_bad <= max_dropped:
        return
    problems = [Problem(row.where, row.reason) for row in bad[:10]]
    more = f"{num_bad} rows cannot be used" + (f" (the first {len(problems)} stand above)" if num_bad > 10 else "")
    problems.append(Problem(place, more, f"mend them, or allow so many to be left out: data.max_dropped: {num_bad}"))
    raise DataError(problems)
