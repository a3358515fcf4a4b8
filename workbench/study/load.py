"""A study file -> its arms, each a recipe with the settings laid over it; every problem at once."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import documents, resources
from workbench.compare.fields import KNOWN, is_known
from workbench.documents import Document, Trail
from workbench.errors import Problem, RecipeError
from workbench.recipe import load as recipes
from workbench.recipe.load import Loaded
from workbench.study.schema import Arm, Study

_MOST_ARMS = 1000
_LONGEST_NAME_BYTES = 200
"""A run's directory is called after its arm, and a file system takes 255."""
_OWN = ("name", "seed", "evaluation", "evaluation.suite")
"""Fields of a recipe that the study itself states."""
_INSTEAD = "write it in the study: its `seeds`, its `suite`, its arms' names; other fields as in evaluation.batch_size"
_SHIPPED = Path("recipes", "studies")


@dataclass(frozen=True)
class LoadedArm:
    """One arm, of which `grid` and `each` may have made several."""

    name: str
    family: str
    """The arm in the file that it comes from."""
    path: Path
    """Its recipe."""
    settings: list[Document]
    """What the study lays over it."""


@dataclass(frozen=True)
class LoadedStudy:
    """A study, the document it came from, and its arms."""

    name: str
    study: Study
    document: Document
    folder: Path
    arms: list[LoadedArm]

    def expand(self, name: str) -> list[str]:
        """The arms that a name stands for: one, or a family."""
        return [arm.name for arm in self.arms if name in (arm.name, arm.family)]

    def pairs(self, contrast: Sequence[str]) -> list[tuple[str, str]]:
        """The pairs of arms that a declared contrast stands for."""
        left, right = contrast
        return [(arm, against) for arm in self.expand(left) for against in self.expand(right) if arm != against]


def load(path: Path) -> LoadedStudy:
    """Read a study.

    Raises:
        RecipeError: with every problem of the file.
    """
    path = find(path)
    document = _written_out(documents.read(path))
    if isinstance(document.value, Mapping) and "arms" not in document.value and "data" in document.value:
        raise RecipeError(Problem(document.name, "is a recipe, not a study", f"workbench train {document.name}"))
    study = documents.check(Study, document)
    folder = path.absolute().parent
    made = (one for name, arm in study.arms.items() for one in _family(name, arm, document, folder))
    arms = list(itertools.islice(made, _MOST_ARMS + 1))
    loaded = LoadedStudy(study.name or path.stem, study, document, folder, arms)
    problems = list(_problems(loaded))
    if problems:
        raise RecipeError(problems)
    return loaded


def find(path: Path) -> Path:
    """The file itself, else the shipped study of that name (`base-swap`, or `recipes/studies/base-swap.yaml`)."""
    if path.exists():
        return path
    folder = resources.shipped("recipes") / "studies"
    shipped = folder / f"{path.stem}.yaml"
    if path.parent in (Path(), _SHIPPED) and shipped.exists():
        return shipped
    if path.parent.is_dir():
        known = [*path.parent.glob("*.y*ml"), *folder.glob("*.yaml")]
        advice = documents.did_you_mean(path.name, sorted({file.name for file in known}))
        raise RecipeError(Problem(documents.display(path), "there is no such study", advice))
    return path


def is_study(path: Path) -> bool:
    """Whether a file (or the name of a shipped one) is a study rather than a recipe. What is there under neither is
    taken for a recipe, which says what is wrong."""
    found = recipes.find(path)
    if not found.exists():
        try:
            found = find(path)
        except RecipeError:
            return False
    if not found.is_file():
        return False
    value = documents.read(found).value
    return isinstance(value, Mapping) and "arms" in value


def loaded_recipe(arm: LoadedArm, more: Sequence[Document], overrides: Sequence[str]) -> Loaded:
    """An arm's recipe with the study's settings, `more` over them, and `--set` over all.

    Raises:
        RecipeError: with every problem of the recipe; a `--set` of what the study states.
    """
    keys = [text.partition("=")[0] for text in overrides]
    if own := [Problem(f"--set {key}", "is the study's own", _INSTEAD) for key in keys if key in _OWN]:
        raise RecipeError(own)
    return recipes.load(arm.path, overrides, [*arm.settings, *more])


def _written_out(document: Document) -> Document:
    """The document with arms of one word written out."""
    arms = document.value.get("arms") if isinstance(document.value, Mapping) else None
    if not isinstance(arms, Mapping):
        return document
    places = dict(document.places)
    long: dict[str, Any] = {}
    for name, arm in arms.items():
        long[name] = {"recipe": arm} if isinstance(arm, str) else arm
        places.setdefault(("arms", name, "recipe"), document.places[("arms", name)])
    return Document(document.name, {**document.value, "arms": long}, places)


