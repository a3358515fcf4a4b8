"""Arms that are the same recipe and seeds once more (A/A): how far two equal runs lie apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from workbench import files
from workbench.compare.arms import ArmRuns
from workbench.compare.contrasts import TaskScores
from workbench.compare.scores import TaskTable


def copies(arms: Sequence[ArmRuns]) -> frozenset[str]:
    """The arms that repeat another one."""
    return frozenset(arm.name for arm in arms if arm.facts[0]["repeat"] and any(_is_again(arm, one) for one in arms))


def noise_floor(
    arms: Sequence[ArmRuns], tables: Sequence[TaskTable], scores: Mapping[str, TaskScores]
) -> list[dict[str, Any]]:
    """Arms that are the same recipe and seeds once more: how far two equal runs lie apart."""
    found = []
    for arm, again in itertools.combinations(arms, 2):
        if not _is_again(arm, again):
            continue
        threads = {facts.get("machine.threads") for facts in (*arm.facts, *again.facts)}
        exact = arm.facts[0]["device"] == "cpu" and arm.facts[0]["dtype"] == "fp32" and len(threads) == 1
        for table in tables:
            one, other = (scores[table.task].score(name).per_seed for name in (arm.name, again.name))
            apart = max(abs(a - b) for a, b in zip(one, other, strict=True))
            pair = {"arm": again.name, "against": arm.name, "task": table.task}
            found.append({**pair, "largest_difference": apart, "expected_zero": exact})
    return found


def _is_again(arm: ArmRuns, again: ArmRuns) -> bool:
    """Whether two arms are the same recipe and seeds, run twice."""
    other = arm.facts[0]["repeat"] != again.facts[0]["repeat"]
    return other and _but_for_the_repeat(arm) == _but_for_the_repeat(again)


def _but_for_the_repeat(arm: ArmRuns) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in files.read_json(run.identity_file).items() if key != "repeat"} for run in arm.runs
    ]
