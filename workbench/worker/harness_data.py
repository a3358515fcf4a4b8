"""The data sets of a task of lm-evaluation-harness into the store: the task is built, as a run would build it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

import datasets
from workbench.catalog.suites import LmEval
from workbench.errors import EvaluationError, Problem
from workbench.evaluation import harness
from workbench.runs import store as stores
from workbench.runs.store import HarnessReceipt, Stored
from workbench.worker import fetching
from workbench.worker.fetching import Brought, State


def bring(task: LmEval, folder: Path, store: Path) -> Brought:
    """Have all rows of a task in the store.

    Raises:
        EvaluationError: there is no such task, or its rows cannot be fetched.
    """
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    before = stores.read(stores.harness_path(store, task.task), HarnessReceipt)
    known = before if before is not None and before.version == stores.harness_version() else None
    damaged = [name for name, was in known.files.items() if not _is_sound(store / name, was)] if known else []
    for name in damaged:  # the library takes a data set by its folder: one without a file would be taken as well
        shutil.rmtree((store / name).parent, ignore_errors=True)
    tasks = build(task, folder)
    stored = {path.relative_to(store.resolve()).as_posix(): fetching.stored(path) for path in _files(tasks, store)}
    state: State = "damaged, fetched again" if damaged else "fetched"
    if known is not None and not damaged and known.files == stored:
        state = "there, verified"
    receipt = HarnessReceipt(
        task=task.task,
        version=stores.harness_version(),
        datasets={name: _fingerprints(one.dataset) for name, one in sorted(tasks.items())},
        files=dict(sorted(stored.items())),
        fetched=known.fetched if known is not None and state == "there, verified" else fetching.now(),
    )
    stores.write(stores.harness_path(store, task.task), receipt)
    size = sum(one.bytes for one in stored.values())
    return Brought("lm_eval", task.task, f"lm_eval {receipt.version}", len(stored), size, state)


def _is_sound(path: Path, was: Stored) -> bool:
    try:
        return fetching.stored(path) == was
    except OSError:
        return False


def build(task: LmEval, folder: Path) -> dict[str, Any]:
    """The task, or the tasks of a group, with their data sets loaded.

    Raises:
        EvaluationError: there is no such task, or its rows are not to be had.
    """
    manager, name = harness.find(task, folder)
    try:
        return dict(manager.load([name])["tasks"])
    except (DatasetsError, HTTPError, KeyError, ValueError, OSError, RuntimeError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        found = f"its data set cannot be had: {first[:200]}"
        raise EvaluationError(Problem(f"lm_eval {task.task}", found, "prefetch where there is a network")) from None


def _splits(found: Any) -> list[Any]:
    """The splits of a data set; none where a task makes its rows itself."""
    return list(found.values()) if isinstance(found, dict) else []


def _fingerprints(found: Any) -> list[str]:
    return [str(getattr(split, "_fingerprint", "")) for split in _splits(found)]


def _files(tasks: dict[str, Any], store: Path) -> Iterator[Path]:
    """The files in the store that the tasks read, each once."""
    rows = {
        Path(os.path.normpath(file["filename"])).resolve()
        for task in tasks.values()
        for split in _splits(task.dataset)
        for file in getattr(split, "cache_files", [])
    }
    about = {path.parent / "dataset_info.json" for path in rows}
    paths = rows | {path for path in about if path.is_file()}
    yield from sorted(path for path in paths if path.is_relative_to(store.resolve()))
