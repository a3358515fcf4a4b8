"""The names of all fields of a recipe, as they are written with dots."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from workbench.documents import models_in
from workbench.recipe.schema import Recipe


def field_names() -> list[str]:
    """Sections and their fields, of every method and objective."""
    return list(dict.fromkeys(_under(Recipe, "")))


def _under(section: type[BaseModel], place: str) -> Iterator[str]:
    for name, info in section.model_fields.items():
        yield f"{place}{name}"
        for model in models_in(info.annotation):
            yield from _under(model, f"{place}{name}.")
