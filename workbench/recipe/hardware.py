"""Names of hardware -> rows: the catalog's, a user's own, or what this machine has."""

from __future__ import annotations

import platform
from pathlib import Path

from workbench import documents
from workbench.catalog.targets import OwnTargets, TargetRow, targets
from workbench.errors import Problem, RecipeError
from workbench.recipe.load import upwards
from workbench.recipe.schema import Target


def known_targets(folder: Path) -> dict[str, TargetRow]:
    """The catalog's targets, under those of the nearest `targets.yaml` upwards from here, and from `folder`.

    Raises:
        RecipeError: that file is wrong.
    """
    known = targets()
    for place in (Path.cwd(), folder):
        path = upwards(place, Path("targets.yaml"))
        if path is not None:
            known = known | {row.name: row for row in documents.check(OwnTargets, documents.read(path)).targets}
    return known


def find_target(name: str, folder: Path, where: str) -> TargetRow:
    """A row of the target catalog or of the user's own; `auto` is what this machine has.

    Raises:
        RecipeError: there is none of that name.
    """
    name = _this_machine() if name == "auto" else name
    known = known_targets(folder)
    if name not in known:
        own = "; or describe your own in a targets.yaml here or beside the recipe"
        advice = documents.did_you_mean(name, ["auto", *known]) + own
        raise RecipeError(Problem(where, f"no target is called {name!r}", advice))
    return known[name]


def with_stated_facts(row: TargetRow, stated: Target) -> TargetRow:
    """The row with the price and the power that the recipe states instead of the catalog's."""
    changes: dict[str, object] = {}
    if stated.usd_per_hour is not None:
        changes |= {"usd_per_hour": stated.usd_per_hour, "price_source": "recipe", "price_as_of": None}
    if stated.power_watts is not None:
        changes |= {"power_watts": stated.power_watts, "power_source": "recipe"}
    return row.model_copy(update=changes)


def _this_machine() -> str:
    """The generic target of this machine, by its device files: the desk does not import torch to look."""
    if Path("/dev/nvidia0").exists():
        return "cuda"
    if Path("/dev/kfd").exists():
        return "rocm"
    if Path("/dev/davinci0").exists():
        return "ascend-910b"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "apple-mps"
    return "cpu"
