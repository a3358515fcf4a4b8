"""The verdict of a comparison: gate, scores, contrasts, tiers, fronts, transfer, all as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.compare import again, families, fronts, gate, pairs, power, scores, scratch, sentence
from workbench.compare import arms as arm_rows
from workbench.compare.arms import ArmRuns
from workbench.compare.contrasts import TaskScores
from workbench.compare.evidence import evidence
from workbench.compare.facts import Facts
from workbench.compare.fields import SEED
from workbench.compare.gate import Gate
from workbench.compare.pairs import Judged, Proofs
from workbench.compare.question import Question
from workbench.compare.scores import Scored, TaskTable

SCHEMA = 1
"""Raised when verdict.json changes its shape."""

_BASE_KEY = "base of {}"
"""What the base of an arm is called where the study has no arm for it."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, and what its report shows beside it."""

    verdict: dict[str, Any]
    evidence: dict[str, Any]


@dataclass(frozen=True)
class _Case:
    """What all parts of the verdict are made from."""

    question: Question
    arms: list[ArmRuns]
    tables: list[TaskTable]
    scores: dict[str, TaskScores]
    bases: dict[str, str]
    """Trained arm -> what its base is called in the tables."""
    judged: list[Judged]
    converged: dict[str, bool | None]
    gate: Gate


def judge(question: Question, runs: Mapping[str, Sequence[Scored]]) -> Judgement:
    """Judge finished runs.

    Args:
        runs: arm -> its runs, one a seed.

    Raises:
        ComparisonRefusedError: there are confounds and the question does not allow them, or nothing can be paired.
    """
    arms = [arm_rows.read(name, found) for name, found in runs.items()]
    facts = {arm.name: arm.facts for arm in arms}
    found = gate.check(facts, question.vary)
    if not question.allow_confounds:
        declare = "--vary {}" if question.kind == "comparison" else "vary: [{}]"
        gate.refuse_confounds(found, facts, question.vary, declare)
    case = _case(question, arms, found)
    return Judgement(_verdict(case), _finite(evidence(case.arms, case.tables)))


def _case(question: Question, arms: list[ArmRuns], found: Gate) -> _Case:
    own = {(one.run.path.resolve(), one.suite): arm.name for arm in arms if arm.is_fixed for one in arm.scored}
    bases: dict[str, str] = {}
    more: dict[str, list[Scored]] = {}
    known: dict[Scored, list[Facts]] = {}  # many arms start from one base
    for arm in arms:
        base = arm_rows.base_run(arm)
        if base is None:
            continue
        if base not in known:
            known[base] = arm_rows.read("", [base]).facts
        if gate.check({arm.name: arm.facts, "": known[base]}, [SEED]).confounds:
            continue  # what changed would not be training alone
        place = (base.run.path.resolve(), base.suite)
        if place not in own:
            own[place] = _BASE_KEY.format(arm.name)
            more[own[place]] = [base]
        bases[arm.name] = own[place]
    tables = scores.read({arm.name: arm.scored for arm in arms} | more)
    fixed = frozenset(arm.name for arm in arms if arm.is_fixed) | frozenset(more)
    copies = again.copies(arms)
    made = {table.task: TaskScores(table.values, table.weights, table.clusters, fixed, copies) for table in tables}
    judged = pairs.judge(tables, made, [arm.name for arm in arms], question)
    converged = {arm.name: arm_rows.has_converged(arm) for arm in arms}
    return _Case(question, arms, tables, made, bases, judged, converged, found)


def _verdict(case: _Case) -> dict[str, Any]:
    question = case.question
    tiers = {table.task: _tiers(case, table) for table in case.tables}
    contrasts = [_contrast(case, one) for one in case.judged]
    suite = case.arms[0].scored[0].results
    transfer = scratch.weigh(question, case.arms, case.converged, case.tables, case.scores)
    verdict = {
        "schema": SCHEMA,
        "name": question.name,
        "kind": question.kind,
        "question": question.question,
        "sentence": "",
        "complete": not question.missing,
        "missing": [dict(one) for one in question.missing],
        "suite": {
            "name": question.suite,
            "fingerprint": suite["fingerprint"],
            "tasks": [_task(case, table) for table in case.tables],
        },
        "reference": question.reference,
        "arms": _arms(case, tiers),
        "contrasts": contrasts,
        "tiers": tiers,
        "noise_floor": again.noise_floor(case.arms, case.tables, case.scores),
        "measured_under": fronts.measured_under(case.gate),
        "pareto": fronts.fronts(case.arms, case.tables, case.judged, case.gate),
        "transfer": transfer,
        "gate": case.gate.as_words(question.allow_confounds),
        "power": _power(case),
        "reproduce": [
            {"arm": arm.name, "seed": seed, "run": run.name, "command": sentence.command(run)}
            for arm in case.arms
            for seed, run in zip(arm.seeds, arm.runs, strict=True)
        ],
    }
    verdict = dict(_finite(verdict))
    return verdict | {"sentence": sentence.of(verdict)}


