"""Whether another form of a result is the same model: by its distributions, token by token, and by its scores.

Distributions are held against what precision itself does. In fp32 two orders of the same sums were at most 5e-12 nats a
token apart (small bases; docs/exporting.md). The limit of 1e-8 leaves room for deep ones: it is about the divergence of
logits that differ by 1e-4 of their spread, which `methods.proof` allows to saved files. In half
precision the floor is measured in every export: what the same adapter on the same weights gives in fp32 arithmetic.
Four times that is a rounding more, not another model. A coarser form (fewer bits than the run) is another model by
design: it may lose a hundredth of what training changed, or its scores must be proved equivalent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from workbench.compare.contrasts import TaskScores
from workbench.compare.question import margin
from workbench.evaluation.agreement import Agreement
from workbench.evaluation.scoring import Row

Kind = Literal["fp32", "half", "coarser"]
"""As exact as the run, in its precision (half: bf16 or fp16), or with fewer bits than the run has."""

_FP32_KL = 1e-8
_FP32_SHARE = 1e-3
_FP32_AGREEMENT = 0.999
_FLOORS = 4.0
_HALF_SLACK = 0.01
_COARSER_SHARE = 0.01


@dataclass(frozen=True)
class Reference:
    """What forms are held against: the result as it was scored."""

    effect: Agreement | None
    """Of its base without the adapter: what training changed. None where there is no adapter to take off."""
    floor: Agreement | None
    """Of the same adapter on the same weights in fp32 arithmetic: what precision alone moves. None: not measured."""


@dataclass(frozen=True)
class Difference:
    """A form's score minus the reference's on one task, paired by item."""

    task: str
    metric: str
    reference: float
    value: float
    difference: float
    low: float | None
    """Of the 95 % interval; None: no end can be given."""
    high: float | None
    low90: float | None
    high90: float | None
    margin: float
    items: int
    word: Literal["equivalent", "different", "unresolved"]
    """equivalent: the 90 % interval lies inside the margin; different: it does not, and the 95 % interval excludes
    zero; unresolved: neither."""


@dataclass(frozen=True)
class Judged:
    """Whether a form passes, and why."""

    passed: bool
    limit_kl: float | None
    """Of the mean divergence, nats a token; None: there was nothing to take one from."""
    limit_agreement: float | None
    reasons: list[str]
    differences: list[Difference] = field(default_factory=list)

    def as_words(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def differences(reference: Sequence[Row], rows: Sequence[Row], tasks: Mapping[str, Any]) -> list[Difference]:
    """Both models' item rows, task by task.

    Args:
        reference, rows: each row with its `task`; the same items.
        tasks: the suite's results by task, for their metrics.
    """
    found = []
    for task, facts in tasks.items():
        ours, theirs = (_sorted(one, task) for one in (reference, rows))
        assert [row["id"] for row in ours] == [row["id"] for row in theirs], "one suite"
        names = ("reference", "form")
        scores = TaskScores(
            {name: np.array([[row["value"] for row in one]]) for name, one in zip(names, (ours, theirs), strict=True)},
            np.array([row["weight"] for row in ours], dtype=float),
            [str(row["cluster"]) for row in ours],
            fixed=frozenset(names),
        )
        values = [scores.score(name).estimate.value for name in names]
        found.append(_difference(task, facts["metric"], values, scores))
    return found


def _sorted(rows: Sequence[Row], task: str) -> list[Row]:
    return sorted((row for row in rows if row["task"] == task), key=lambda row: str(row["id"]))


def _difference(task: str, metric: str, values: Sequence[float], scores: TaskScores) -> Difference:
    one = scores.contrast("form", "reference")
    most = margin({}, task, metric)
    word: Literal["equivalent", "different", "unresolved"] = "unresolved"
    if -most < one.low90 and one.high90 < most:
        word = "equivalent"
    elif one.low > 0 or one.high < 0:
        word = "different"
    return Difference(
        task, metric, values[0], values[1], one.difference,
        low=_finite(one.low), high=_finite(one.high), low90=_finite(one.low90), high90=_finite(one.high90),
        margin=most, items=one.num_items, word=word,
    )  # fmt: skip


def _finite(end: float) -> float | None:
    return end if math.isfinite(end) else None


def judge(kind: Kind, found: Agreement, reference: Reference, scores: Sequence[Difference]) -> Judged:
    """A form passes where no score is different, and its distributions are within the limit (of a coarser form: or
    every score is equivalent)."""
    limit, agreement, why = _limits(kind, reference)
    kl = f"mean KL {found.mean_kl:.2g} nats a token"
    near = limit is not None and found.mean_kl <= limit and found.agreement >= (agreement or 0.0)
    reasons = []
    if limit is None:
        reasons.append(f"{kl}: {why}")
    elif found.mean_kl > limit:
        reasons.append(f"{kl}, above {limit:.2g} ({why})")
    elif not near:
        reasons.append(f"{found.agreement:.2%} of the likeliest tokens agree, below {agreement:.2%} ({why})")
    else:
        reasons.append(f"{kl}, within {limit:.2g} ({why})")
    words = {one.word for one in scores}
    proved = bool(scores) and words == {"equivalent"}
    reasons += [_in_words(one) for one in scores]
    passed = "different" not in words and (near or (kind == "coarser" and proved))
    if kind == "coarser" and not near and not proved and "different" not in words:
        reasons.append("so nothing proves it equivalent" + ("" if scores else ": the run has no suite"))
    return Judged(passed, limit, agreement, reasons, list(scores))


def _limits(kind: Kind, reference: Reference) -> tuple[float | None, float | None, str]:
    """Of the mean divergence and of the agreement, and where they come from."""
    effect, floor = reference.effect, reference.floor
    if kind == "coarser":
        if effect is None:
            return None, None, "what training changed is not known without an adapter to take off"
        return _COARSER_SHARE * effect.mean_kl, None, f"{_COARSER_SHARE:.0%} of what training changed"
    if kind == "half" and floor is not None:
        agreement = 1.0 - _FLOORS * (1.0 - floor.agreement) - _HALF_SLACK
        why = f"{_FLOORS:.0f} times what the run's own precision moves"
        return max(_FP32_KL, _FLOORS * floor.mean_kl), max(0.0, agreement), why
    if effect is None or effect.mean_kl * _FP32_SHARE >= _FP32_KL:
        return _FP32_KL, _FP32_AGREEMENT, "the order of sums"
    return effect.mean_kl * _FP32_SHARE, _FP32_AGREEMENT, f"{_FP32_SHARE:.1%} of what training changed"


def _in_words(one: Difference) -> str:
    low, high = (f"{end:+z.4f}" if end is not None else "?" for end in (one.low90, one.high90))
    inside = {"equivalent": "inside", "different": "not inside", "unresolved": "not inside"}[one.word]
    few = "; nothing shows a difference, the items are too few to exclude one" if one.word == "unresolved" else ""
    return (
        f"{one.task} {one.word}: {one.metric} {one.difference:+z.4f}, 90 % interval [{low}, {high}] {inside} "
        f"±{one.margin:g} over {one.items:,} items{few}"
    )
