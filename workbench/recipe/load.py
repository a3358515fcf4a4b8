"""A recipe file -> Recipe: the file over the one it extends, `--set` over both, every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import documents, resources
from workbench.documents import Document, Trail
from workbench.errors import Problem, RecipeError
from workbench.recipe.schema import Recipe
from workbench.recipe.section import Section
from workbench.recipe.tracking import Tracking

NAMED = ("base", "method", "objective", "data", "target")
"""Sections that may be written as one word, short for `{name: word}`."""

_BOUND_TO_NAME: dict[str, frozenset[str] | None] = {
    "base": frozenset({"revision", "trust_remote_code"}),
    "method": None,
    "objective": None,
}
"""Fields that belong to the named thing and fall away when a later layer names another one (None: all fields)."""

_ALTERNATIVES = {"training": (("epochs", "steps"), ("steps", "epochs"))}
"""Where a later layer says the one, the other one of an earlier layer falls away."""

_PATHS: tuple[Trail, ...] = (
    ("base", "name"),
    ("data", "name"),
    ("data", "template"),
    ("evaluation", "suite"),
    ("method", "init_from"),
    ("tracking", "mlflow", "uri"),
)
"""Fields that may hold a path; it is relative to the file that states it."""

_DIRECTORIES: tuple[Trail, ...] = (("tracking", "trackio", "directory"), ("tracking", "tensorboard", "directory"))
"""Fields that hold nothing else, whether it is there already or not; relative in the same way."""


@dataclass(frozen=True)
class Loaded:
    """A recipe, and the document it came from (for messages of later checks)."""

    recipe: Recipe
    document: Document


def load(path: Path, overrides: Sequence[str] = (), settings: Sequence[Document] = ()) -> Loaded:
    """Read a recipe with what it extends, the settings laid over it, and the `--set` overrides over all.

    Args:
        settings: fields that another file states for this recipe (see `setting`).

    Raises:
        RecipeError: with every problem found.
    """
    path = find(path)
    if not path.exists() and path.parent.is_dir():
        raise RecipeError(Problem(documents.display(path), "there is no such file", _near(path)))
    layer = _layer(documents.read(path), path.parent)
    if "arms" in layer.value:
        shown = documents.display(path)
        raise RecipeError(Problem(shown, "is a study, not a recipe", f"workbench study {shown}"))
    layers = [layer]
    if "extends" in layer.value:
        layers.insert(0, _parent(layer, path))
    over = [*settings, *(_override(text) for text in overrides)]
    layers = [_unsaid(layers, over), *layers, *over]
    merged = _merge(layers)
    if merged.value.get("name") is None:
        merged.value["name"] = path.stem
    return Loaded(documents.check(Recipe, merged), merged)


class _Shown(Section):
    tracking: Tracking


def tracking_over(tracking: Tracking, overrides: Sequence[str]) -> Tracking:
    """Where a finished run is to be shown: as it says, with `--set tracking.KEY=VALUE` laid over it.

    Raises:
        RecipeError: with every problem; nothing else of a finished run can be set.
    """
    own = Document("--set", {"tracking": tracking.model_dump(mode="json")})
    return documents.check(_Shown, _merge([own, *(_override(text) for text in overrides)])).tracking


def find(path: Path, folder: str = "recipes") -> Path:
    """The file itself, else the shipped one of that name (`quickstart`, `recipes/quickstart.yaml`)."""
    if path.exists():
        return path
    bare = Path(*path.parts[1:]) if path.parts[:1] == (folder,) else path
    shipped = resources.shipped(folder) / bare.with_suffix(".yaml")
    return shipped if not path.is_absolute() and shipped.exists() else path


def _near(path: Path) -> str:
    """What may have been meant by a recipe that is not there: a file beside it, or a shipped one."""
    here = sorted(file.name for file in path.parent.glob("*.y*ml"))
    shipped = sorted(file.stem for file in resources.shipped("recipes").glob("*.yaml"))
    return documents.did_you_mean(path.name, [*here, *shipped][: len(shipped) + 24])


def _unsaid(said: Sequence[Document], over: Sequence[Document]) -> Document:
    """The names of sections that no file states and a `--set` reaches into: those that they have anyway."""
    sections = {section for layer in over for section in layer.value} - {name for layer in said for name in layer.value}
    defaults = {section: _default_name(section) for section in sorted(sections)}
    return Document("--set", {section: {"name": name} for section, name in defaults.items() if name})


def _layer(document: Document, folder: Path) -> Document:
    """One document with short forms written out and paths made absolute."""
    if not isinstance(document.value, Mapping):
        raise RecipeError(Problem(document.name, f"found {documents.shown(document.value)}", "sections are needed"))
    value = dict(document.value)
    places = dict(document.places)
    for section in NAMED:
        if isinstance(value.get(section), str):
            value[section] = {"name": value[section]}
            places[(section, "name")] = places.get((section,), document.name)
    for trail in _PATHS:
        value = _with(value, trail, lambda text: absolute(text, folder))
    for trail in _DIRECTORIES:
        value = _with(value, trail, lambda text: str(_placed(text, folder).resolve()))
    return Document(document.name, value, places)


def _with(value: Any, trail: Trail, read: Callable[[str], str]) -> Any:
    """A value with the text at a trail in it read anew; as it is where there is none."""
    if not trail:
        return read(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping) or trail[0] not in value:
        return value
    return {**value, trail[0]: _with(value[trail[0]], trail[1:], read)}


def absolute(text: str, folder: Path) -> str:
    """A path made absolute; any other text (a catalog name, a hub repository) as it is."""
    explicit = text.startswith(("./", "../", "/", "~"))
    path = _placed(text, folder)
    return str(path.resolve()) if explicit or ("/" in text and path.exists()) else text


def _placed(text: str, folder: Path) -> Path:
    """A path made absolute; `folder` is what it is relative to."""
    return (folder / Path(text).expanduser()).absolute()


def upwards(folder: Path, relative: Path) -> Path | None:
    """The nearest file of that name in a folder or above it; None where there is none."""
    return next((place / relative for place in (folder, *folder.parents) if (place / relative).is_file()), None)


def _parent(layer: Document, path: Path) -> Document:
    where = layer.where(("extends",))
    name = layer.value.pop("extends")
    if not isinstance(name, str):
        raise RecipeError(Problem(where, f"found {documents.shown(name)}", "name the recipe file to start from"))
    parent_path = path.parent / name
    if not parent_path.exists():
        raise RecipeError(Problem(where, f"there is no {documents.display(parent_path)}", "paths start at this file"))
    parent = _layer(documents.read(parent_path), parent_path.parent)
    if "extends" in parent.value:
        raise RecipeError(
            Problem(
                parent.where(("extends",)),
                "the file that is extended extends another one itself",
                "one level only: write what differs from the first",
            )
        )
    parent.value.pop("name", None)
    return parent


def _override(text: str) -> Document:
    """`section.key=value` as a document of its own."""
    key, equals, raw = text.partition("=")
    place = f"--set {key}"
    if not equals or not all(key.split(".")):
        raise RecipeError(Problem(f"--set {text}", "is not `section.key=value`", "for example --set method.rank=8"))
    parsed: Any = documents.parse(raw, place).value if raw.strip() else None
    return setting(key, parsed, place, Path.cwd())


def setting(key: str, value: Any, place: str, folder: Path) -> Document:
    """One field as a layer to lay over a recipe.

    Args:
        key: the field's dotted name.
        place: where it is stated, for messages.
        folder: what a relative path in it is relative to.
    """
    trail: tuple[str, ...] = tuple(key.split("."))
    for part in reversed(trail):
        value = {part: value}
    places: dict[Trail, str] = {trail[:length]: place for length in range(len(trail) + 1)}
    return _layer(Document("--set", value, places), folder)


def _merge(layers: Iterable[Document]) -> Document:
    merged: dict[str, Any] = {}
    places: dict[Trail, str] = {}
    name = ""
    for layer in layers:
        for section, value in layer.value.items():
            old = merged.get(section)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                merged[section] = _over(_kept(section, old, value), value)
            else:
                merged[section] = value
        places |= layer.places
        name = layer.name if layer.name != "--set" else name
    return Document(name, merged, places)


def _over(old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: _over(old.get(key), value) for key, value in new.items()}}
    return new


def _kept(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What of an older layer's section stays under a newer one."""
    outdone = {old_way for way, old_way in _ALTERNATIVES.get(section, ())
               if new.get(way) is not None and old_way not in new}  # fmt: skip
    kept = {key: value for key, value in old.items() if key not in outdone}
    renamed = "name" in new and new["name"] != old.get("name", _default_name(section))
    if not renamed or section not in _BOUND_TO_NAME:
        return kept
    bound = _BOUND_TO_NAME[section]
    return {} if bound is None else {key: value for key, value in kept.items() if key not in bound}


def _default_name(section: str) -> str | None:
    return {"method": "lora", "objective": "sft"}.get(section)