def _task(case: _Case, table: TaskTable) -> dict[str, Any]:
    estimate = case.scores[table.task].score(case.arms[0].name).estimate
    return {
        "id": table.task,
        "metric": table.metric,
        "higher_is_better": table.higher_is_better,
        "role": table.role,
        "items": estimate.items,
        "clusters": estimate.clusters,
        "margin": case.question.margin(table.task, table.metric),
    }


def _arms(case: _Case, tiers: Mapping[str, list[list[str]]]) -> list[dict[str, Any]]:
    settings = arm_rows.settings(case.arms, case.question.vary)
    rates = arm_rows.rates_tried(case.arms)
    return [
        {
            "name": arm.name,
            "label": sentence.label(arm),
            "seeds": arm.seeds,
            "deterministic": arm.is_fixed,
            "trained": arm.trains,
            "from_scratch": arm.from_scratch,
            "runs": [run.name for run in arm.runs],
            "settings": settings[arm.name],
            "scores": {table.task: _score(case, table, arm.name) for table in case.tables},
            "retention": _retention(case, arm),
            "cost": arm_rows.cost_row(arm),
            "tuning": _tuning(rates.get(arm.name)),
            "tier": {
                task: next(at for at, names in enumerate(found, 1) if arm.name in names)
                for task, found in tiers.items()
            },
            "converged": case.converged[arm.name],
        }
        for arm in case.arms
    ]


def _tuning(rates: int | None) -> dict[str, Any] | None:
    return None if rates is None else {"learning_rates_tried": rates, "untuned": rates == 1}


def _score(case: _Case, table: TaskTable, arm: str) -> dict[str, Any]:
    score = case.scores[table.task].score(arm)
    place = {"value": score.estimate.value, "low": score.estimate.low, "high": score.estimate.high}
    return {**place, "per_seed": score.per_seed, "seed_sd": score.seed_sd, "items_se": score.items_se}


def _retention(case: _Case, arm: ArmRuns) -> dict[str, Any]:
    """What the base could do before, after training: item by item against the untouched base."""
    if arm.name not in case.bases:
        return {}
    found = {}
    for table in (table for table in case.tables if table.role == "retention"):
        task = case.scores[table.task]
        change = task.contrast(arm.name, case.bases[arm.name])
        before, after = (task.score(name).estimate.value for name in (case.bases[arm.name], arm.name))
        interval = {"change": change.difference, "low": change.low, "high": change.high}
        found[table.task] = {"before": before, "after": after, **interval}
    return found


def _contrast(case: _Case, one: Judged) -> dict[str, Any]:
    found = one.contrast
    items, seeds = one.needed()
    return {
        "task": one.table.task,
        "arm": found.arm,
        "against": found.against,
        "family": one.family,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "items_variance": found.items_variance,
        "seeds_variance": found.seeds_variance,
        "p": found.p,
        "p_method": found.p_method,
        "p_exact": found.p_exact,
        "p_adjusted": one.p_adjusted,
        "adjustment": "holm" if one.family == pairs.DECLARED else "benjamini-hochberg",
        "margin": one.margin,
        "word": one.word,
        "suggestive": found.single_seed,
        "smallest_resolvable": one.smallest_resolvable,
        "items_needed": items,
        "seeds_needed": seeds,
        "confounded": case.gate.is_confounded(found.arm, found.against),
        "at_bound": _at_bound(one),
    }


def _at_bound(one: Judged) -> str | None:
    """floor or ceiling, where every item of both arms is wrong, or right: nothing could have told them apart."""
    both = np.concatenate([one.table.values[arm].ravel() for arm in (one.contrast.arm, one.contrast.against)])
    if not one.table.higher_is_better or not np.isin(both, (0.0, 1.0)).all() or np.ptp(both) > 0:
        return None
    return "ceiling" if both[0] else "floor"


def _tiers(case: _Case, table: TaskTable) -> list[list[str]]:
    sign = -1 if table.higher_is_better else 1
    values = {arm.name: case.scores[table.task].score(arm.name).estimate.value for arm in case.arms}
    proofs = Proofs(case.judged, table.task)
    return families.tiers(sorted(values, key=lambda name: sign * values[name]), proofs.is_worse)


def _power(case: _Case) -> dict[str, Any]:
    """What could be resolved, reckoned without a look at any result."""
    seeds = max(len(arm.runs) for arm in case.arms)
    return {
        "smallest_resolvable": {
            table.task: power.smallest_difference(power.prior(len(set(table.clusters)), table.metric, seeds))
            for table in case.tables
        },
        "assumed_run_sd": power.RUN_SD,
        "assumed_correlation": power.CORRELATION,
    }


def _finite(value: Any) -> Any:
    """JSON knows no infinity: an open end of an interval is null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
