"""Quality against each cost: which arms are on the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.compare import pareto
from workbench.compare.arms import ArmRuns
from workbench.compare.facts import is_under
from workbench.compare.gate import Gate
from workbench.compare.pairs import Judged, Proofs
from workbench.compare.scores import TaskTable


def fronts(
    arms: Sequence[ArmRuns], tables: Sequence[TaskTable], judged: Sequence[Judged], gate: Gate
) -> dict[str, Any]:
    """Quality on the first task that was trained for, against each cost that is known of every trained arm."""
    table = next((table for table in tables if table.role == "target"), tables[0])
    proofs = Proofs(judged, table.task)
    found: dict[str, Any] = {}
    for cost in pareto.COSTS:
        if cost.measured and measured_under(gate):
            continue  # what a machine or another layout made of it would be taken for the arm's own
        known = {arm.name: arm.cost(cost.name) if arm.trains else 0.0 for arm in arms}
        if any(value is None for value in known.values()) or not any(known.values()):
            continue
        counted_by = {one["energy_source"] for arm in arms if arm.trains for one in arm.costs}
        if cost.name == "joules" and len(counted_by) > 1:
            continue  # a counter's joules and an upper estimate's prove nothing of each other
        points = [pareto.Point(arm.name, known[arm.name] or 0.0, _per_seed(cost, arm)) for arm in arms]
        front = pareto.front(points, proofs.is_better, proofs.is_not_worse)
        found[cost.name] = {"task": table.task, "front": front.front, "off": front.off}
    return found


def measured_under(found: Gate) -> list[str]:
    """Harmless differences that move time, memory and energy all the same."""
    return [finding.field for finding in found.harmless if is_under(finding.field, ("machine", "target"))]


def _per_seed(cost: pareto.Cost, arm: ArmRuns) -> list[float] | None:
    if not arm.trains:
        return None
    found = [one[cost.name] for one in arm.costs]
    return found if cost.measured or len(set(found)) > 1 else None  # other rows under another seed: other FLOPs
