"""Bring the missing runs of a study to their end, one after the other. One that fails does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from workbench.errors import ExitStatus, StoppedError
from workbench.launch import local
from workbench.runs import lock
from workbench.study.plan import Plan, StudyRun

_LOOK_AGAIN_SECONDS = 2.0


@dataclass(frozen=True)
class Failure:
    """A run that did not come to its end."""

    run: StudyRun
    status: int


def bring(plan: Plan, say: Callable[[str], None]) -> list[Failure]:
    """Train and score what is missing. A run that another process works on is left to it and waited for.

    Raises:
        StoppedError: a run was stopped from outside, and the study with it; the same command continues.
        KeyboardInterrupt: by Ctrl-C.
    """
    todo = [one for one in plan.runs if not one.planned.is_done(plan.root)]
    failures: list[Failure] = []
    total, done = len(plan.runs), len(plan.runs) - len(todo)
    waiting = False
    while todo:
        free = next((one for one in todo if not _is_held(plan, one)), None)
        if free is None:
            if not waiting:
                say("the rest is being worked on by other processes; waiting for them")
            waiting = True
            time.sleep(_LOOK_AGAIN_SECONDS)
            continue
        todo.remove(free)
        done += 1
        if free.planned.is_done(plan.root):  # meanwhile, by somebody else
            continue
        run = free.planned.open(plan.root)
        say(f"run {done} of {total}: {free.arm}, seed {free.seed} ({run.name})")
        status = local.train(run)
        if status == ExitStatus.INTERRUPTED:
            raise KeyboardInterrupt
        if status == ExitStatus.PREEMPTED:
            raise StoppedError(f"stopped in {run.name}; everything is kept, and the same command continues")
        if status and (lock.is_held(run) or free.planned.is_done(plan.root)):  # somebody else was faster
            todo.append(free)
            done -= 1
        elif status:
            say(f"{free.arm}, seed {free.seed} failed with status {status}; the others go on")
            failures.append(Failure(free, status))
    return failures


def _is_held(plan: Plan, one: StudyRun) -> bool:
    run = one.find(plan.root)
    return run is not None and lock.is_held(run)
