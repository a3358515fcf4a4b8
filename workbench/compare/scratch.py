"""A study's arms as the rungs and targets of the from-scratch ladder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from workbench import files
from workbench.compare.arms import ArmRuns
from workbench.compare.contrasts import TaskScores
from workbench.compare.question import Question
from workbench.compare.scores import TaskTable
from workbench.compare.transfer.equivalents import Pretraining, Rung, Target, transfer
from workbench.compare.transfer.figure import Figure, Unit

_OF_THE_AMOUNT = ("training.epochs", "training.steps", "training.checkpoint_every")
_ROUGHLY = 1.5
"""How far off a pretraining reckoned as 6 operations a parameter and token may be: attention and later stages are left
out, and counts of tokens are published in round numbers."""


def weigh(
    question: Question,
    arms: Sequence[ArmRuns],
    converged: dict[str, bool | None],
    tables: Sequence[TaskTable],
    scores: dict[str, TaskScores],
) -> dict[str, Any] | None:
    """The `transfer` part of a verdict; None where the study has no ladder, or no task to read it on."""
    table = _table(question, tables)
    ladder = [arm for arm in arms if arm.name in question.ladder]
    targets = [arm for arm in arms if arm.name not in question.ladder and not arm.from_scratch]
    if not ladder or table is None:
        return None
    found = scores[table.task]
    kinds = Counter(_but_for_its_data(arm) for arm in targets)
    series = {
        arm.name: f"{question.families.get(arm.name, arm.name)} on {arm.base_name}"
        for arm in targets
        if arm.trains and kinds[_but_for_its_data(arm)] > 1
    }
    rows: list[dict[str, Any]] = []
    crossover: dict[str, Any] = {}
    for base, name in dict.fromkeys((_base(arm), arm.facts[0]["base.name"]) for arm in targets):
        of_base = [arm for arm in targets if (_base(arm), arm.facts[0]["base.name"]) == (base, name)]
        made = transfer(
            [_rung(arm, base, converged, found) for arm in ladder],
            [_target(arm, series.get(arm.name), converged, found) for arm in of_base],
            Unit.TEXT_BYTES,
            _pretraining(of_base[0]),
        )
        for arm, one in zip(of_base, made.arms, strict=True):
            figures = {name: _figure(value) for name, value in vars(one).items() if isinstance(value, Figure)}
            rows.append({**_point(arm, found), **figures, "error_budget": one.error_budget})
        crossover |= {series: _figure(figure) for series, figure in made.crossover.items()}
    rungs = [{**_point(arm, found), "converged": converged[arm.name]} for arm in ladder]
    same_rows = len({_rows(arm) for arm in [*ladder, *targets] if arm.trains}) == 1
    return {
        "task": table.task,
        "kind": "task-only" if same_rows else "general",
        "suggestive": any(len(arm.runs) == 1 for arm in [*ladder, *targets] if not arm.is_fixed),
        "unit": Unit.TEXT_BYTES.value,
        "rungs": rungs,
        "arms": rows,
        "crossover": crossover,
    }


def _table(question: Question, tables: Sequence[TaskTable]) -> TaskTable | None:
    """The task that the ladder is read on: the named one, else the first one where lower is better."""
    fitting = [table for table in tables if not table.higher_is_better]
    fitting.sort(key=lambda table: table.role != "target")
    return next((table for table in fitting if question.ladder_task in (None, table.task)), None)


def distinct_bytes(arm: ArmRuns) -> float:
    """The text that an arm has seen in training, each row counted once, bytes; the mean over its seeds."""
    if not arm.trains:
        return 0.0
    sizes = [
        min(files.read_json(run.data)["counted_text_bytes"], cost["text_bytes"])
        for run, cost in zip(arm.runs, arm.costs, strict=True)
    ]
    return float(sum(sizes)) / len(sizes)


def _base(arm: ArmRuns) -> str:
    """What architecture and size an arm has, whether its weights are pretrained or random."""
    facts = arm.facts[0]
    return str(facts.get("base.files.config.json") or facts["base.name"])


def _but_for_its_data(arm: ArmRuns) -> str:
    """What arms share that differ in the amount of their data only."""
    facts = arm.facts[0]
    walk = {name: value for name, value in facts.section("training").items() if name not in _OF_THE_AMOUNT}
    return repr([_base(arm), facts["base.name"], facts.section("method"), facts.section("objective"), walk])


def _rows(arm: ArmRuns) -> str:
    """The distribution that an arm's rows come from: the card and split, whatever share of them."""
    facts = arm.facts[0]
    return repr([facts["rows.files"], facts["data.split"]])


def _pretraining(arm: ArmRuns) -> Pretraining | None:
    """What the base cost to train. Counted for the embedded base; 6 N D for the others, which is a half off or so."""
    base = files.read_json(arm.runs[0].resolved_file)["base"]
    flops = base.get("pretraining_flops")
    return Pretraining(flops, 1.0 if base["row"] == "embedded" else _ROUGHLY) if flops is not None else None


def _amounts(arm: ArmRuns) -> dict[str, Any]:
    return {
        "training_flops": arm.cost("training_flops") or 0.0,
        "device_seconds": arm.cost("device_seconds") or 0.0,
        "usd": arm.cost("usd"),
    }


def _point(arm: ArmRuns, found: TaskScores) -> dict[str, Any]:
    estimate = found.score(arm.name).estimate
    place = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    examples = arm.cost("examples")
    return {"arm": arm.name, **place, "text_bytes": distinct_bytes(arm), "examples": examples, **_amounts(arm)}


def _trained(arm: ArmRuns, found: TaskScores) -> dict[str, Any]:
    """The fields that rungs and targets share."""
    reached = {"value": found.score(arm.name).estimate.value, "draws": found.draws(arm.name)}
    return {"arm": arm.name, "data": distinct_bytes(arm), **reached, **_amounts(arm)}


def _rung(arm: ArmRuns, base: str, converged: dict[str, bool | None], found: TaskScores) -> Rung:
    settled = bool(converged[arm.name])
    return Rung(**_trained(arm, found), converged=settled, own_size=_base(arm) == base)


def _target(arm: ArmRuns, series: str | None, converged: dict[str, bool | None], found: TaskScores) -> Target:
    settled = converged[arm.name] is not False  # of a base as it is, nothing was cut short
    return Target(**_trained(arm, found), converged=settled, base=_base(arm), series=series)


def _figure(figure: Figure) -> dict[str, Any]:
    return asdict(figure)
