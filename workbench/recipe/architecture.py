"""The architecture of a recipe's base, without a download: from a directory, the hub's cache, or the catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench import documents, hub
from workbench.catalog.bases import bases
from workbench.errors import BaseError, Problem
from workbench.plan import shapes
from workbench.plan.architecture import Architecture
from workbench.recipe.resolved import ResolvedBase


def architecture_of(base: ResolvedBase) -> Architecture:
    """What the base is made of.

    Raises:
        BaseError: it is nowhere on this machine and not in the catalog, or of a kind that cannot be counted.
    """
    config = config_of(base)
    if config is None and base.row is not None:
        return shapes.from_row(bases()[base.row])
    if config is None:
        raise BaseError(
            Problem(
                base.location,
                "is not in the catalog, and its config.json is not on this machine",
                f"hf download {base.location} config.json, or name a base of `workbench bases`",
            )
        )
    return shapes.from_config(config, f"{documents.display(Path(base.location))} config.json")


def config_of(base: ResolvedBase) -> dict[str, Any] | None:
    """The base's config.json, from its directory or the hub's cache; None where it is not on this machine.

    Raises:
        BaseError: it is no JSON.
    """
    path: Path | None = Path(base.location) / "config.json"
    if base.kind == "hub":
        path = hub.cached_file(base.location, base.revision, "config.json")
    if path is None:
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(Problem(documents.display(path), f"cannot be read: {error}")) from None
    return found
