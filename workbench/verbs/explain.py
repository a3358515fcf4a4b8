"""explain and schema: the schema's own text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.console import Console

from workbench import documents
from workbench.errors import Problem, RecipeError
from workbench.launch.profiles import Container, Profile
from workbench.recipe.fields import field_names
from workbench.recipe.load import NAMED
from workbench.recipe.schema import Recipe
from workbench.recipe.section import Section
from workbench.study.schema import Arm, Study
from workbench.verbs import terminal

_FILES: dict[str, dict[str, type[BaseModel]]] = {
    "recipe": {"recipe": Recipe},
    "study": {"study": Study, "an arm": Arm},
    "profile": {"profile": Profile, "container": Container},
}
"""What a person writes, by what it is called."""


def schema() -> None:
    """Print the JSON schema."""
    print(json.dumps(json_schema(), indent=2))


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file: the model's, with `extends` and the one-word short forms."""
    made = Recipe.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "workbench recipe"
    properties = made["properties"]
    for section in NAMED:
        properties[section] = {
            "description": Recipe.model_fields[section].description or "",
            "anyOf": [{"type": "string"}, _without(properties[section], "description")],
        }
    properties["extends"] = {"type": "string", "description": "Another recipe file that this one starts from."}
    made["required"] = []  # an extending recipe may leave out what the other one says
    for definition in made["$defs"].values():
        definition.pop("required", None)
    schema: dict[str, Any] = _any_of(made)
    return schema


def _any_of(value: Any) -> Any:
    """Every `oneOf` as `anyOf`: a section that leaves its name to the extended recipe fits several members."""
    if isinstance(value, list):
        return [_any_of(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    renamed = {"anyOf" if key == "oneOf" else key: inner for key, inner in value.items() if key != "discriminator"}
    return {key: _any_of(inner) for key, inner in renamed.items()}


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def explain(name: str) -> None:
    """Print what a field or section means."""
    console = terminal.console()
    if name in _FILES:
        for title, model in _FILES[name].items():
            _section(console, title, model)
        return
    parts = name.split(".")
    models: dict[str, type[BaseModel]] = {"study": Study, "profile": Profile}
    other = models.get(parts[0])
    found = list(_find(parts[1:], other, parts[0]) if other else _find(parts, Recipe, ""))
    if not found:
        advice = documents.did_you_mean(name, [*_FILES, *field_names()])
        raise RecipeError(Problem(name, "is no field of a recipe", advice))
    for place, owner, info in found:
        _field(console, place, owner, info)
        for model in documents.models_in(info.annotation):
            console.print()
            _section(console, f"{place} ({tag})" if (tag := _tag(model)) else place, model)


def _find(parts: list[str], owner: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel], FieldInfo]]:
    info = owner.model_fields.get(parts[0])
    if info is None:
        return
    here = f"{place}.{parts[0]}" if place else parts[0]
    if len(parts) == 1:
        yield here, owner, info
        return
    for model in documents.models_in(info.annotation):
        yield from _find(parts[1:], model, here)


def _tag(model: type[BaseModel]) -> str | None:
    info = model.model_fields.get("name")
    return info.default if info and isinstance(info.default, str) and info.default != "auto" else None


def _section(console: Console, title: str, model: type[BaseModel]) -> None:
    console.print(f"[bold]{title}[/bold]  {_one_line(model.__doc__)}")
    for name, info in model.model_fields.items():
        console.print(f"  [cyan]{name}[/cyan] ({_kind(info)}{_default(info)})  {_one_line(info.description)}")


def _field(console: Console, place: str, owner: type[BaseModel], info: FieldInfo) -> None:
    tag = _tag(owner) if owner is not Recipe and issubclass(owner, Section) else None
    of = f" of {tag}" if tag else ""
    console.print(f"[bold]{place}[/bold]{of} ({_kind(info)}{_default(info)})\n  {_one_line(info.description)}")


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true/false", dict: "section", Any: "any value"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "at least"}


def _kind(info: FieldInfo) -> str:
    return (_type(info.annotation) + _limits(info.metadata)).replace("[", r"\[")


def _type(annotation: Any) -> str:
    """A field's type in words: `plain | rslora`, `whole number`, `list of text`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin is Annotated:
        return _type(inner[0]) + _limits(inner[1:])
    if origin is dict:
        return f"name -> {_type(inner[1])}"
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is None:
        is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return (_tag(annotation) or "section") if is_section else _WORDS.get(annotation, "")
    return " | ".join(dict.fromkeys(_type(one) for one in inner if one is not type(None)))


def _limits(metadata: Iterable[Any]) -> str:
    found = [f"{sign} {getattr(limit, name)}" for limit in _flat(metadata) for name, sign in _SIGNS.items()
             if getattr(limit, name, None) is not None]  # fmt: skip
    return f", {', '.join(found)}" if found else ""


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for limit in metadata:
        yield from limit.metadata if isinstance(limit, FieldInfo) else [limit]


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        if info.default_factory is None:
            return "; needed"
        return ""
    return "" if isinstance(info.default, BaseModel) else f"; default {info.default}"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("[", r"\[")
