"""Names pinned to content: which files a run reads, and their hashes. Desk work: no torch, but it may fetch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench import documents, fingerprint, hub
from workbench.catalog.cards import Split
from workbench.catalog.suites import LmEval
from workbench.errors import BaseError, DataError, EvaluationError, Problem
from workbench.recipe.identity import Contents
from workbench.recipe.resolved import Resolved, ResolvedBase, ResolvedCard, ResolvedSuite

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_NOT_OF_ITEMS: Any = {"lengths": True, "source": {"directory"}, "splits": {"__all__": {"files"}}}
"""What a card says of rows that are trained on changes no item, nor does where its files lie: they are hashed."""
_NOT_CONTENT = ("README", "LICENSE", "NOTICE", "manifest.json")
"""Beginnings of names that say something about a base and are no part of it."""


def pin(resolved: Resolved) -> tuple[Resolved, Contents]:
    """The recipe with every revision made a commit, and the content hashes that its identity is made of.

    Raises:
        BaseError, DataError: something is not there or cannot be fetched.
    """
    base, base_content = pin_base(resolved)
    if not resolved.trains:
        return resolved.model_copy(update={"base": base}), Contents(base=base_content, data={})
    card = pin_card(resolved.data)
    paths = split_files(card, resolved.recipe.data.split)
    contents = Contents(
        base=base_content,
        data=row_hashes(paths),
        template=template_hash(resolved),
        init_from=adapter_hash(resolved),
        items=items_hash(resolved),
    )
    return resolved.model_copy(update={"base": base, "data": card}), contents


def row_hashes(paths: Sequence[Path]) -> dict[str, str]:
    """sha256 of data files, by their path from the folder that they have in common."""
    return fingerprint.of_files(paths, Path(os.path.commonpath([path.parent for path in paths])))


def pin_base(resolved: Resolved) -> tuple[ResolvedBase, dict[str, str]]:
    """A base at a commit, or a directory with the hashes of its files."""
    base, patterns = resolved.base, patterns_of(resolved)
    if base.kind == "hub":
        commit = hub.snapshot(base.location, "model", base.revision, patterns).commit
        return base.model_copy(update={"revision": commit}), {"commit": commit}
    folder = Path(base.location)
    check_directory(folder, weights="*.safetensors" in patterns)
    paths = {path for pattern in patterns for path in folder.glob(pattern) if not path.name.startswith(_NOT_CONTENT)}
    if "*.safetensors" not in patterns:
        paths = {path for path in paths if "safetensors" not in path.name}
    return base, fingerprint.of_files(paths, folder)


def without_weights(resolved: Resolved) -> Resolved:
    """The recipe as from random weights: whatever is looked up for it then, the base's weights are not fetched."""
    base = resolved.recipe.base.model_copy(update={"init": "random"})
    return resolved.model_copy(update={"recipe": resolved.recipe.model_copy(update={"base": base})})


def patterns_of(resolved: Resolved) -> list[str]:
    """The files of a base that the run needs: no weights for a random one, code only where the recipe trusts it."""
    patterns = list(hub.MODEL_FILES)
    if resolved.recipe.base.init == "random":
        patterns.remove("*.safetensors")
    return [*patterns, "*.py"] if resolved.recipe.base.trust_remote_code else patterns


def check_directory(folder: Path, weights: bool) -> None:
    """Refuse a directory that is no base, or whose weights are pickles."""
    where = documents.display(folder)
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(Problem(f"{where}/config.json", f"cannot be read: {error}")) from None
    if not weights or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise BaseError(
            Problem(
                where,
                f"its weights are a pickle ({pickles[0]}), which can run code when it is read",
                "convert it to safetensors: load it where you trust it and save_pretrained()",
            )
        )
    raise BaseError(Problem(where, "has no weights (*.safetensors)", "or train it from scratch: base.init: random"))


def base_directory(resolved: Resolved) -> Path:
    """The directory that a pinned base is loaded from."""
    base = resolved.base
    if base.kind == "directory":
        if not Path(base.location).is_dir():
            where = documents.display(Path(base.location))
            raise BaseError(Problem(where, "the base's directory is not there any more", "put it back where it was"))
        return Path(base.location)
    return hub.snapshot(base.location, "model", base.revision, patterns_of(resolved)).path


def pin_card(card: ResolvedCard) -> ResolvedCard:
    """A card whose hub revision is a commit."""
    source = card.card.source
    if source.hub is None:
        return card
    commit = _dataset_snapshot(card).commit
    pinned = card.card.model_copy(update={"source": source.model_copy(update={"revision": commit})})
    return card.model_copy(update={"card": pinned})


def card_patterns(card: ResolvedCard) -> list[str]:
    """The files of a data set on the hub that its card names, of all its splits."""
    return sorted({pattern for split in card.card.splits.values() for pattern in _patterns(split)})


def _dataset_snapshot(card: ResolvedCard) -> hub.Snapshot:
    assert card.card.source.hub is not None
    return hub.snapshot(card.card.source.hub, "dataset", card.card.source.revision, card_patterns(card))


