"""The names of all fields of a recipe, as they are written with dots."""

from __future__ import annotations

from workbench.documents import models_in
from workbench.recipe.schema import Recipe


def field_names() -> list[str]:
    """Sections and their fields, of every method and objective."""
    names = []
    for name, info in Recipe.model_fields.items():
        names.append(name)
        names += [f"{name}.{inner}" for model in models_in(info.annotation) for inner in model.model_fields]
    return list(dict.fromkeys(names))
