"""A study's comparison views as plain values: what is drawn against what, under keys that its runs really have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from workbench.compare.folder import verdict_in
from workbench.compare.report import words
from workbench.runs.run import Run
from workbench.tracking import record, study_record, vocabulary
from workbench.tracking.record import Placement

ARM = "run/arm"
"""The config field that runs are grouped by: the seeds of one arm stand together."""
STUDY = "run/study"
_COSTS = ("cost/training_flops", "cost/device_seconds", "cost/usd", "cost/joules")
_AXES = (vocabulary.EXAMPLES, vocabulary.FLOPS, vocabulary.TOKENS, vocabulary.SECONDS)


@dataclass(frozen=True)
class Panel:
    """One drawing, table or text."""

    kind: Literal["text", "table", "bars", "scatter", "lines", "parallel"]
    title: str
    text: str = ""
    """Of a text, in Markdown; of a table, its name."""
    x: str | None = None
    y: Sequence[str] = ()
    """Keys of the history (lines) or of the summary."""
    settings: Sequence[str] = ()
    """Keys of the config (parallel)."""
    log_x: bool = False


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    name: str
    panels: Sequence[Panel] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """All views of one study."""

    name: str
    study: str
    question: str
    sentence: str
    sections: Sequence[Section]
    columns: Sequence[str]
    """Keys of the summary that the table of runs shows first."""
    arms: Mapping[str, Sequence[str]]
    """Arm -> its runs' ids."""


@dataclass(frozen=True)
class Keys:
    """What the runs of a study really have."""

    history: frozenset[str]
    summary: frozenset[str]
    config: frozenset[str]


def keys_of(runs: Sequence[Run]) -> Keys:
    """The keys of some finished runs, together."""
    history: set[str] = set()
    summary: set[str] = set()
    config: set[str] = set()
    for run in runs:
        resolved = run.resolved()
        closing = record.closing(run, resolved)
        history |= closing.last.values.keys() | set(itertools.chain(*(point.values for point in record.points(run))))
        summary |= closing.summary.keys()
        config |= record.opening(run, resolved, Placement("", "")).config.keys() | closing.config.keys()
    return Keys(frozenset(history), frozenset(summary), frozenset(config))


def compare(folder: Path, root: Path) -> Comparison:
    """The views of a judged study.

    Args:
        folder: of its verdict.
        root: where its runs are.
    """
    verdict = verdict_in(folder)
    arms = {arm["name"]: [str(run) for run in arm["runs"]] for arm in verdict["arms"]}
    keys = keys_of([Run(root / run) for runs in arms.values() for run in runs])
    scores = _scores(verdict, keys)
    tables = study_record.closing(folder).tables
    sections = [
        Section("Verdict", [_verdict(verdict), *_tables(tables, study_record.ARMS, study_record.CONTRASTS)]),
        Section("Scores", [Panel("bars", name, y=[key]) for name, key in scores.items()]),
        Section("Quality against cost", list(_against_cost(scores, keys))),
        Section("Learning curves", list(_learning(keys))),
        Section("What was varied", list(_varied(verdict, scores, keys))),
        Section("Training from scratch", list(_scratch(verdict, tables, scores, keys))),
        Section("Items the arms disagree on", list(_tables(tables, study_record.DISAGREEMENTS))),
    ]
    return Comparison(
        name=f"workbench: {verdict['name']}",
        study=verdict["name"],
        question=verdict["question"],
        sentence=verdict["sentence"],
        sections=[section for section in sections if section.panels],
        columns=[*scores.values(), *(key for key in _COSTS if key in keys.summary)],
        arms=arms,
    )


def _scores(verdict: Mapping[str, Any], keys: Keys) -> dict[str, str]:
    """Task with its unit and direction -> the key of its score."""
    found = {}
    for task in verdict["suite"]["tasks"]:
        key = vocabulary.score_key(task["id"], task["metric"])
        if key in keys.summary:
            better = "higher" if task["higher_is_better"] else "lower"
            found[f"{task['id']}: {task['metric'].replace('_', ' ')} ({better} is better)"] = key
    return found


def _verdict(verdict: Mapping[str, Any]) -> Panel:
    """The verdict in words, and the arms with what was found of each declared pair."""
    told = [one for one in verdict["contrasts"] if one["family"] == "declared"]
    metrics = {task["id"]: task["metric"] for task in verdict["suite"]["tasks"]}
    rows = [
        f"| {one['arm']} | {one['against']} | {one['task']} | **{one['word']}** | "
        f"{words.difference(one['difference'], metrics[one['task']])} | "
        f"{words.interval(one['low'], one['high'], metrics[one['task']])} |"
        for one in told
    ]
    table = ["| arm | against | task | verdict | difference | 95 % interval |", "|---|---|---|---|---|---|", *rows]
    parts = [f"**{verdict['question']}**", verdict["sentence"], "\n".join(table) if rows else ""]
    return Panel("text", "Verdict", "\n\n".join(part for part in parts if part))


def _tables(tables: Mapping[str, record.Table], *names: str) -> Iterator[Panel]:
    for name in names:
        if name in tables:
            yield Panel("table", name, name)


def _against_cost(scores: Mapping[str, str], keys: Keys) -> Iterator[Panel]:
    for (name, key), cost in itertools.product(scores.items(), _COSTS):
        if cost in keys.summary:
            yield Panel("scatter", f"{name} against {cost.rpartition('/')[2].replace('_', ' ')}", x=cost, y=[key],
                        log_x=True)  # fmt: skip


def _learning(keys: Keys) -> Iterator[Panel]:
    for axis in _AXES:
        if {"train/loss", axis} <= keys.history:
            yield Panel("lines", f"training loss over {axis.rpartition('/')[2]}", x=axis, y=["train/loss"])


def _varied(verdict: Mapping[str, Any], scores: Mapping[str, str], keys: Keys) -> Iterator[Panel]:
    """Parallel coordinates over the fields in which the arms differ."""
    fields = dict.fromkeys(name.replace(".", "/") for arm in verdict["arms"] for name in arm["settings"])
    settings = [name for name in fields if name in keys.config]
    if settings and scores:
        yield Panel("parallel", "what was varied, and what came of it", y=list(scores.values()), settings=settings)


def _scratch(
    verdict: Mapping[str, Any], tables: Mapping[str, record.Table], scores: Mapping[str, str], keys: Keys
) -> Iterator[Panel]:
    """The from-scratch curve: every run's score over the text that it saw, and what each adapter is worth on it."""
    yield from _tables(tables, study_record.LADDER)
    if any(arm["from_scratch"] for arm in verdict["arms"]) and "train/text_bytes" in keys.summary:
        for name, key in scores.items():
            yield Panel("scatter", f"{name} against training text", x="train/text_bytes", y=[key], log_x=True)
