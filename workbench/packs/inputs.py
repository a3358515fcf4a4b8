"""What runs read that lies on this machine: hand-written files, rows, templates, bases, adapters to start from."""

from __future__ import annotations

import os
from pathlib import Path

from workbench import documents, resources
from workbench.catalog.suites import LmEval
from workbench.errors import Problem, UserError
from workbench.recipe import pin
from workbench.recipe.load import upwards
from workbench.recipe.resolved import Resolved, ResolvedCard
from workbench.runs.run import Run

_ENDINGS = (".yaml", ".yml")
_TARGETS = Path("targets.yaml")


class Inputs:
    """Files, by how they are found: beside each other, or by a path of their own."""

    def __init__(self) -> None:
        self.documents: set[Path] = set()
        """Hand-written files."""
        self.beside: set[Path] = set()
        """Files that hand-written ones name by where they lie from there."""
        self.apart: dict[Path, set[Path]] = {}
        """Folder -> files in it, of what may lie anywhere."""
        self.starts: set[Path] = set()
        """Runs that training starts from."""

    def add_recipe(self, path: Path) -> None:
        """A recipe, with what it extends and the targets described beside it."""
        self.documents.add(normal(path))
        value = documents.read(path).value
        if isinstance(value, dict) and isinstance(value.get("extends"), str):
            self.documents.add(normal(path.parent / value["extends"]))
        targets = upwards(path.absolute().parent, _TARGETS)
        if targets is not None:
            self.documents.add(normal(targets))

    def add(self, resolved: Resolved) -> list[Problem]:
        """What a resolved recipe names; what of it is not there comes back."""
        problems: list[Problem] = []
        for part in (self._add_rows, self._add_suite, self._add_base, self._add_template, self._add_start):
            try:
                part(resolved)
            except UserError as error:
                problems += error.problems
        return problems

    def _add_rows(self, resolved: Resolved) -> None:
        self._add_card(resolved.data, [resolved.recipe.data.split] if resolved.trains else [])

    def _add_template(self, resolved: Resolved) -> None:
        if resolved.trains and pin.template_hash(resolved) is not None:
            template = normal(Path(resolved.recipe.data.template))
            self.apart.setdefault(template.parent, set()).add(template)

    def _add_card(self, card: ResolvedCard, splits: list[str]) -> None:
        folder = Path(card.folder)
        self.documents |= {path for ending in _ENDINGS if (path := folder / f"{card.name}{ending}").is_file()}
        if card.card.source.hub is not None:
            return
        if card.card.source.directory is not None:
            saved = normal(folder / card.card.source.directory)
            inside = {path for path in saved.rglob("*") if path.is_file()}
            self.apart.setdefault(saved, set()).update(inside)
            return
        for split in splits:
            written = card.card.splits[split].files if split in card.card.splits else []
            named = [written] if isinstance(written, str) else written
            rows = {normal(path) for path in pin.split_files(card, split)}
            if any(Path(pattern).is_absolute() for pattern in named):
                for path in rows:
                    self.apart.setdefault(path.parent, set()).add(path)
            else:
                self.beside |= rows

    def _add_suite(self, resolved: Resolved) -> None:
        suite = resolved.suite
        if suite is None:
            return
        folder, name = Path(suite.folder), suite.file or suite.name
        self.documents |= {path for ending in _ENDINGS if (path := folder / f"{name}{ending}").is_file()}
        for task in suite.suite.tasks:
            if not isinstance(task, LmEval):
                self._add_card(suite.cards[task.data], sorted(set(task.splits().values())))
            elif task.is_file:  # it may include others, or code, that lie with it
                beside = normal(pin.task_file(task, folder)).parent
                self.beside |= {path for path in beside.iterdir() if path.is_file() and not path.name.startswith(".")}

    def _add_base(self, resolved: Resolved) -> None:
        if resolved.base.kind != "directory" or resolved.recipe.base.name == "embedded":
            return
        folder = Path(resolved.base.location)
        pin.base_directory(resolved)
        found = {path for pattern in pin.patterns_of(resolved) for path in folder.glob(pattern) if path.is_file()}
        if resolved.recipe.base.init == "random":
            found = {path for path in found if "safetensors" not in path.name}
        self.apart.setdefault(folder, set()).update(found)

    def _add_start(self, resolved: Resolved) -> None:
        start = getattr(resolved.recipe.method, "init_from", None)
        if start is None:
            return
        adapter = pin.adapter_directory(start)
        if Run(adapter.parent).identity_file.exists():
            self.starts.add(adapter.parent)
        else:
            self.apart.setdefault(normal(adapter), set()).update(path for path in adapter.iterdir() if path.is_file())


def own_targets() -> Path | None:
    """The targets described where the command is typed."""
    return upwards(Path.cwd(), _TARGETS)


def normal(path: Path) -> Path:
    """The absolute path without `..`, links as they are."""
    return Path(os.path.normpath(path.absolute()))


def shipped_home() -> Path:
    """The folder of the shipped `recipes` and `datasets`."""
    return resources.shipped("recipes").parent


def is_shipped(path: Path) -> bool:
    """Whether a file comes with the package."""
    return any(path.is_relative_to(resources.shipped(name)) for name in ("recipes", "datasets", "slurm"))
