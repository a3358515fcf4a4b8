"""When something happens to a run: a random time since its start, or a random event of it and a few milliseconds."""

from __future__ import annotations

import glob
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tortures.place import newest_sealed, run_in, steps_in

TIMES, STEPS, CHECKPOINTS, FILES = "time", "steps", "checkpoints", "files"
_WEIGHTS = {TIMES: 2, STEPS: 3, CHECKPOINTS: 3, FILES: 4}
_DELAY_SECONDS = 0.03
_NEAR_STEPS, _NEAR_CHECKPOINTS, _NEAR_FILES = 9, 2, 8
"""Moments are drawn from what comes next: a run that is killed often tells more than several that are killed once."""
_RUN = "quickstart-*"
_CACHE = "cache:"
EVERY_TIME = (f"{_RUN}/recipe.yaml", f"{_RUN}/resolved.json", f"{_RUN}/lock")
"""Written anew by every start."""
BEFORE_THE_RESULT = (f"{_RUN}/manifest.json", f"{_RUN}/data.json", f"{_RUN}/plan.json", f"{_RUN}/.adapter.tmp-*")
"""By every start until training has left its result."""
IN_ORDER = (
    *EVERY_TIME,
    f"{_RUN}/manifest.json",
    *(f"base-*/{name}" for name in ("recipe.yaml", "manifest.json", "eval/*/items.jsonl", "status.json")),
    f"{_CACHE}rows/*",
    *(f"{_RUN}/{name}" for name in ("data.json", "plan.json", "preflight.json", "probe.safetensors", "training.json",
      ".adapter.tmp-*", "adapter", "proof.json", "eval/*/items.jsonl", "eval/*/results.json", "cost.json",
      "status.json")),
)  # fmt: skip
_IN_CHECKPOINTS = ("", "/adapter_model.safetensors", "/optimizer.pt", "/rng_state*.pth", "/trainer_state.json",
                   "/sealed.json")  # fmt: skip
"""The folder itself, or a file of it."""


@dataclass(frozen=True)
class Moment:
    """Reached when `reached` (asked again and again, with the seconds since the start) says so, and `delay` later."""

    words: str
    reached: Callable[[float], bool]
    delay: float


def draw(chance: random.Random, runs: Path, whole_seconds: float, total_steps: int, with_checkpoint: bool) -> Moment:
    """A moment that a run in this state may still come to.

    Args:
        whole_seconds: that an undisturbed run takes.
        with_checkpoint: only one after which a sealed checkpoint is there.
    """
    run, first = run_in(runs), steps_in(runs) + 1
    is_trained = run is not None and run.adapter.exists()
    awaits = with_checkpoint and newest_sealed(runs) is None
    options: dict[str, Sequence[Any]] = {TIMES: [chance.uniform(0, whole_seconds)]}
    options[FILES] = _to_come(runs, is_trained)[:_NEAR_FILES]
    if not is_trained:
        start = max(first, 7 if awaits else 0)
        options[STEPS] = range(start, min(start + _NEAR_STEPS, total_steps + 1))
        options[CHECKPOINTS] = range(1 + awaits, 1 + awaits + _NEAR_CHECKPOINTS)
    if awaits:
        options.pop(TIMES), options.pop(FILES)
    kinds = [kind for kind, choices in options.items() if choices]
    kind = chance.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]
    chosen, delay = chance.choice(options[kind]), chance.uniform(0, _DELAY_SECONDS)
    if kind == TIMES:
        return Moment(f"{chosen:.2f} s after the start", lambda since: since >= chosen, 0.0)
    if kind == STEPS:
        return Moment(f"line {chosen} of the metrics", lambda _: steps_in(runs) >= chosen, delay)
    if kind == CHECKPOINTS:
        return new_checkpoint(runs, chosen, chance.choice(_IN_CHECKPOINTS), delay)
    return changed(runs, chosen, delay)


def changed(runs: Path, pattern: str, delay: float) -> Moment:
    """A file or folder is there anew."""
    before = set(_signatures(runs, pattern))
    words = f"{pattern.replace(_CACHE, 'cache/')} is there"
    return Moment(words, lambda _: not before.issuperset(_signatures(runs, pattern)), delay)


def new_checkpoint(runs: Path, count: int, inside: str, delay: float) -> Moment:
    """So many checkpoints were begun (a file of the last of them is there) that were not there before."""
    patterns = [f"{_RUN}/checkpoints/{aside}checkpoint-*{inside}" for aside in ("", ".*/")]
    known: set[tuple[str, int]] = set()

    def seen() -> set[tuple[str, int]]:
        return {(path.parent.name if inside else path.name, number)
                for pattern in patterns for path, number, _ in _signatures(runs, pattern)}  # fmt: skip

    before = seen()

    def reached(_: float) -> bool:
        known.update(seen() - before)  # older ones are removed meanwhile
        return len(known) >= count

    return Moment(f"checkpoint{inside or ' folder'} {count} of this start is there", reached, delay)


def _to_come(runs: Path, is_trained: bool) -> list[str]:
    again = EVERY_TIME if is_trained else (*EVERY_TIME, *BEFORE_THE_RESULT)
    gone = BEFORE_THE_RESULT if is_trained else ()
    there = {pattern for pattern in IN_ORDER if any(_signatures(runs, pattern))}
    return [pattern for pattern in IN_ORDER if pattern in again or not (pattern in there or pattern in gone)]


def _signatures(runs: Path, pattern: str) -> Iterator[tuple[Path, int, int]]:
    """What matches, with what changes when it is written anew."""
    folder = runs.parent / "cache" if pattern.startswith(_CACHE) else runs
    for name in glob.iglob(pattern.removeprefix(_CACHE), root_dir=folder):  # noqa: PTH207 - Path's raises where folders go
        path = folder / name
        try:
            found = path.stat()
        except OSError:  # gone meanwhile
            continue
        yield path, found.st_ino, 0 if path.is_dir() else found.st_mtime_ns
