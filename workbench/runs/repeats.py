"""The run that trains a finished one again: the same recipe and seed under the next unused `repeat`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from workbench import files
from workbench.recipe.identity import identity_hash
from workbench.recipe.resolved import Resolved
from workbench.recipe.tracking import Tracking
from workbench.runs.planned import Planned, planned
from workbench.runs.run import Run

_ORIGIN = Run(Path()).origin.name


def planned_again(original: Run, resolved: Resolved, root: Path) -> Planned:
    """The reproduction of a run that is there already, else a new one under the first `repeat` that no run has.

    It is not tracked: whose run this was is nobody's account here. On a CPU it takes as many threads as the original
    did, for the last bits of sums depend on them.
    """
    target = resolved.recipe.target
    if resolved.target.device == "cpu":
        threads = files.read_json(original.manifest)["hardware"]["threads"]
        target = target.model_copy(update={"threads": threads})
    update = {"tracking": Tracking(), "target": target}
    frozen = resolved.model_copy(update={"recipe": resolved.recipe.model_copy(update=update)})
    first = planned(frozen, root)
    for known in _reproductions(original, root):
        again = first.with_repeat(known.resolved().recipe.repeat)
        if again.find(root) == known:
            return again
    free = (first.with_repeat(repeat) for repeat in itertools.count(1))
    return next(one for one in free if _is_unused(one, root))


def _is_unused(one: Planned, root: Path) -> bool:
    """Whether no run was begun under its `repeat`."""
    run = one.find(root)
    return run is None or not run.attempts.exists()


def _reproductions(original: Run, root: Path) -> Iterator[Run]:
    identity = identity_hash(files.read_json(original.identity_file))
    for path in sorted(root.glob(f"*/{_ORIGIN}")):
        if files.read_json(path)["identity"] == identity:
            yield Run(path.parent)


def opened(one: Planned, original: Run, root: Path) -> Run:
    """The directory of a reproduction, made if it is not there, with the name of what it reproduces."""
    run = one.open(root)
    identity = identity_hash(files.read_json(original.identity_file))
    files.write_json(run.origin, {"run": original.name, "identity": identity})
    return run
