"""A resolved recipe with something set otherwise: what a plan holds beside what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from workbench.catalog.targets import TargetRow
from workbench.recipe import resolve, rules
from workbench.recipe.hardware import with_stated_facts
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import Recipe


def with_settings(resolved: Resolved, settings: Mapping[str, Any]) -> Resolved | None:
    """The recipe with some fields set otherwise (dotted names), names of bases, rows, suites and targets excepted;
    None where that makes it illegal."""
    values = resolved.recipe.model_dump(mode="json")
    for key, value in settings.items():
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[last] = {"name": value} if key in ("method", "objective") and isinstance(value, str) else value
    if "method.name" in settings:  # fields of another method fall away
        kept = {key.partition(".")[2] for key in settings if key.startswith("method.")}
        values["method"] = {key: value for key, value in values["method"].items() if key in kept}
    if any(key in settings for key in ("target.devices", "target.nodes")) and "target.sharding" not in settings:
        values["target"]["sharding"] = "auto"
    try:
        recipe = resolve.written_out(Recipe.model_validate(values, strict=False), resolved.base)
    except ValidationError:
        return None
    changed = resolved.model_copy(update={"recipe": recipe, "dtype": resolve.dtype_of(recipe, resolved.target)})
    return None if rules.broken(changed, "illegal") else changed


def on_target(resolved: Resolved, row: TargetRow) -> Resolved:
    """The same recipe made for another kind of device, whether or not that is legal there."""
    target = with_stated_facts(row, resolved.recipe.target)
    return resolved.model_copy(update={"target": target, "dtype": resolve.dtype_of(resolved.recipe, target)})


def on_base(resolved: Resolved, name: str) -> Resolved:
    """The same recipe on another base of the catalog.

    Raises:
        RecipeError: there is no such base.
    """
    base = resolved.recipe.base.model_copy(update={"name": name, "revision": None})
    found = resolve.with_pretraining(resolve.find_base(base, "base.name"))
    recipe = resolved.recipe.model_copy(update={"base": base})
    return resolved.model_copy(update={"recipe": recipe, "base": found})
