"""What a tracker is told of a study, made from the study's folder alone: its verdict as tables, its report as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import __version__, files
from workbench.compare.folder import EVIDENCE, REPORT, VERDICT, verdict_in
from workbench.tracking import vocabulary
from workbench.tracking.record import Artifact, Closing, Opening, Point, Table, cut, plain

ARMS, CONTRASTS, DISAGREEMENTS, LADDER = "arms", "contrasts", "disagreements", "ladder"
"""Its tables."""
_MOST_DISAGREEMENTS = 200
_COSTS = ("trainable_parameters", "training_flops", "device_seconds", "joules", "usd", "peak_memory_bytes")
_CONTRAST = ("task", "arm", "against", "word", "difference", "low", "high", "p_adjusted", "family", "margin",
             "smallest_resolvable", "suggestive", "confounded")  # fmt: skip


def opening(folder: Path) -> Opening:
    """Of a judged study."""
    verdict = verdict_in(folder)
    return Opening(
        id=f"study-{plain(verdict['name'])}",
        group=verdict["name"],
        job_type="compare",
        tags=[verdict["name"], verdict["suite"]["name"]],
        config={
            "run/study": verdict["name"],
            "run/workbench": __version__,
            "suite/name": verdict["suite"]["name"],
            "suite/fingerprint": verdict["suite"]["fingerprint"],
            "study/question": verdict["question"],
            "study/reference": verdict["reference"],
            "study/arms": [arm["name"] for arm in verdict["arms"]],
        },
        directory=folder,
    )


def closing(folder: Path) -> Closing:
    """Of a judged study."""
    verdict, evidence = verdict_in(folder), files.read_json(folder / EVIDENCE)
    counts: vocabulary.Values = {
        "study/arms": len(verdict["arms"]),
        "study/runs": sum(len(arm["runs"]) for arm in verdict["arms"]),
    }
    tables = {
        ARMS: _arms(verdict),
        CONTRASTS: Table(_CONTRAST, [[one[name] for name in _CONTRAST] for one in verdict["contrasts"]]),
        DISAGREEMENTS: _disagreements(verdict, evidence["items"]),
        LADDER: _ladder(verdict),
    }
    paths = {name: folder / name for name in (REPORT, VERDICT, EVIDENCE)}
    told = {"sentence": verdict["sentence"], "runs": [run for arm in verdict["arms"] for run in arm["runs"]]}
    return Closing(
        last=Point(1, counts),
        config={},
        summary={**counts, "study/sentence": verdict["sentence"], "study/complete": verdict["complete"]},
        tables={name: table for name, table in tables.items() if table.rows},
        artifacts=[Artifact(f"report-{plain(verdict['name'])}", "report", told, paths)],
    )


def _arms(verdict: Mapping[str, Any]) -> Table:
    """A row an arm: every task's score with its interval and tier, and what it cost."""
    tasks = verdict["suite"]["tasks"]
    scores = [name for task in tasks for name in _score_columns(task)]
    costs = [name for name in _COSTS if any((arm["cost"] or {}).get(name) for arm in verdict["arms"])]
    rows = []
    for arm in verdict["arms"]:
        found: list[Any] = [arm["name"], arm["label"], len(arm["runs"])]
        for task in tasks:
            score = arm["scores"][task["id"]]
            found += [score["value"], score["low"], score["high"], arm["tier"].get(task["id"])]
        rows.append([*found, *((arm["cost"] or {}).get(name) for name in costs)])
    return Table(["arm", "label", "runs", *scores, *costs], rows)


def _score_columns(task: Mapping[str, Any]) -> Sequence[str]:
    key = vocabulary.score_key(task["id"], task["metric"])
    return [key, *vocabulary.ends(key), f"{key}/tier"]


def _disagreements(verdict: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Table:
    """The items on which the arms differ most: what each answered, and what it got."""
    arms = [arm["name"] for arm in verdict["arms"]]
    chosen = sorted((item for item in items if item["spread"] > 0), key=lambda item: -item["spread"])
    columns = ["task", "id", "text", "expected", *(f"{arm}: {what}" for arm in arms for what in ("answer", "value"))]
    return Table(columns, [_disagreement(item, arms) for item in chosen[:_MOST_DISAGREEMENTS]])


def _disagreement(item: Mapping[str, Any], arms: Sequence[str]) -> list[Any]:
    answers = [item["answers"].get(arm) or {"answer": None, "value": None} for arm in arms]
    said = [value for one in answers for value in (cut(one["answer"] or ""), one["value"])]
    return [item["task"], item["id"], cut(item["text"]), cut(item["expected"]), *said]


def _ladder(verdict: Mapping[str, Any]) -> Table:
    """The curve of training from scratch, and what each adapter is worth on it."""
    transfer = verdict["transfer"]
    if not transfer:
        return Table((), ())
    unit = transfer["unit"]
    rungs = [[rung["arm"], "from scratch", rung[unit], rung["value"], rung["low"], rung["high"], None]
             for rung in transfer["rungs"]]  # fmt: skip
    adapters = [[arm["arm"], "adapter", arm[unit], arm["value"], arm["low"], arm["high"],
                 arm["data_equivalent"]["words"]] for arm in transfer["arms"]]  # fmt: skip
    return Table(["arm", "kind", unit, transfer["task"], "low", "high", "data_equivalent"], [*rungs, *adapters])
