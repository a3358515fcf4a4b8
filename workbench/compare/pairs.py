"""Every pair of arms on every task: differences, p-values adjusted for their family, verdict words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.compare import families, power
from workbench.compare.contrasts import TaskScores
from workbench.compare.families import Word
from workbench.compare.outcomes import Contrast
from workbench.compare.question import Question
from workbench.compare.scores import TaskTable

DECLARED, EXPLORATORY = "declared", "exploratory"


@dataclass(frozen=True)
class Judged:
    """One pair on one task, with what may be said of it."""

    table: TaskTable
    contrast: Contrast
    family: str
    """declared or exploratory."""
    margin: float
    p_adjusted: float = 1.0
    word: Word = "inconclusive"

    @property
    def smallest_resolvable(self) -> float:
        """The smallest true difference that these items and seeds would find in 4 of 5 cases."""
        return power.smallest_difference(self.contrast.design)

    def needed(self) -> tuple[int | None, int | None]:
        """(items, seeds) with which a difference of the margin would be found, each alone; None where it is not
        inconclusive, or no number would do."""
        if self.word != "inconclusive":
            return None, None
        design = self.contrast.design
        return power.items_needed(self.margin, design), power.seeds_needed(self.margin, design)


def judge(
    tables: Sequence[TaskTable], scores: dict[str, TaskScores], arms: Sequence[str], question: Question
) -> list[Judged]:
    """All pairs on all tasks. The declared contrasts on the tasks that were trained for are one family (Holm), all
    other pairs another (Benjamini-Hochberg). A declared contrast whose runs are missing still counts in its family:
    what is proved may not be taken back when they come."""
    found: list[Judged] = []
    declared = [tuple(pair) for pair in question.contrasts]
    told = [pair for pair in declared if pair[0] in arms and pair[1] in arms]
    missing = (len(declared) - len(told)) * sum(table.role == "target" for table in tables)
    for table in tables:
        margin = question.margin(table.task, table.metric)
        others = [
            pair
            for pair in ((arm, against) for against, arm in itertools.combinations(arms, 2))
            if pair not in told and (pair[1], pair[0]) not in told
        ]
        for arm, against in [*told, *others]:
            family = DECLARED if table.role == "target" and (arm, against) in told else EXPLORATORY
            found.append(Judged(table, scores[table.task].contrast(arm, against), family, margin))
    return _adjusted(found, missing)


def _adjusted(found: Sequence[Judged], missing: int) -> list[Judged]:
    adjusted: dict[int, float] = {}
    for family, adjust in ((DECLARED, families.holm), (EXPLORATORY, families.benjamini_hochberg)):
        places = [at for at, one in enumerate(found) if one.family == family]
        unknown = [1.0] * missing if family == DECLARED else []
        adjusted |= dict(zip(places, adjust([*(found[at].contrast.p for at in places), *unknown]), strict=False))
    return [
        replace(one, p_adjusted=p, word=families.word(one.contrast, p, one.margin, one.table.higher_is_better))
        for one, p in ((one, adjusted[at]) for at, one in enumerate(found))
    ]


class Proofs:
    """What is proved of two arms on one task, whichever way round they were compared."""

    def __init__(self, judged: Sequence[Judged], task: str) -> None:
        self._words = {(one.contrast.arm, one.contrast.against): one for one in judged if one.table.task == task}

    def is_better(self, arm: str, against: str) -> bool:
        """Whether the first is proved better."""
        if (arm, against) in self._words:
            return self._words[arm, against].word == "better"
        return self._words[against, arm].word == "worse"

    def is_worse(self, arm: str, against: str) -> bool:
        """Whether the first is proved worse."""
        return self.is_better(against, arm)

    def is_not_worse(self, arm: str, against: str) -> bool:
        """Whether the first is proved to be at most the margin worse (the 90 % interval's end, one-sided 5 %)."""
        swapped = (arm, against) not in self._words
        one = self._words[against, arm] if swapped else self._words[arm, against]
        low, high = one.contrast.low90, one.contrast.high90
        low, high = (-high, -low) if swapped else (low, high)
        return low > -one.margin if one.table.higher_is_better else high < one.margin
