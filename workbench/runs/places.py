"""Where the inputs of a run lie that was unpacked in another place than it was made in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import files, resources

MANIFEST = "PACK.json"
"""The list of everything in a pack, at its top."""


def here(folder: Path, resolved: dict[str, Any]) -> dict[str, Any]:
    """A run's resolved recipe with the places where things lie now: in the pack that the run was unpacked from, where
    there was one; and the embedded base in this installation.

    Args:
        folder: the run's directory.
        resolved: what its resolved.json holds.
    """
    top = folder.parent.parent
    places = files.read_json(top / MANIFEST)["places"] if (top / MANIFEST).is_file() else {}
    here_ = {str(top): str(top)}  # a pack may lie inside the very folder that it was made of
    values: dict[str, Any] = moved(resolved, {was: str(top / now) for was, now in places.items()} | here_)
    base = values.get("base")
    if isinstance(base, dict) and base.get("row") == "embedded":
        base["location"] = str(resources.embedded_base())
    return values


def moved(value: Any, places: Mapping[str, str]) -> Any:
    """A JSON value in which every path under one of the places is a path under where that lies now."""
    if isinstance(value, dict):
        return {moved(key, places): moved(inner, places) for key, inner in value.items()}
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
