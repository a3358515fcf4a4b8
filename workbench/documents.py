"""Hand-written YAML -> a checked model, with every problem named by file and line.

The YAML is read by the rules that people expect today (YAML 1.2): `2e-4` is a number, `no` is a word, a date is text,
and a key that stands twice is an error. Models are pydantic; their errors are turned into our Problems here.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from workbench.errors import Problem, RecipeError

Key = str | int
Trail = tuple[Key, ...]
Model = TypeVar("Model", bound=BaseModel)

_MOST_NODES = 100_000
"""A hand-written file has far fewer; aliases of aliases (a "billion laughs") reach it at once."""

_STANDARD_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]{1,100}")  # Python refuses to convert very long ones
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())
}


@dataclass(frozen=True)
class Document:
    """A YAML file's value, with the line of each key."""

    name: str
    """How the file is named in messages."""
    value: Any
    places: Mapping[Trail, str] = field(default_factory=dict)
    """`file:line` by trail of keys."""

    def where(self, trail: Sequence[Key]) -> str:
        """`file:line dotted.path`, with the line of the nearest known ancestor of a trail."""
        ancestors = (tuple(trail[:length]) for length in range(len(trail), -1, -1))
        place = next((self.places[known] for known in ancestors if known in self.places), self.name)
        return f"{place} {dotted(trail)}".rstrip()