def split_files(card: ResolvedCard, split: str) -> list[Path]:
    """The files of one split, in a fixed order.

    Raises:
        DataError: the split is not there, or a pattern matches no file.
    """
    source = card.card.source
    where = f"card {card.name}"
    if source.directory is not None:
        return _saved_files(Path(card.folder) / source.directory, split, where)
    if split not in card.card.splits:
        raise DataError(
            Problem(where, f"has no split {split!r}", documents.did_you_mean(split, list(card.card.splits)))
        )
    root = _dataset_snapshot(card).path if source.hub else Path(card.folder)
    files = []
    for pattern in _patterns(card.card.splits[split]):
        anchor = Path(Path(pattern).anchor or root)  # an absolute pattern starts at its own root
        found = sorted(path for path in anchor.glob(pattern.removeprefix(Path(pattern).anchor)) if path.is_file())
        if not found:
            raise DataError(
                Problem(
                    f"{where} split {split}", f"no file matches {pattern!r} in {root}", "paths are relative to the card"
                )
            )
        files += found
    if not files:
        raise DataError(Problem(f"{where} split {split}", "names no files", "add `files:`"))
    return files


def _saved_files(directory: Path, split: str, where: str) -> list[Path]:
    """The Arrow files of one split of what `datasets` saved: the ones its state.json names, not its caches."""
    folder = directory / split if (directory / split).is_dir() else directory
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(Problem(where, f"{directory} holds no split {split!r} written by save_to_disk")) from None
    if folder == directory and state.get("_split") not in (None, split):
        raise DataError(Problem(where, f"{directory} holds the split {state['_split']!r}, not {split!r}"))
    return [folder / file["filename"] for file in state["_data_files"]]


def _patterns(split: Split) -> list[str]:
    return [split.files] if isinstance(split.files, str) else list(split.files)


def items_hash(resolved: Resolved) -> str | None:
    """What decides which rows are dropped because they stand in the suite; None where none is."""
    if resolved.suite is None or resolved.recipe.data.contamination != "drop":
        return None
    items = []
    for task in resolved.suite.suite.tasks:
        if not isinstance(task, LmEval):
            card = resolved.suite.cards[task.data]
            hashes = [fingerprint.of_file(path) for path in split_files(card, task.split)]
            items.append([task.name, task.split, task.max_items, card.card.model_dump(mode="json"), hashes])
    return fingerprint.of_value(items)


def suite_content(suite: ResolvedSuite) -> str:
    """A hash of all that a suite's scores come from, in whatever folder it lies: its file, its cards, its rows. Cheaper
    than reading the items."""
    tasks: list[Any] = []
    for task in suite.suite.tasks:
        if isinstance(task, LmEval):
            asked = fingerprint.of_file(task_file(task, Path(suite.folder))) if task.is_file else task.task
            tasks.append([task.model_dump(mode="json", exclude={"task"}), asked])
        else:
            card, splits = suite.cards[task.data], sorted(set(task.splits().values()))
            hashes = [fingerprint.of_file(path) for split in splits for path in split_files(card, split)]
            said = card.card.model_dump(mode="json", exclude=_NOT_OF_ITEMS)
            tasks.append([task.model_dump(mode="json", exclude={"data"}), said, hashes])
    return fingerprint.of_value([suite.name, suite.suite.model_dump(mode="json", exclude={"tasks"}), tasks])


def task_file(task: LmEval, folder: Path) -> Path:
    """The file of a task of lm-evaluation-harness that is named by its path.

    Args:
        folder: of the suite, which the path is relative to.

    Raises:
        EvaluationError: there is no such file.
    """
    path = folder / task.task
    if not path.is_file():
        raise EvaluationError(Problem(f"task {task.id}", f"there is no task file {path}"))
    return path


def template_hash(resolved: Resolved) -> str | None:
    """sha256 of the template file that a recipe names; None where it names the base's own, or none."""
    path = Path(resolved.recipe.data.template)
    if str(path) in ("base", "plain"):
        return None
    if not path.is_file():
        raise DataError(Problem("data.template", f"there is no template {path}", "use base, plain, or a Jinja file"))
    return fingerprint.of_file(path)


def adapter_directory(init_from: str) -> Path:
    """The adapter folder of the run that `method.init_from` names (an absolute run or adapter directory)."""
    folder = Path(init_from)
    for candidate in (folder / "adapter", folder):
        if (candidate / "adapter_config.json").is_file():
            return candidate
    raise BaseError(
        Problem(
            "method.init_from",
            f"{documents.display(folder)} holds no adapter",
            "name a finished run's directory; see `workbench runs`",
        )
    )


def adapter_hash(resolved: Resolved) -> str | None:
    """sha256 of the adapter that training starts from; None where it starts from none."""
    init_from = getattr(resolved.recipe.method, "init_from", None)
    if init_from is None:
        return None
    return fingerprint.of_file(adapter_directory(init_from) / "adapter_model.safetensors")
