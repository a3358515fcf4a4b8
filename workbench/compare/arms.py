"""What stands in an arm's row beside its scores: what it is, what it cost, how much it was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench import files, fingerprint
from workbench.compare.convergence import converged
from workbench.compare.facts import Facts, run_facts
from workbench.compare.scores import Scored
from workbench.errors import Problem, RunError
from workbench.runs import ledger
from workbench.runs.run import Run

_MEANS = (
    "adapter_bytes", "trainable_parameters", "total_parameters", "training_flops", "steps", "examples", "tokens",
    "counted_tokens", "text_bytes", "device_seconds", "joules", "usd", "peak_memory_bytes",
)  # fmt: skip
"""Fields of cost.json of which an arm's row shows the mean over its seeds."""
_ADDED = (
    "training_flops",
    "steps",
    "examples",
    "tokens",
    "counted_tokens",
    "text_bytes",
    "device_seconds",
    "joules",
    "usd",
)
"""Those of them that a run which goes on from another one has added to."""


@dataclass(frozen=True)
class ArmRuns:
    """One arm: its runs, one a seed, and their facts."""

    name: str
    suite: str
    """The suite that its runs were scored on."""
    runs: list[Run]
    facts: list[Facts]
    costs: list[dict[str, Any]]
    """The runs' cost.json."""

    @property
    def scored(self) -> list[Scored]:
        """Its runs with the suite."""
        return [Scored(run, self.suite) for run in self.runs]

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return bool(self.facts[0]["trained"])

    @property
    def from_scratch(self) -> bool:
        """Whether it starts from random weights."""
        return bool(self.facts[0]["base.init"] == "random")

    @property
    def base_name(self) -> str:
        """What its base is called: the last part of a path or of a repository's name."""
        return str(self.facts[0]["base.name"]).rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_fixed(self) -> bool:
        """Whether no seed changes it: the base as it is."""
        return not self.trains and not self.from_scratch

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs."""
        return [facts["seed"] for facts in self.facts]

    def cost(self, name: str) -> float | None:
        """The mean of a cost over the seeds; None where it is not known of every run."""
        values = [cost.get(name) for cost in self.costs]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None


def read(name: str, scored: Sequence[Scored]) -> ArmRuns:
    """An arm from its finished runs, in the order of their seeds."""
    pairs = sorted(((_facts(one), one.run) for one in scored), key=lambda pair: (pair[0]["seed"], pair[1].name))
    ordered = [run for _, run in pairs]
    costs = [_whole_cost(run) for run in ordered]
    return ArmRuns(name, scored[0].suite, ordered, [facts for facts, _ in pairs], costs)


def _facts(one: Scored) -> Facts:
    """A run's facts.

    Raises:
        RunError: its files are not what a worker writes.
    """
    try:
        return run_facts(one.run, one.suite)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        found = f"has files that are not what a finished run holds ({type(error).__name__}: {error})"
        raise RunError(Problem(one.run.name, found, f"workbench runs rm {one.run.name}, and train it again")) from None


def _whole_cost(run: Run) -> dict[str, Any]:
    """A run's cost.json with what the runs cost that its adapter goes on from."""
    cost: dict[str, Any] = files.read_json(run.cost)
    before = ledger.start_of(run)
    if before is None:
        return cost
    earlier = _whole_cost(before) if before.cost.exists() else {}  # of a bare adapter, nobody knows
    for name in _ADDED:
        parts = cost.get(name), earlier.get(name)
        cost[name] = None if None in parts else sum(parts)
    return cost


def settings(arms: Sequence[ArmRuns], vary: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The declared fields of the recipe in which arms differ: arm -> field -> value."""
    fields = sorted(
        {name for arm in arms for varied in vary for name in arm.facts[0].section(varied)} - {"seed", "trained"}
    )
    fields = [name for name in fields if not name.startswith("base.files.")]
    differing = [name for name in fields if len({repr(arm.facts[0].get(name)) for arm in arms}) > 1]
    return {arm.name: {name: arm.facts[0].get(name) for name in differing} for arm in arms}


def cost_row(arm: ArmRuns) -> dict[str, Any] | None:
    """The means of an arm's costs; None where nothing was trained."""
    if not arm.trains:
        return None
    sources = sorted({str(cost.get("energy_source", "none")) for cost in arm.costs})
    prices = sorted({str(cost["price_source"]) for cost in arm.costs if cost.get("price_source")})
    means = {name: arm.cost(name) for name in _MEANS}
    return {**means, "energy_source": ", ".join(sources), "price_source": ", ".join(prices) or None}


def has_converged(arm: ArmRuns) -> bool | None:
    """Whether the loss of every run had stopped falling; None where nothing was trained."""
    if not arm.trains:
        return None
    return all(converged([row["loss"] for row in files.read_jsonl(run.metrics)]) for run in arm.runs)


def rates_tried(arms: Sequence[ArmRuns]) -> dict[str, int]:
    """How many learning rates the ledger holds for each trained arm, everything else being the same."""
    rates: dict[str, set[Any]] = {}
    for root in sorted({run.path.parent for arm in arms for run in arm.runs}):
        for facts in ledger.identities(root):
            rates.setdefault(but_for_the_rate(facts), set()).add(facts.get("training", {}).get("learning_rate"))
    return {
        arm.name: len(rates[but_for_the_rate(files.read_json(arm.runs[0].identity_file))]) for arm in arms if arm.trains
    }


def but_for_the_rate(facts: Mapping[str, Any]) -> str:
    """The same for all runs that differ in seed, repeat and learning rate only."""
    kept = {key: value for key, value in facts.items() if key not in ("seed", "repeat", "training")}
    training = {key: value for key, value in facts.get("training", {}).items() if key != "learning_rate"}
    return fingerprint.of_value({**kept, "training": training})


def base_run(arm: ArmRuns) -> Scored | None:
    """The run of the untouched base that a trained arm starts from, where the ledger has it scored on its suite."""
    base = ledger.base_of(arm.runs[0]) if arm.trains and not arm.from_scratch else None
    return Scored(base, arm.suite) if base is not None and base.results(arm.suite).exists() else None
