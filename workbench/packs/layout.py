"""Where each input lies in a pack, and the hand-written files made to say so.

What lies together stays together: hand-written files and the rows beside them keep their places from each other under
`inputs/`, as do the shipped ones, so that names are looked up there as they were here. What was named by a path of its
own goes to `inputs/elsewhere/`, and the files that name it are changed in that one place.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from workbench.errors import Problem, RunError
from workbench.packs.inputs import Inputs, is_shipped, normal, shipped_home
from workbench.runs.places import moved_path

INPUTS = "inputs"
RUNS = "runs"
_ELSEWHERE = f"{INPUTS}/elsewhere"


@dataclass
class Layout:
    """The members of a pack so far."""

    places: dict[str, str]
    """Folder on this machine -> where it lies in the pack."""
    members: dict[str, Path | bytes] = field(default_factory=dict)
    """Name in the pack -> the file, or the bytes that were made for the pack."""
    rewritten: list[str] = field(default_factory=list)
    """Hand-written files in which a path was changed."""

    def name(self, path: Path) -> str:
        """What a file of one of the places is called in the pack."""
        found = moved_path(str(path), self.places)
        assert found is not None, f"{path} is under no place of the pack"
        return found

    def add_places(self, was: Any, now: Any) -> None:
        """Take up paths of a run that was made from another copy of what is packed.

        Args:
            was: the run's resolved recipe as it lies in its file.
            now: the same with the places that are packed.
        """
        if isinstance(was, dict) and isinstance(now, dict):
            for key in was.keys() & now.keys():
                self.add_places(was[key], now[key])
        elif isinstance(was, list) and isinstance(now, list):
            for one, other in zip(was, now, strict=False):
                self.add_places(one, other)
        elif isinstance(was, str) and isinstance(now, str) and was.startswith("/") and now.startswith("/"):
            there = moved_path(now, self.places)
            if there is not None and moved_path(was, self.places) != there:
                self.places[was] = there

    def add(self, name: str, content: Path | bytes) -> None:
        """Put a file under a name.

        Raises:
            RunError: another file has that name.
        """
        if self.members.setdefault(name, content) != content:
            found = "would be two files of the pack under one name"
            raise RunError(Problem(name, found, "rename one of the two, or pack them apart"))


def lay_out(inputs: Inputs, runs: Iterable[Path], recipes: Mapping[str, Path]) -> Layout:
    """A layout with all inputs.

    Args:
        runs: directories of the runs that are packed.
        recipes: name in the pack -> a run's own recipe.

    Raises:
        RunError: two things would lie in the same place.
    """
    layout = Layout({str(path): f"{RUNS}/{path.name}" for path in runs} | _roots(inputs))
    for folder in sorted(inputs.apart):
        if moved_path(str(folder), layout.places) is None:
            layout.places[str(folder)] = _unused(f"{_ELSEWHERE}/{folder.name or 'root'}", layout.places.values())
    sources = inputs.documents | inputs.beside | {path for inside in inputs.apart.values() for path in inside}
    for path in sorted(sources - inputs.documents):
        layout.add(layout.name(path), path)
    known = [str(path) for path in sources]
    known += [path for path, place in layout.places.items() if place.startswith(RUNS)]
    for name, path in [*((layout.name(path), path) for path in sorted(inputs.documents)), *recipes.items()]:
        text = path.read_text(encoding="utf-8")
        changed = _changed(text, path.parent, name, layout.places, known)
        layout.add(name, path if changed == text else changed.encode())
        if changed != text and path not in recipes.values():
            layout.rewritten.append(name)
    return layout


def _roots(inputs: Inputs) -> dict[str, str]:
    """The folders that become `inputs/`: the one that holds all hand-written files, and that of the shipped ones."""
    anchored = inputs.documents | inputs.beside
    own, home = {path for path in anchored if not is_shipped(path)}, shipped_home()
    shipped = anchored - own
    if not own:
        return {str(home): INPUTS} if shipped else {}
    together = shipped and any(path.is_relative_to(home) for path in own)  # a checkout: they name each other by paths
    root = os.path.commonpath([*(path.parent for path in own), *([home] if together else [])])
    return {root: INPUTS} | ({str(home): INPUTS} if shipped and not together else {})


def _unused(name: str, taken: Iterable[str]) -> str:
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, 1_000_000))
    used = set(taken)
    return next(one for one in names if one not in used)


def _changed(text: str, folder: Path, name: str, places: Mapping[str, str], known: list[str]) -> str:
    """A YAML text in which paths of packed things are what they are in the pack, and nothing else is touched."""
    for node in sorted(_scalars(yaml.compose(text, Loader=yaml.SafeLoader)), key=lambda node: -node.start_mark.index):
        there = _in_pack(node.value, folder, places, known)
        if there is None:
            continue
        path = os.path.relpath(there, PurePosixPath(name).parent)
        if path != os.path.normpath(node.value):
            path = path if path.startswith("../") else f"./{path}"
            text = text[: node.start_mark.index] + json.dumps(path) + text[node.end_mark.index :]
    return text


def _in_pack(value: str, folder: Path, places: Mapping[str, str], known: list[str]) -> str | None:
    """Where something that a text may name lies in the pack; None where it names nothing that is packed."""
    if not value or "\n" in value:
        return None
    path = normal(folder / Path(value).expanduser())
    for one in dict.fromkeys((str(path), str(path.resolve()))):
        if any(file == one or file.startswith(f"{one}/") or fnmatch.fnmatch(file, one) for file in known):
            found = moved_path(one, places)
            if found is not None:
                return found
    return None


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """The values of a document, not its keys."""
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            yield from _scalars(inner)
    elif isinstance(node, yaml.MappingNode):
        for _, inner in node.value:
            yield from _scalars(inner)
