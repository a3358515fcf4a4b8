"""What of run directories is packed, and what is left out with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench import files, seals
from workbench.compare.arms import but_for_the_rate
from workbench.errors import Problem, RunError
from workbench.recipe.identity import identity_hash
from workbench.runs import ledger, lock
from workbench.runs.run import Run

_NAMES = Run(Path())
_FOLDERS = {_NAMES.adapter.name, _NAMES.evaluation("").name, _NAMES.pissa_start.name}
"""Folders of a run that are packed whole. Others are no part of it: what trackers keep, exports, checkpoints."""


def with_what_they_need(runs: Sequence[Run]) -> list[Run]:
    """The runs, those that they start from, and those in which their bases are scored; each once."""
    found: dict[Path, Run] = {}
    todo = list(runs)
    while todo:
        run = todo.pop(0)
        if run.path in found:
            continue
        found[run.path] = run
        if files.read_json(run.identity_file)["method"]["name"] != "none":
            todo += [other for other in (ledger.base_of(run), ledger.start_of(run)) if other is not None]
    return [run for run in found.values() if run.resolved_file.exists()]  # a start may be a bare adapter


def refuse_running(runs: Sequence[Run]) -> None:
    """Refuse runs whose files change under our hands.

    Raises:
        RunError: names every one.
    """
    problems = [
        Problem(run.name, f"is being worked on by {lock.read_holder(run)}", "wait for it, or `workbench cancel` it")
        for run in runs
        if lock.is_held(run)
    ]
    if problems:
        raise RunError(problems)


def packed(run: Run) -> tuple[list[Path], dict[str, str]]:
    """The files of a run that are packed, and what is left out: path from the run -> why.

    Raises:
        RunError: a link leads nowhere.
    """
    chosen: list[Path] = []
    left_out: dict[str, str] = {}
    for path in sorted(run.path.iterdir()):
        if path == run.checkpoints:
            kept, dropped = _checkpoint(run)
            chosen += kept
            left_out |= dropped
        elif path == run.lock or path.name.startswith("."):
            left_out[path.name] = "says who works on the run, or is half written"
        elif path.is_dir():
            if path.name in _FOLDERS:
                chosen += inside(path)
            else:
                left_out[f"{path.name}/"] = "is no part of the run (what a tracker keeps, or an export)"
        else:
            chosen += _file(path)
    return chosen, left_out


def _checkpoint(run: Run) -> tuple[list[Path], dict[str, str]]:
    """The newest whole checkpoint of a run that is not finished."""
    left_out = {}
    chosen: list[Path] = []
    for path in seals.newest_first(run.checkpoints):
        name = f"{run.checkpoints.name}/{path.name}/"
        if run.is_finished():
            left_out[name] = "the run is finished"
        elif chosen:
            left_out[name] = "a newer one is whole"
        elif (flaw := seals.flaw(path)) is not None:
            left_out[name] = flaw
        else:
            chosen = inside(path)
    return chosen, left_out


def inside(folder: Path) -> list[Path]:
    """The files under a folder, links followed (each folder once: they may go round).

    Raises:
        RunError: a link leads nowhere.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            found += _file(Path(place) / name)
    return sorted(found)


def _file(path: Path) -> list[Path]:
    """A regular file, or what a link stands for; sockets and the like are nothing to pack."""
    if path.is_symlink() and not path.exists():
        raise RunError(
            Problem(str(path), f"is a link to {path.readlink()}, which is not there", "remove it, or fetch it")
        )
    return [path] if path.is_file() else []


def left_behind(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Identities of finished runs that are not packed and differ from packed ones in learning rate (or seed) only: a
    verdict says how many rates were tried."""
    packed_ = [files.read_json(run.identity_file) for run in runs]
    known = {identity_hash(facts) for facts in packed_}
    alike = {but_for_the_rate(facts) for facts in packed_ if facts["method"]["name"] != "none"}
    for root in sorted({run.path.parent for run in runs}):
        for facts in ledger.identities(root):
            if but_for_the_rate(facts) in alike and identity_hash(facts) not in known:
                known.add(identity_hash(facts))
                yield facts
