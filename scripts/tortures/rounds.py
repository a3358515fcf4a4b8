"""Rounds: a run from its beginning, killed and continued by the same command until it ends, then held against the
undisturbed one."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tortures import equality, kinds, moments
from tortures.kinds import Kind
from tortures.moments import Moment
from tortures.place import Place, run_in, steps_in
from tortures.started import PATIENCE_SECONDS, HangError, Started, end_all, offspring
from workbench import files

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 24
SUITE = """tasks:
  - {{name: generate, id: facts, data: {data}/world-questions.yaml, max_items: 12, max_new_tokens: 4}}
  - {{name: heldout, id: biographies, data: {data}/world-biographies.yaml, max_items: 10}}
"""
SETTINGS = (
    f"training={{steps: {STEPS}, batch_size: 8, learning_rate: 2e-3, checkpoint_every: 3}}",
    "target.threads=1",
    "method.dropout=0.1",
)
_LOOK_SECONDS = 0.001
_GRACE_SECONDS = 5.0
"""For what a command started to end after it."""


@dataclass
class Killed:
    """One start of the command, and what became of it."""

    round_seed: int
    number: int
    """Within the round."""
    kind: str
    moment: str
    whom: str = ""
    status: int | None = None
    steps: int = 0
    """In the metrics afterwards."""
    seconds: float = 0.0
    is_kill: bool = False
    """Else it ended before, or in spite of what was done."""
    damage: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass
class Round:
    """A run from its beginning to its end."""

    seed: int
    starts: list[Killed] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Of its end, and of the comparison."""

    @property
    def kills(self) -> list[Killed]:
        """The starts that did not come to their end."""
        return [one for one in self.starts if one.is_kill]

    @property
    def holds(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems and not any(one.problems for one in self.starts)


class Torture:
    """The command, the place that its run lives in, and what happened so far."""

    def __init__(self, work: Path, devices: int, show: Callable[[str], None]) -> None:
        self.work, self.devices, self.show = work, devices, show
        self.whole = work / "whole"
        self.place = Place(work / "place")
        self.whole_seconds = 0.0
        self.rounds: list[Round] = []
        self._damaged: dict[Path, int] = {}
        self._suite = work / "few.yaml"
        self._suite.write_text(SUITE.format(data=ROOT / "datasets"))
        for folder in (self.whole, work / "said", work / "tmp"):
            folder.mkdir()

    def start(self, folder: Path) -> Started:
        """The command, on a root and a cache in a folder."""
        settings = [*SETTINGS, f"evaluation.suite={self._suite}"]
        settings += [f"target.devices={self.devices}"] if self.devices > 1 else []
        chosen = [part for setting in settings for part in ("--set", setting)]
        recipe = str(ROOT / "recipes" / "quickstart.yaml")
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "WORKBENCH_CACHE": str(folder / "cache"),
            "HF_HOME": str(self.work / "hf"),
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(self.work / "tmp"),
        }
        return Started(
            [sys.executable, "-m", "workbench", "train", recipe, "--runs", str(folder / "runs"), *chosen], environment
        )

    def undisturbed(self) -> None:
        """The run that all are held against.

        Raises:
            RuntimeError: it does not end well.
        """
        started = self.start(self.whole)
        status = started.wait()
        self.whole_seconds = started.seconds()
        started.wait_for_all()
        found = equality.unwhole(self.whole / "runs") + equality.leftovers(self.whole)
        if status or found:
            raise RuntimeError(f"the undisturbed run ended with {status}: {found}\n{started.said()}")

    def round(self, seed: int, most: int) -> Round:
        """Kill a new run until it has ended, at most so many times, and compare it."""
        self.place.clear()
        self._damaged.clear()
        one = Round(seed)
        self.rounds.append(one)
        deck = kinds.kinds(self.place.has_disk)
        random.Random(seed).shuffle(deck)
        while len(one.kills) < most:
            number = len(one.starts)
            chance = random.Random(f"{seed}/{number}")
            is_trained = (run := run_in(self.place.runs)) is not None and run.adapter.exists()
            kind = next(kind for kind in deck if kind.damage is None or not is_trained)
            deck.append(deck.pop(deck.index(kind)))
            killed = self._strike(Killed(seed, number, kind.name, ""), kind, chance)
            one.starts.append(killed)
            self._tell(killed)
            if killed.status == 0:
                break
        one.problems = self._end()
        for problem in one.problems:
            self.show(f"    AMISS: {problem}")
        return one

    def _strike(self, killed: Killed, kind: Kind, chance: random.Random) -> Killed:
        """Start the command, do it at a random moment, see how all ends, and put right what an administrator would."""
        moment = moments.draw(chance, self.place.runs, self.whole_seconds, STEPS, kind.damage is not None)
        killed.moment = moment.words
        started = self.start(self.place.folder)
        try:
            in_time = _wait_for(moment, started)
            killed.whom = kind.act(started, chance, self.place) if in_time else "nobody: it had ended"
            killed.status = started.wait()
            if kind is not kinds.KILL_COMMAND and started.outlived(_GRACE_SECONDS):
                killed.problems.append("the command had ended, and the run was worked on")
            if kind is kinds.KILL_COMMAND and offspring():
                killed.problems += self._beside()
            started.wait_for_all()
        except HangError as error:
            killed.problems.append(str(error))
        finally:
            end_all()
            self.place.free()
        killed.seconds = round(started.seconds(), 2)
        killed.steps = steps_in(self.place.runs)
        killed.is_kill = in_time and killed.status != 0
        if killed.status not in (kind.statuses | {0} if in_time else {0}):
            killed.problems.append(f"ended with {killed.status}, not {sorted(kind.statuses)}")
        killed.problems += self._amiss(started.said())
        if killed.is_kill and (broken := kinds.damaged(kind, self.place.runs, chance)):
            checkpoint, killed.damage = broken
            self._damaged[checkpoint] = checkpoint.stat().st_ino
        self._keep(killed, started.said())
        return killed

    def _beside(self) -> list[str]:
        """What is wrong when the command is given again while a worker that lost its own goes on: one of the two is
        refused, in words."""
        second = self.start(self.place.folder)
        status = second.wait()
        said = second.said()
        problems = ["a second command showed a traceback"] if "Traceback" in said else []
        if status not in (0, kinds.REFUSED) or (status and "is being worked on by" not in said):
            problems.append(f"a second command ended with {status}: {said[-300:]}")
        return problems

    def _amiss(self, said: str) -> list[str]:
        """What must not be after any end."""
        found = ["a traceback was shown"] if "Traceback" in said else []
        spared = [path for path, number in self._damaged.items() if path.exists() and path.stat().st_ino == number]
        return found + [f"half-written: {flaw}" for flaw in equality.unwhole(self.place.runs, spared)]

    def _end(self) -> list[str]:
        """Bring the run to its end, if it is not there, and compare it."""
        started = self.start(self.place.folder)
        try:
            status = started.wait()
            started.wait_for_all()
        except HangError as error:
            end_all()
            return [str(error)]
        said = started.said()
        problems = self._amiss(said)
        if status:
            return [*problems, f"the last start ended with {status}: {said[-600:]}"]
        again = self.start(self.place.folder)
        if again.wait() or "finished already" not in again.said():
            problems.append(f"a finished run was not left alone: {again.said()[-300:]}")
        again.wait_for_all()
        run = run_in(self.place.runs)
        last = list(files.read_jsonl(run.attempts))[-1] if run else {}
        if (last.get("event"), last.get("status")) != ("end", 0):
            problems.append(f"attempts.jsonl ends in {last}")
        problems += [f"left over: {path}" for path in equality.leftovers(self.place.folder)]
        return problems + equality.differences(self.whole / "runs", self.place.runs, STEPS)

    def _tell(self, killed: Killed) -> None:
        number = sum(len(one.kills) for one in self.rounds)
        sign = f"{number:>4}" if killed.is_kill else "   -"
        end = f"{killed.status!s:>4}  {killed.steps:>2} steps  {killed.seconds:>5.1f} s"
        self.show(f"{sign}  {killed.kind:<24} {killed.moment:<62} {end}  {killed.damage}".rstrip())
        for problem in killed.problems:
            self.show(f"    AMISS: {problem}")

    def _keep(self, killed: Killed, said: str) -> None:
        (self.work / "said" / f"{killed.round_seed}-{killed.number}.txt").write_text(said)

    def keep_round(self, seed: int) -> None:
        """Copy the place as it is to where it stays."""
        shutil.copytree(self.place.folder, self.work / f"round-{seed}", symlinks=True)


def _wait_for(moment: Moment, started: Started) -> bool:
    """Whether the moment came before the end."""
    while started.status() is None:
        if moment.reached(started.seconds()):
            time.sleep(moment.delay)
            return True
        if started.seconds() > PATIENCE_SECONDS:
            raise HangError("the command neither came to the moment nor ended")
        time.sleep(_LOOK_SECONDS)
    return False


def as_json(one: Round) -> dict[str, Any]:
    """A round's facts."""
    return {
        "seed": one.seed,
        "kills": len(one.kills),
        "holds": one.holds,
        "problems": one.problems,
        "starts": [vars(killed) for killed in one.starts],
    }
