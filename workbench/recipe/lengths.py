"""How long a recipe's rows are, as far as this machine knows: from the last time that they were tokenised here, from
their card, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import files, fingerprint, resources
from workbench.plan.lengths import Lengths, capped
from workbench.recipe.resolved import Resolved


def lengths_of(resolved: Resolved, context: int) -> Lengths:
    """The lengths of the examples that the recipe trains on.

    Args:
        context: longest sequence that the base takes, tokens.
    """
    data = resolved.recipe.data
    most = min(data.max_length or context, context)
    path = _file(resolved)
    if path.exists():
        found = files.read_json(path)
        up_to = {int(edge): count for edge, count in found["lengths_up_to"].items()}
        return Lengths(up_to, found["longest_tokens"], "rows", found["tokens"] / max(1, found["examples"]))
    stated = resolved.data.card.lengths
    if stated:
        share = {edge: round(count * data.fraction) if count else 0 for edge, count in stated}
        return capped(Lengths(share, max(share), "card"), most, resolved.recipe.objective.name == "pretrain")
    return Lengths({}, most, "maximum")


def remember(resolved: Resolved, account: Mapping[str, Any]) -> None:
    """Keep what tokenising the rows has shown, where `lengths_of` looks for it."""
    kept = ("lengths_up_to", "longest_tokens", "tokens", "examples")
    files.write_json(_file(resolved), {name: account[name] for name in kept})


def _file(resolved: Resolved) -> Path:
    """By all that the desk knows of the rows: not their content, which only reading them tells."""
    recipe = resolved.recipe
    key = fingerprint.of_value(
        {
            "base": [resolved.base.location, resolved.base.row],
            "data": recipe.data.model_dump(mode="json", exclude={"name"}),
            "card": [resolved.data.folder, resolved.data.name],
            "objective": recipe.objective.model_dump(mode="json"),
        }
    )
    return resources.cache_directory() / "lengths" / f"{key}.json"
