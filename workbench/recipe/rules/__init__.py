"""The one table of combinations that cannot work, would silently do something else than they say, or are unwise."""

from __future__ import annotations

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import devices, methods, precision, quantization, recipes, sharding, speed, tracking
from workbench.recipe.rules.rule import Level, Rule

TOPICS: dict[str, tuple[Rule, ...]] = {
    "Recipes": recipes.RULES,
    "Methods": methods.RULES,
    "Bases in 4 bits": quantization.RULES,
    "Precision": precision.RULES,
    "Several devices": sharding.RULES,
    "Devices": devices.RULES,
    "How a step is computed": speed.RULES,
    "Tracking": tracking.RULES,
}
"""The table by what its rules are about."""

RULES: tuple[Rule, ...] = tuple(rule for rules in TOPICS.values() for rule in rules)


def broken(resolved: Resolved, level: Level | None = None) -> list[Rule]:
    """The rules that a resolved recipe breaks: all of them, or those of one level."""
    return [rule for rule in RULES if level in (None, rule.level) and rule.breaks(resolved)]
