"""Where the inputs of a run lie that was unpacked in another place than it was made in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import files, resources
from workbench.recipe.resolved import Resolved
from workbench.runs.run import Run

MANIFEST = "PACK.json"
"""The list of everything in a pack, at its top."""


def resolved_here(run: Run) -> Resolved:
    """A run's resolved recipe with the places where things lie now: in the pack that the run was unpacked from, where
    there was one; and the embedded base in this installation."""
    manifest = run.path.parent.parent / MANIFEST
    places = files.read_json(manifest)["places"] if manifest.is_file() else {}
    values = moved(files.read_json(run.resolved_file), {was: str(manifest.parent / now) for was, now in places.items()})
    if values["base"]["row"] == "embedded":
        values["base"]["location"] = str(resources.embedded_base())
    return Resolved.model_validate(values, strict=False)


def moved(value: Any, places: Mapping[str, str]) -> Any:
    """A JSON value in which every path under one of the places is a path under where that lies now."""
    if isinstance(value, dict):
        return {key: moved(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [moved(inner, places) for inner in value]
    return moved_path(value, places) or value if isinstance(value, str) else value


def moved_path(path: str, places: Mapping[str, str]) -> str | None:
    """A path under one of the places (the narrowest counts) as a path under where that lies now; None: under none."""
    holding = [was for was in places if path == was or path.startswith(f"{was.rstrip('/')}/")]
    if not holding:
        return None
    was = max(holding, key=len)
    return str(Path(places[was]) / path[len(was) :].lstrip("/"))
