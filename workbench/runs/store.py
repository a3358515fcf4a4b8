"""The store: a folder of HF_HOME's shape from which jobs read their inputs without a network.

`hub/` is the hub's cache, `datasets/` holds what lm-evaluation-harness reads, and `prefetched/` our receipts: what was
fetched whole, with its hashes. A cache alone does not tell: the hub's library takes any part of a snapshot for all of
it where it cannot ask.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from workbench import files, hub
from workbench.catalog.cards import Row
from workbench.catalog.suites import LmEval
from workbench.errors import Problem, RunError
from workbench.recipe import inputs
from workbench.recipe.inputs import Repository
from workbench.recipe.resolved import Resolved

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_NAMED = 3
_Made = TypeVar("_Made", "Receipt", "HarnessReceipt")


class Stored(Row):
    """One file as it was fetched."""

    bytes: int
    sha256: str


class Receipt(Row):
    """One commit of a repository, of which all files that the patterns stand for were fetched."""

    kind: Literal["model", "dataset"]
    repository: str
    commit: str
    patterns: list[str]
    files: dict[str, Stored]
    """By their name in the repository."""
    fetched: str
    """When, in UTC."""


class HarnessReceipt(Row):
    """One task (or group) of lm-evaluation-harness whose data sets were fetched."""

    kind: Literal["lm_eval"] = "lm_eval"
    task: str
    version: str
    """The library's: another one may read other data sets under the same name."""
    datasets: dict[str, list[str]]
    """Task -> the fingerprints that `datasets` gives to its splits."""
    files: dict[str, Stored]
    """By their path in the store."""
    fetched: str
    """When, in UTC."""


def environment(store: Path) -> dict[str, str | None]:
    """The variables by which a process reads and writes a store (None: not set)."""
    return {
        "HF_HOME": str(store),
        "HF_HUB_CACHE": None,
        "HUGGINGFACE_HUB_CACHE": None,
        "HF_DATASETS_CACHE": str(store / "datasets"),
        # who is logged in is a matter of the person, not of the store
        "HF_TOKEN_PATH": os.environ.get("HF_TOKEN_PATH") or str(hub.home() / "token"),
    }


def missing(resolved: Resolved, store: Path) -> list[Problem]:
    """What a recipe reads from the hub and the store lacks, each with how to get it; nothing is fetched or hashed."""
    problems = [problem for wanted in inputs.repositories(resolved) if (problem := lacking(wanted, store))]
    return problems + [problem for task in inputs.harness_tasks(resolved) if (problem := _untold(task, store))]


def lacking(wanted: Repository, store: Path) -> Problem | None:
    """What a store lacks of a repository; None where all of it is there."""
    commit = commit_of(wanted, store)
    if commit is None:
        return _problem(wanted.shown, "was never prefetched", store)
    receipt = read(receipt_path(store, wanted, commit), Receipt)
    if receipt is None:
        found = f"is not known to be whole at {commit[:12]}: there is no receipt of it (or it cannot be read)"
        return _problem(wanted.shown, found, store)
    more = [pattern for pattern in wanted.patterns if pattern not in receipt.patterns]
    if more:
        return _problem(wanted.shown, f"was prefetched without {', '.join(more)}", store)
    root = hub.repository_folder(store / "hub", wanted.kind, wanted.name) / "snapshots" / commit
    needed = {name: receipt.files[name] for name in hub.matching(receipt.files, wanted.patterns)}
    return _damage(wanted.shown, root, needed, store)


def _untold(task: LmEval, store: Path) -> Problem | None:
    shown = f"lm_eval {task.task}"
    receipt = read(harness_path(store, task.task), HarnessReceipt)
    if receipt is None:
        return _problem(shown, "was never prefetched", store)
    version = harness_version()
    if receipt.version != version:
        found = f"was prefetched with lm-evaluation-harness {receipt.version}, and {version or 'none'} is installed"
        return _problem(shown, found, store)
    return _damage(shown, store, receipt.files, store)


def _damage(shown: str, root: Path, needed: Mapping[str, Stored], store: Path) -> Problem | None:
    """Files that are gone, or of another size than they were fetched with."""
    gone, cut = [], []
    for name, stored in needed.items():
        try:
            size = (root / name).stat().st_size
        except OSError:
            gone.append(name)
            continue
        if size != stored.bytes:
            cut.append(f"{name} ({size:,} bytes, not {stored.bytes:,})")
    if not gone and not cut:
        return None
    told = [f"lacks {named(gone)}"] if gone else []
    told += [f"holds another size of {named(cut)}"] if cut else []
    return _problem(shown, " and ".join(told), store)


def named(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _problem(where: str, found: str, store: Path) -> Problem:
    place = "" if store == hub.home() else f"HF_HOME={store} "
    return Problem(where, f"{found} (store {store})", f"where there is a network: {place}workbench prefetch RECIPE")


def commit_of(wanted: Repository, store: Path) -> str | None:
    """The commit that a revision stands for in a store; None where the store does not know it."""
    revision = wanted.revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    reference = hub.repository_folder(store / "hub", wanted.kind, wanted.name) / "refs" / revision
    try:
        return reference.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def receipt_path(store: Path, wanted: Repository, commit: str) -> Path:
    """Where the receipt of a commit lies."""
    return store / "prefetched" / f"{wanted.kind}--{wanted.name.replace('/', '--')}--{commit}.json"


def harness_path(store: Path, task: str) -> Path:
    """Where the receipt of a task lies."""
    return store / "prefetched" / f"lm_eval--{re.sub(r'[^A-Za-z0-9._-]', '-', task)}.json"


def harness_version() -> str:
    """The version of lm-evaluation-harness that is installed; empty where none is."""
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError:
        return ""


def read(path: Path, form: type[_Made]) -> _Made | None:
    """A receipt; None where there is none, or it cannot be read (what it stands for is then fetched or hashed anew)."""
    try:
        return form.model_validate(files.read_json(path))
    except (RunError, ValidationError):
        return None


def write(path: Path, receipt: Receipt | HarnessReceipt) -> None:
    """Keep a receipt, whole or not at all."""
    files.write_json(path, receipt.model_dump(mode="json"))