def _family(name: str, arm: Arm, document: Document, folder: Path) -> Iterator[LoadedArm]:
    def place(section: str, key: str, at: int | None = None) -> str:
        trail = ("arms", name, section, key) if at is None else ("arms", name, section, at, key)
        return document.where(trail)

    fixed = [recipes.setting(key, value, place("set", key), folder) for key, value in arm.set.items()]
    combinations = itertools.product(*([(key, value) for value in values] for key, values in arm.grid.items()))
    for combination in combinations:
        for at, together in enumerate(arm.each or [{}]):
            made = [recipes.setting(key, value, place("grid", key), folder) for key, value in combination]
            made += [recipes.setting(key, value, place("each", key, at), folder) for key, value in together.items()]
            ending = "".join(f"-{_short(key)}={_word(value)}" for key, value in [*combination, *together.items()])
            yield LoadedArm(f"{name}{ending}", name, folder / arm.recipe, fixed + made)


def _short(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _word(value: Any) -> str:
    """A value as a part of an arm's (and a folder's) name."""
    if isinstance(value, Mapping | list):
        return "+".join(_word(inner) for inner in (value.values() if isinstance(value, Mapping) else value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(sign if sign.isalnum() or sign in "._+-" else "-" for sign in text)


def _problems(loaded: LoadedStudy) -> Iterator[Problem]:
    """What is wrong beyond a field's own limits: files that are not there, names that nothing is called, doubles."""
    study, where = loaded.study, loaded.document.where
    for name, arm in study.arms.items():
        yield from _of_arm(loaded, name, arm)
    if len(loaded.arms) > _MOST_ARMS:
        yield Problem(where(("arms",)), f"come to more than {_MOST_ARMS} arms", "take fewer values in the grids")
    elif len(loaded.arms) < 2:
        advice = "add what to compare it with, such as the base as it is: set: {method: none}"
        yield Problem(where(("arms",)), "is one arm only", advice)
    for name, count in Counter(arm.name for arm in loaded.arms).items():
        if count > 1:
            yield Problem(
                where(("arms",)), f"{count} arms come out as {name!r}", "rename one, or drop a repeated value"
            )
    for at, seed in enumerate(study.seeds):
        if seed in study.seeds[:at]:
            yield Problem(where(("seeds", at)), f"the seed {seed} stands twice", "an A/A arm is `repeat: 1`")
    for at, field in enumerate(study.vary):
        if not is_known(field):
            yield Problem(where(("vary", at)), f"no field is called {field!r}", documents.did_you_mean(field, KNOWN))
    yield from _of_names(loaded)


def _of_arm(loaded: LoadedStudy, name: str, arm: Arm) -> Iterator[Problem]:
    where = loaded.document.where(("arms", name))
    if not (loaded.folder / arm.recipe).is_file():
        shown = documents.display(loaded.folder / arm.recipe)
        place = loaded.document.where(("arms", name, "recipe"))
        yield Problem(place, f"there is no recipe {shown}", "the path starts at the study's folder")
    stated = [*arm.set, *arm.grid, *dict.fromkeys(key for together in arm.each for key in together)]
    for key, count in Counter(stated).items():
        if not all(key.split(".")):
            yield Problem(where, "an empty field name", "write section.key, as in method.rank")
        if key in _OWN:
            yield Problem(where, f"sets {key}, which is the study's own", _INSTEAD)
        if count > 1:
            yield Problem(where, f"states {key} more than once", "in one of set, grid and each")
    longest = max((len(one.name.encode()) for one in loaded.arms if one.family == name), default=0)
    if longest > _LONGEST_NAME_BYTES:
        advice = f"runs are called after it: at most {_LONGEST_NAME_BYTES}"
        yield Problem(where, f"comes out as a name of {longest} bytes", advice)


def _of_names(loaded: LoadedStudy) -> Iterator[Problem]:
    """Arms that the study names."""
    study, where = loaded.study, loaded.document.where
    names = sorted({*study.arms, *(arm.name for arm in loaded.arms)})
    mentioned: list[tuple[Trail, str]] = [(("ladder", at), name) for at, name in enumerate(study.ladder)]
    mentioned += [(("reference",), study.reference)] if study.reference else []
    mentioned += [
        (("contrasts", at, side), name)
        for at, contrast in enumerate(study.contrasts or [])
        for side, name in enumerate(contrast)
    ]
    for trail, name in mentioned:
        if name not in names:
            yield Problem(where(trail), f"no arm is called {name!r}", documents.did_you_mean(name, names))
    if study.reference in names and len(loaded.expand(study.reference)) != 1:
        yield Problem(where(("reference",)), f"{study.reference} is several arms", "name one of them")
    told: set[frozenset[str]] = set()
    for at, contrast in enumerate(study.contrasts or []):
        pairs = loaded.pairs(contrast)
        if not pairs and set(contrast) <= set(names):
            yield Problem(where(("contrasts", at)), "is an arm against itself", "name another arm")
        for pair in pairs:
            if frozenset(pair) in told:
                yield Problem(where(("contrasts", at)), f"{' against '.join(pair)} stands twice", "leave one out")
            told.add(frozenset(pair))
