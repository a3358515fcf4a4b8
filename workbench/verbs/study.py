"""study: bring all runs of a study to their end, and judge them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workbench import files
from workbench.compare import power, verdict
from workbench.compare.publish import publish
from workbench.compare.question import Question, margin
from workbench.compare.report import words
from workbench.compare.scores import Scored
from workbench.errors import ComparisonRefusedError, ExitStatus, UserError
from workbench.runs import planner
from workbench.study.go import Failure, bring
from workbench.study.load import load
from workbench.study.plan import Plan, StudyRun, plan, refuse_confounds
from workbench.verbs import judgement, terminal
from workbench.visible import markup


def study(
    file: Path, overrides: Sequence[str], only_plan: bool, only_judge: bool, allow_confounds: bool, root: Path
) -> None:
    """Train and score what is missing, then judge; or only list the runs with their cost, or only judge."""
    console = terminal.console()
    made = plan(load(file), root, overrides)
    if not allow_confounds:
        refuse_confounds(made)
    _list(console, made)
    if only_plan:
        return
    failures = [] if only_judge else bring(made, lambda words_: console.print(markup(words_)))
    runs = {name: found for name, found in _finished(made).items() if found}
    if len(runs) < 2:
        raise ComparisonRefusedError("fewer than two arms have a finished run; there is nothing to compare yet")
    judged = verdict.judge(_question(made, runs, failures, allow_confounds), runs)
    judgement.show(console, judged.verdict, publish(judged, made.folder))
    if not judged.verdict["complete"]:
        sys.exit(ExitStatus.USER)


def _finished(made: Plan) -> dict[str, list[Scored]]:
    """Arm -> its runs that are finished and scored."""
    runs: dict[str, list[Scored]] = {arm.name: [] for arm in made.loaded.arms}
    for one in made.runs:
        run = one.find(made.root)
        if run is not None and one.planned.is_done(made.root):
            runs[one.arm].append(Scored(run, one.suite))
    return runs


def _question(
    made: Plan, runs: Mapping[str, Sequence[Scored]], failures: Sequence[Failure], allow_confounds: bool
) -> Question:
    loaded, declared = made.loaded, made.loaded.study
    reference = loaded.expand(declared.reference)[0] if declared.reference else loaded.arms[0].name
    ladder = [name for written in declared.ladder for name in loaded.expand(written)]
    if declared.contrasts is None:
        contrasts = [(arm.name, reference) for arm in loaded.arms if arm.name not in (reference, *ladder)]
    else:
        contrasts = [pair for written in declared.contrasts for pair in loaded.pairs(written)]
    status = {(one.run.arm, one.run.seed): one.status for one in failures}
    missing = [
        {"arm": one.arm, "seed": one.seed, "state": one.state(made.root), "reason": _reason(status, one, made.root)}
        for one in made.runs
        if not one.planned.is_done(made.root)
    ]
    return Question(
        name=loaded.name,
        kind="study",
        question=declared.question,
        suite=made.suite.name,
        vary=made.vary,
        reference=reference,
        contrasts=contrasts,
        margins=declared.margins,
        ladder=[name for name in ladder if name in runs],
        ladder_task=declared.ladder_task,
        families={arm.name: arm.family for arm in loaded.arms},
        missing=missing,
        allow_confounds=allow_confounds,
    )


def _reason(status: Mapping[tuple[str, int], int], one: StudyRun, root: Path) -> str:
    found = status.get((one.arm, one.seed))
    run = one.find(root)
    if found is None and run is not None and one.state(root) == "failed":
        found = list(files.read_jsonl(run.attempts))[-1].get("status")
    if found is not None:
        return f"It ended with status {found}; see its log."
    return "`workbench study` (or `submit`) brings it to its end."


def _list(console: Console, made: Plan) -> None:
    """The runs of a study: their state, and what they cost (or will, by their arm's other seeds or the planner)."""
    console.print(f"[bold]{markup(made.loaded.name)}[/bold]  {markup(made.loaded.study.question)}")
    costs = {id(one): _cost(made, one) for one in made.runs}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("arm", "seed", "state", "compute", "device time", "money", "run"):
        table.add_column(heading, justify="right" if heading in ("seed", "compute", "device time", "money") else "left")
    totals = {"training_flops": 0.0, "device_seconds": 0.0, "usd": 0.0}
    unknown = 0
    for one in made.runs:
        state, own = one.state(made.root), costs[id(one)]
        alike = [costs[id(other)] for other in made.runs if other.arm == one.arm]
        expected = own or _mean(alike) or _planned(one)
        about = "" if own else "about "
        cells = [
            f"{about}{write(expected.get(key))}" if expected.get(key) is not None else "-" for key, write in _SHOWN
        ]
        run = one.find(made.root)
        coloured = terminal.state(state)
        seed = str(one.seed) if one.planned.facts["seed"] == one.seed and one.planned.resolved.trains else "-"
        table.add_row(markup(one.arm), seed, coloured, *cells, markup(run.name) if run else "-")
        if own is None and one.planned.resolved.trains:
            unknown += not expected
            for key in totals:
                totals[key] += expected.get(key) or 0.0
    console.print(table)
    missing = [one for one in made.runs if not one.planned.is_done(made.root)]
    if missing:
        spent = f"about {words.seconds(totals['device_seconds'])} of training" if totals["device_seconds"] else ""
        more = f"{unknown} of them on bases that cannot be counted" if unknown else ""
        said = "; ".join(text for text in (spent, more) if text)
        console.print(f"{len(missing)} of {len(made.runs)} runs to do{f': {said}' if said else ''}", style="dim")
    _foretell(console, made)


_SHOWN = (("training_flops", words.flops), ("device_seconds", words.seconds), ("usd", words.usd))


def _cost(made: Plan, one: StudyRun) -> dict[str, Any] | None:
    run = one.find(made.root)
    if run is None or not run.is_finished():
        return None
    return files.read_json(run.cost)


def _planned(one: StudyRun) -> dict[str, Any]:
    """What the planner says of a run; nothing where its base cannot be counted."""
    if not one.planned.resolved.trains:
        return {}
    try:
        return planner.as_words(planner.predicted(one.planned.resolved))
    except UserError:
        return {}


def _mean(costs: Sequence[dict[str, Any] | None]) -> dict[str, float]:
    known = [cost for cost in costs if cost]
    return {
        key: sum(cost[key] for cost in known) / len(known)
        for key, _ in _SHOWN
        if known and all(cost.get(key) is not None for cost in known)
    }


def _foretell(console: Console, made: Plan) -> None:
    """The smallest difference that this suite and these seeds can resolve, where the suite's size is known."""
    scored = [run for one in made.runs if (run := one.find(made.root)) and run.results(made.suite.name).exists()]
    if not scored:
        return
    seeds = len(made.loaded.study.seeds)
    for task, facts in files.read_json(scored[0].results(made.suite.name))["tasks"].items():
        smallest = power.smallest_difference(power.prior(facts["clusters"], facts["metric"], seeds))
        matters, unit = margin(made.loaded.study.margins, task, facts["metric"]), words.difference_unit(facts["metric"])
        said = f"{task}: can resolve {words.score(smallest, facts['metric'])} {unit}"
        if smallest > matters:
            least = words.score(matters, facts["metric"])
            said += f", more than the margin of {least}: expect `inconclusive` below that"
        console.print(said, style="dim")