def dotted(trail: Sequence[Key]) -> str:
    """('tasks', 0, 'name') -> 'tasks[0].name'."""
    text = ""
    for key in trail:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def parse_scalar(text: str) -> Any:
    """A plain YAML 1.2 scalar: null, true/false, integer, float or text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def read(path: Path, name: str | None = None) -> Document:
    """Read a YAML file.

    Raises:
        RecipeError: the file is missing, is not UTF-8 text or not YAML, is empty, or holds a key twice.
    """
    shown = name or display(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(Problem(shown, "there is no such file", _near_files(path))) from None
    except IsADirectoryError:
        raise RecipeError(Problem(shown, "is a directory, a YAML file is needed")) from None
    except UnicodeDecodeError as error:
        raise RecipeError(Problem(shown, f"is not UTF-8 text (byte {error.start}): is it a binary file?")) from None
    except OSError as error:
        raise RecipeError(Problem(shown, f"cannot be read: {error.strerror}")) from None
    return parse(text, shown)


def parse(text: str, name: str) -> Document:
    """Parse YAML text; see `read`."""
    builder = _Builder(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = builder.build(node, ()) if node is not None else None
    except RecursionError:  # brackets in brackets; both walks go down by calling themselves
        raise RecipeError(Problem(name, "is nested too deeply")) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        message = getattr(error, "problem", None) or str(error)
        raise RecipeError(Problem(f"{name}{line}", f"is not YAML: {message}")) from None
    if node is None:
        raise RecipeError(Problem(name, "is empty", "`workbench explain recipe` (or study, profile) lists its fields"))
    if builder.problems:
        raise RecipeError(builder.problems)
    return Document(name, value, builder.places)


class _Builder:
    """Walks YAML nodes once: values, lines, and keys that stand twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[Trail, str] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._nodes = 0

    def build(self, node: yaml.Node, trail: Trail) -> Any:
        self._nodes += 1
        if self._nodes > _MOST_NODES or id(node) in self._open:
            raise RecipeError(Problem(f"{self.name}:{node.start_mark.line + 1}", "aliases repeat without end"))
        self.places.setdefault(trail, f"{self.name}:{node.start_mark.line + 1}")
        if not node.tag.startswith(_STANDARD_TAG) or "python" in node.tag:
            where = f"{self.name}:{node.start_mark.line + 1} {dotted(trail)}"
            self.problems.append(Problem(where, f"has the tag {node.tag}", "write the value without a tag"))
        if isinstance(node, yaml.ScalarNode):
            return parse_scalar(node.value) if node.style is None else node.value
        self._open.add(id(node))
        value = self._mapping(node, trail) if isinstance(node, yaml.MappingNode) else self._sequence(node, trail)
        self._open.discard(id(node))
        return value

    def _sequence(self, node: yaml.Node, trail: Trail) -> list[Any]:
        return [self.build(item, (*trail, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, trail: Trail) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if not key:
                self.problems.append(Problem(f"{self.name}:{line}", "a key must be a word"))
            elif key in mapping:
                first = self.places[(*trail, key)]
                where = f"{self.name}:{line} {dotted((*trail, key))}"
                self.problems.append(Problem(where, f"stands twice (first at {first})", "remove one of the two"))
            else:
                self.places[(*trail, key)] = f"{self.name}:{line}"
                mapping[key] = self.build(value_node, (*trail, key))
        return mapping


def check(model: type[Model], document: Document) -> Model:
    """The document as a model.

    Raises:
        RecipeError: with every problem of the document at once.
    """
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        raise RecipeError(problems_of(error, model, document)) from None


def problems_of(error: ValidationError, model: type[BaseModel], document: Document) -> list[Problem]:
    """pydantic's errors in our words: file:line, what was found, what is allowed, a did-you-mean."""
    problems: list[Problem] = []
    alternatives: dict[Trail, tuple[Trail, int]] = {}
    for item in error.errors():
        trail, owner, choice = _follow(item["loc"], model, document.value)
        found, advice = _words(dict(item), trail, owner)
        problem = Problem(document.where(trail), found, advice)
        if choice is None:
            problems.append(problem)
        elif choice not in alternatives:
            alternatives[choice] = trail, len(problems)
            problems.append(problem)
        else:  # one mistake, told once for each alternative of a union: the one that got furthest knows best
            deepest, at = alternatives[choice]
            if len(trail) > len(deepest):
                alternatives[choice], problems[at] = (trail, at), problem
            elif trail == deepest and advice not in problems[at].do:
                problems[at] = replace(problems[at], do=f"{problems[at].do}; or {advice}")
    return problems


def _follow(
    loc: Sequence[Key], model: type[BaseModel], value: Any
) -> tuple[Trail, type[BaseModel] | None, Trail | None]:
    """The trail of an error in the file, the model that the last key was looked up in, and the trail of the union that
    it is one alternative's complaint about (None: of no such union).

    pydantic puts what the file has no key for into the location: the tag of a union (`method.lora.rank`), the name of
    an alternative (`method.lora.targets.list[str]`).
    """
    trail: list[Key] = []
    owner: type[BaseModel] | None = model
    choice: Trail | None = None
    candidates: list[type[BaseModel]] = [model]
    free_keys = False
    for key in loc:
        tagged = [c for c in candidates if _tag(c) == key] if len(candidates) > 1 else []
        if isinstance(value, list) and isinstance(key, int):
            trail.append(key)
            value = value[key] if key < len(value) else None
        elif free_keys and isinstance(value, Mapping):
            trail.append(key)
            value, free_keys = value.get(key), False
        elif tagged:
            candidates = tagged
        elif isinstance(value, Mapping) and (key in value or any(key in c.model_fields for c in candidates)):
            owner = candidates[0] if candidates else None
            trail.append(key)
            value = value.get(key)
            info = owner.model_fields.get(str(key)) if owner else None
            candidates = models_in(info.annotation) if info else []
            free_keys = info is not None and get_origin(info.annotation) is dict
        else:
            choice = tuple(trail)
    return tuple(trail), owner, choice


def _tag(model: type[BaseModel]) -> str | None:
    info = model.model_fields.get("name")
    return info.default if info and isinstance(info.default, str) else None


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type holds: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def _words(item: dict[str, Any], trail: Trail, owner: type[BaseModel] | None) -> tuple[str, str]:
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "extra_forbidden":
        allowed = list(owner.model_fields) if owner else []
        return "unknown field", did_you_mean(str(trail[-1]), allowed)
    if kind == "missing":
        return "is needed and not there", ""
    if kind in ("literal_error", "union_tag_invalid"):
        allowed = re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags")))
        tag = value.get("name") if isinstance(value, Mapping) else value
        return f"found {shown(tag)}", did_you_mean(str(tag), allowed)
    if kind == "union_tag_not_found":
        return "says no name", "write `name: ...` as the first field of the section"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"found {shown(value)}", "a section with fields is needed"
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "string_pattern_mismatch":
        return f"found {shown(value)}", f"does not fit the pattern {context['pattern']}"
    if kind in ("too_short", "too_long"):
        limit = context.get("min_length", context.get("max_length"))
        return f"found {shown(value)}", f"{'at least' if kind == 'too_short' else 'at most'} {limit} are needed"
    return f"found {shown(value)}", re.sub("^(Input|String|List) ", "", item["msg"])


def shown(value: Any) -> str:
    """A value as it is quoted in a message, cut to a readable length, with its type where that matters."""
    kinds = {str: "text", bool: "true/false", int: "whole number", float: "number", list: "list", dict: "section"}
    kind = kinds.get(type(value))
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return "nothing" if value is None else f"{text} ({kind})" if kind else text


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """The advice for a word that is none of the allowed ones."""
    if not allowed:
        return "nothing is allowed here"
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    guess = f"did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(allowed[:24]) + (", ..." if len(allowed) > 24 else "")
    return f"{guess}allowed: {listed}"


def display(path: Path) -> str:
    """A path as a person would type it here."""
    whole = path.absolute()
    short = Path(os.path.normpath(whole))  # without the .. of a card's own paths, where no link is on the way
    whole = short if short.resolve() == whole.resolve() else whole
    try:
        return str(whole.relative_to(Path.cwd()))
    except ValueError:
        return str(whole) if path.is_absolute() else str(path)


def _near_files(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {display(folder)} either"
    names = sorted(p.name for p in folder.glob("*.y*ml"))
    return did_you_mean(path.name, names) if names else f"{display(folder)} holds no YAML file"
