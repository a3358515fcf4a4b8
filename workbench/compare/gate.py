"""Before any number is shown: every pair of runs, field by field. What differs is declared, harmless or a confound."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.compare.facts import Facts, is_under
from workbench.compare.fields import SEED, concerns, judge, rule_of
from workbench.errors import ComparisonRefusedError
from workbench.recipe.fields import field_names

_RECIPE_FIELDS = frozenset(field_names())
_KINDS = ("confound", "declared", "harmless")


@dataclass(frozen=True)
class Finding:
    """One field in which arms differ."""

    field: str
    values: dict[str, list[str]]
    """The value as shown -> the arms that have it."""
    because: str
    pairs: frozenset[frozenset[str]] = frozenset()
    """The pairs of arms between which it is what it was found to be."""

    def as_words(self) -> dict[str, Any]:
        """As plain values."""
        return {"field": self.field, "values": self.values, "because": self.because}


@dataclass(frozen=True)
class Gate:
    """What was found."""

    checked: int
    """How many fields were held side by side."""
    declared: list[Finding] = field(default_factory=list)
    harmless: list[Finding] = field(default_factory=list)
    confounds: list[Finding] = field(default_factory=list)

    def is_confounded(self, arm: str, against: str) -> bool:
        """Whether a confound lies between two arms, or inside one of them."""
        pairs = {pair for finding in self.confounds for pair in finding.pairs}
        return any(frozenset(names) in pairs for names in ((arm, against), (arm,), (against,)))

    def refuse(self, advice: str, consequences: Collection[str] = ()) -> None:
        """Refuse the comparison where there are confounds.

        Args:
            consequences: fields that only follow from others among them; they are counted, not listed.

        Raises:
            ComparisonRefusedError: names every confound.
        """
        if self.confounds:
            roots = [found for found in self.confounds if found.field not in consequences]
            lines = [f"  {found.field}: {_in_words(found.values)}" for found in roots]
            lines += [f"  and {len(consequences)} fields that follow from them"] if consequences else []
            what = "\n".join(lines)
            raise ComparisonRefusedError(f"not comparable: these differ and are not declared\n{what}\n{advice}")

    def as_words(self, allowed: bool) -> dict[str, Any]:
        """As plain values."""
        return {
            "checked": self.checked,
            "declared": [found.as_words() for found in self.declared],
            "harmless": [found.as_words() for found in self.harmless],
            "confounds": [found.as_words() for found in self.confounds],
            "confounds_allowed": allowed,
        }


def refuse_confounds(found: Gate, arms: Mapping[str, Sequence[Facts]], vary: Sequence[str], declare: str) -> None:
    """Refuse where there are confounds, and say what would have to be declared to compare such runs.

    Args:
        declare: how fields are declared here; {} where they go.

    Raises:
        ComparisonRefusedError: names every confound.
    """
    if not found.confounds:
        return
    names = {confound.field for confound in found.confounds}
    sections = {"method": "method.name", "objective": "objective.name"}
    roots = {name for name in names if name in _RECIPE_FIELDS or name == SEED}
    roots = {next((s for s, key in sections.items() if key in names and is_under(name, (s,))), name) for name in roots}
    if any(is_under(name, ("base.files.config", "base.tokenizer", "base.files.commit")) for name in names):
        roots.add("base")
    left = {confound.field for confound in check(arms, [*vary, *roots]).confounds}
    heads = {sections.get(root, root) for root in roots}
    told = {name for name in names if name in left or name in heads or (is_under(name, ("base",)) and "base" in roots)}
    advice = [f"If that is what you compare, declare it: {declare.format(','.join(sorted(roots)))}"] if roots else []
    advice += [f"{'The rest is' if roots else 'That is'} no choice of a recipe: run them alike."] if left else []
    advice.append("--allow-confounds shows the numbers all the same, marked.")
    found.refuse("\n".join(advice), names - told)


def check(arms: Mapping[str, Sequence[Facts]], vary: Sequence[str]) -> Gate:
    """Hold all runs side by side.

    Args:
        arms: arm -> the facts of its runs, one a seed.
        vary: the fields that are meant to differ between arms.
    """
    runs = [(arm, facts) for arm, found in arms.items() for facts in found]
    fields = sorted({name for _, facts in runs for name in facts} - {SEED})
    found: dict[str, list[Finding]] = {kind: [] for kind in _KINDS}
    for name in fields:
        if len({repr(facts.get(name)) for _, facts in runs}) > 1:
            for kind, finding in _judge_field(name, runs, vary).items():
                found[kind].append(finding)
    for kind, finding in _seeds(arms, vary).items():
        found[kind].append(finding)
    return Gate(len(fields) + 1, found["declared"], found["harmless"], found["confound"])


def _judge_field(name: str, runs: Sequence[tuple[str, Facts]], vary: Sequence[str]) -> dict[str, Finding]:
    """The findings on one field by kind: between some arms it may be declared, between others not."""
    pairs: dict[str, set[frozenset[str]]] = {}
    because: dict[str, str] = {}
    if SEED not in rule_of(name).follows:  # then one run stands for all of its arm with the same value
        runs = list({(arm, repr(facts.get(name))): (arm, facts) for arm, facts in runs}.values())
    for (arm, one), (against, other) in itertools.combinations(runs, 2):
        if one.get(name) != other.get(name) and concerns(name, one, other):
            # inside an arm nothing is meant to differ
            judgement = judge(name, one, other, vary if arm != against else ())
            pairs.setdefault(judgement.kind, set()).add(frozenset((arm, against)))
            because.setdefault(judgement.kind, judgement.because)
    return {
        kind: Finding(name, _values(name, [run for run in runs if _concerns(run[0], found)]), because[kind],
                      frozenset(found))
        for kind, found in pairs.items()
    }  # fmt: skip


def _concerns(arm: str, pairs: set[frozenset[str]]) -> bool:
    return any(arm in pair for pair in pairs)


def _values(name: str, runs: Sequence[tuple[str, Facts]]) -> dict[str, list[str]]:
    by_value: dict[str, list[str]] = {}
    for arm, facts in runs:
        arms = by_value.setdefault(repr(facts.get(name)), [])
        if arm not in arms:
            arms.append(arm)
    for length in (24, 60):
        short = {_cut(value, length): names for value, names in by_value.items()}
        if len(short) == len(by_value):
            return short
    return by_value  # as they are: cut, they could not be told apart


def _cut(text: str, length: int) -> str:
    text = text.strip("'") if text != "None" else "-"
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _seeds(arms: Mapping[str, Sequence[Facts]], vary: Sequence[str]) -> dict[str, Finding]:
    """Arms over other seeds than each other. (An untrained base has none.)"""
    seeds = {arm: sorted(facts[SEED] for facts in found) for arm, found in arms.items() if _has_seeds(found)}
    values: dict[str, list[str]] = {}
    for arm, found in seeds.items():
        values.setdefault(", ".join(map(str, found)), []).append(arm)
    if len(values) < 2:
        return {}
    pairs = {frozenset(pair) for pair in itertools.combinations(seeds, 2) if seeds[pair[0]] != seeds[pair[1]]}
    declared = SEED in vary
    because = "varied" if declared else "other seeds: initialisation and the order of rows differ"
    return {"declared" if declared else "confound": Finding(SEED, values, because, frozenset(pairs))}


def _has_seeds(found: Sequence[Facts]) -> bool:
    return any(facts["trained"] or facts["base.init"] == "random" for facts in found)


def _in_words(values: Mapping[str, Sequence[str]]) -> str:
    return " | ".join(
        f"{value} ({', '.join(arms[:3])}{', ...' if len(arms) > 3 else ''})" for value, arms in values.items()
    )
