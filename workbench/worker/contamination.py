"""A finished run scored on a suite that its training did not know: do the suite's items stand in the rows?"""

from __future__ import annotations

from workbench import files
from workbench.data import formats, splits
from workbench.data.contamination import Guard
from workbench.data.formats import BadRow
from workbench.errors import EvaluationError, Problem
from workbench.evaluation.items import questions, suite_fingerprint
from workbench.recipe import pin
from workbench.worker.setup import Bench


def check(bench: Bench) -> None:
    """Hold the suite's items against the rows that were trained on, unless preparing the rows did so already.

    Raises:
        EvaluationError: items stand in the rows, and the recipe does not allow it.
    """
    if bench.suite is None or not bench.resolved.trains:
        return
    known = suite_fingerprint(bench.suite, bench.items)
    if files.read_json(bench.run.data)["suite_items"] == known:
        return
    report = bench.run.contamination(bench.suite.name)
    if report.exists() and files.read_json(report)["suite_items"] == known:
        return
    data = bench.resolved.recipe.data
    guard = Guard.of(questions(bench.items))
    paths = pin.split_files(bench.resolved.data, data.split)
    rows = formats.examples(paths, bench.resolved.data.card, data.split)
    for row in bench.progress.over(rows, "contamination"):
        if not isinstance(row, BadRow) and splits.in_fraction(formats.content_key(row.values), data.fraction):
            guard.meet(row.prompt_text(), row.where)
    if guard.matches and data.contamination != "allow":
        item, where = next(iter(guard.matches.items()))
        raise EvaluationError(
            Problem(
                f"suite {bench.suite.name}",
                f"{len(guard.matches)} of its items were trained on (such as {item}, in {where})",
                "leave them out of the suite, or train with data.contamination: allow to score them all the same",
            )
        )
    files.write_json(report, {"suite_items": known, **guard.report()})
