"""Everything that a run's numbers depend on, as one flat table of dotted fields: what the gate holds side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench import files
from workbench.runs.run import Run


class Facts(dict[str, Any]):
    """Dotted field -> value. Fields of the recipe stand under their own names (`method.rank`), the others under
    `base.files`, `rows`, `prepared`, `budget`, `versions`, `machine`, `continued` and `scoring`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._sections: dict[str, dict[str, Any]] = {}

    def section(self, prefix: str) -> dict[str, Any]:
        """The fields that are `prefix` or stand under it. (Kept: the gate asks for the same few again and again.)"""
        if prefix not in self._sections:
            self._sections[prefix] = {field: value for field, value in self.items() if is_under(field, (prefix,))}
        return self._sections[prefix]


_NOT_IN_THE_ACCOUNT = {"lengths_up_to", "contamination", "suite_items"}
_BUDGET = ("steps", "examples", "tokens", "counted_tokens", "text_bytes", "training_flops")
OPEN_SECTIONS = ("rows", "prepared", "budget", "versions", "machine", "scoring", "continued")
"""Sections of recorded facts: what stands in them depends on the run."""
TRAINED_ONLY = ("objective", "data", "training", "rows", "prepared", "budget", "init_from", "continued")
"""Sections that say nothing about a run in which nothing was trained."""


def declared_facts(resolved: Mapping[str, Any], identity: Mapping[str, Any]) -> Facts:
    """What is known of a run before it starts: its resolved recipe, and the contents that its names stand for."""
    facts = _flat(resolved["recipe"])
    facts |= {"dtype": resolved["dtype"], "device": identity["device"], "versions.identity": identity["schema"]}
    facts["base.content"] = identity["base"]
    facts["trained"] = resolved["recipe"]["method"]["name"] != "none"
    facts.setdefault("method.quantization", "none")  # a base held in 4 bits differs from a base under lora
    if facts["trained"]:
        facts["rows.files"] = identity["rows"]
        facts["rows.share"] = identity["share"]
        facts |= _flat(identity["card"], "rows.card")
        facts["rows.template"] = identity["template"]
        facts["init_from"] = identity["init_from"]
        facts["rows.items"] = identity.get("items")
    return _without_what_is_not_trained(facts)


def training_facts(resolved: Mapping[str, Any], identity: Mapping[str, Any], manifest: Mapping[str, Any]) -> Facts:
    """What the steps of a run depend on: what was declared, the base's files, versions and the machine."""
    facts: dict[str, Any] = dict(declared_facts(resolved, identity))
    del facts["base.content"]  # the same, file by file
    facts |= _base_files(manifest["base"]["files"])
    facts["base.tokenizer"] = manifest.get("tokenizer")
    facts |= _flat(manifest["versions"], "versions")
    facts["git_commit"] = manifest["git_commit"]
    facts |= _flat(manifest["hardware"], "machine")
    if facts["trained"]:
        facts["prepared.template"] = manifest["template"]
    return Facts(facts)


def run_facts(run: Run, suite: str) -> Facts:
    """Everything that is known of a finished run that was scored on a suite."""
    manifest, results = files.read_json(run.manifest), files.read_json(run.results(suite))
    resolved, identity = files.read_json(run.resolved_file), files.read_json(run.identity_file)
    facts: dict[str, Any] = dict(training_facts(resolved, identity, manifest))
    facts |= _changed_on_the_way(manifest.get("continued", []))
    # resolved.json says how the run was scored last; how it was scored on this suite, the results do
    facts |= _flat(results.get("evaluation", {}), "evaluation")
    for key in ("fingerprint", "questions_fingerprint", "metric_version"):
        facts[f"scoring.{key}"] = results.get(key)
    facts |= _scored_under(results["conditions"], manifest) | _flat(results["templates"], "scoring.template")
    facts["scoring.items_trained_on"] = facts["scoring.positions_never_trained"] = 0
    if facts["trained"]:
        account = files.read_json(run.data)
        facts["scoring.items_trained_on"] = _items_trained_on(run, suite, facts["data.contamination"], account, results)
        facts |= _flat({key: value for key, value in account.items() if key not in _NOT_IN_THE_ACCOUNT}, "prepared")
        if facts["base.init"] == "random":
            facts["scoring.positions_never_trained"] = _positions_never_trained(account, results)
        cost = files.read_json(run.cost)
        facts |= {f"budget.{key}": cost[key] for key in _BUDGET}
    return _without_what_is_not_trained(facts)


def _changed_on_the_way(changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Conditions that changed the result while a run was trained, each with what it was and became after which step."""
    told: dict[str, list[str]] = {}
    for one in changes:
        told.setdefault(f"continued.{one['field']}", []).append(f"{one['was']}, {one['is']} from step {one['step']} on")
    return {field: "; ".join(words) for field, words in told.items()}


def _scored_under(conditions: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of scoring; versions and device only where they are others than the run's own."""
    own = _flat(manifest["versions"], "versions") | {"device_name": manifest["hardware"]["device"]}
    return {f"scoring.{name}": value for name, value in _flat(conditions).items() if own.get(name, ...) != value}


def _base_files(hashes: Mapping[str, str]) -> dict[str, Any]:
    """The base's content; weights apart, because random weights are the one thing that another init excuses."""
    return {f"base.files.{'weights.' if 'safetensors' in name else ''}{name}": found for name, found in hashes.items()}


def _items_trained_on(
    run: Run, suite: str, contamination: str, account: Mapping[str, Any], results: Mapping[str, Any]
) -> int:
    """How many of the suite's items stand in the rows that were trained on; `allow` is the only way that any do."""
    if contamination != "allow":
        return 0
    looked_for = account["suite_items"] == results["items_fingerprint"]
    report = account["contamination"] if looked_for else files.read_json(run.contamination(suite))
    return int(report["items_in_the_rows"])


def _positions_never_trained(account: Mapping[str, Any], results: Mapping[str, Any]) -> int:
    """How far the long items of a task that was trained for (a tenth of them and more) reach beyond the longest row: a
    model that began from random weights knows nothing of such positions, while a pretrained one does."""
    longest = [task.get("long_tokens", 0) for task in results["tasks"].values() if task.get("role") == "target"]
    return max(0, max(longest, default=0) - int(account["longest_tokens"]))


def _without_what_is_not_trained(facts: Mapping[str, Any]) -> Facts:
    left_out = () if facts["trained"] else TRAINED_ONLY
    return Facts({field: value for field, value in facts.items() if not is_under(field, left_out)})


def is_under(field: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted field is one of some fields, or inside one of them."""
    return any(field == prefix or field.startswith(f"{prefix}.") for prefix in prefixes)


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    return dict(_leaves(value, place))


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    else:
        yield place, value
