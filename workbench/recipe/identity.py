"""A run's identity: what changes its result, and nothing else. The same identity is the same run.

In it: the base's content, method, objective, the rows' content and order, training with its precision, device kind,
seed and repeat. Not in it: names, paths, the target's model and count, tracking, evaluation. A field that stands at its
default is left out, so that a new field does not change old identities; `SCHEMA_VERSION` is raised when the meaning of
a default changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench import fingerprint
from workbench.recipe.resolved import Resolved

SCHEMA_VERSION = 1
_HASH_DIGITS = 10
_ASIDE = {"init_from", "storage"}
_DATA_PATHS = {"name"}
_NO_RESULT = {"checkpoint_every", "precision", "preflight"}
_CARD_PROSE = {"description", "licence", "origin", "as_of", "source", "splits", "lengths"}


@dataclass(frozen=True)
class Contents:
    """What names stood for when the run was made."""

    base: dict[str, str]
    """File -> sha256 of a directory, or {"commit": sha} of a hub repository."""
    data: dict[str, str]
    """File -> sha256 of the rows that are trained on (empty where nothing is trained)."""
    template: str | None = None
    """sha256 of the template file that the recipe names."""
    init_from: str | None = None
    """sha256 of the adapter that training starts from."""
    items: str | None = None
    """sha256 of the suite's items, where rows that stand in them are dropped (`data.contamination: drop`)."""


def identity(resolved: Resolved, contents: Contents) -> dict[str, Any]:
    """Everything that changes the run's result, as plain values."""
    recipe = resolved.recipe
    random_base = recipe.base.init == "random"
    facts: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "base": sorted(contents.base.values()),
        "init": recipe.base.init,
        "method": recipe.method.model_dump(exclude_defaults=True, exclude=_ASIDE) | {"name": recipe.method.name},
        "dtype": resolved.dtype,
        "device": resolved.target.device,
        "seed": recipe.seed if resolved.trains or random_base else 0,
        "repeat": recipe.repeat,
    }
    if resolved.trains:
        split = resolved.data.card.splits.get(recipe.data.split)  # a directory of `datasets` names its own
        facts |= {
            "objective": recipe.objective.model_dump(exclude_defaults=True) | {"name": recipe.objective.name},
            "data": recipe.data.model_dump(exclude_defaults=True, exclude=_DATA_PATHS | {"template"}),
            "template": contents.template or recipe.data.template,
            "rows": sorted(contents.data.values()),
            "card": resolved.data.card.model_dump(exclude_defaults=True, exclude=_CARD_PROSE),
            "share": list(split.share) if split and split.share else None,
            "training": recipe.training.model_dump(exclude_defaults=True, exclude=_NO_RESULT),
            "init_from": contents.init_from,
        }
        if contents.items is not None:  # the one way in which scoring changes what is trained on
            facts["items"] = contents.items
    return facts


def identity_hash(facts: dict[str, Any]) -> str:
    """The short hash that names a run directory."""
    return fingerprint.of_value(facts)[:_HASH_DIGITS]


def base_reference(resolved: Resolved) -> Resolved:
    """The run that scores the untouched base for comparison with `resolved`: method none on the same base."""
    trained = resolved.recipe.method
    method = {
        "name": "none",
        "quantization": getattr(trained, "quantization", "none"),
        "double_quantization": getattr(trained, "double_quantization", True),
    }
    values = resolved.model_dump(mode="json")
    values["recipe"] |= {"name": f"base-{_base_name(resolved)}", "method": method, "seed": 0, "repeat": 0}
    values["recipe"]["tracking"] = {"wandb": None}
    return Resolved.model_validate(values, strict=False)


def _base_name(resolved: Resolved) -> str:
    return resolved.base.row or resolved.base.location.rstrip("/").rsplit("/", 1)[-1].lower()
