"""How long a recipe's rows are, as far as this machine knows: from the last time that they were tokenised here, from
their card, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import files, fingerprint, resources
from workbench.errors import RunError, UserError
from workbench.plan.lengths import Lengths, capped
from workbench.recipe import pin
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
        share = {edge: max(1, round(count * data.fraction)) for edge, count in stated if count}
        if share:
            return capped(Lengths(share, max(share), "card"), most, resolved.recipe.objective.name == "pretrain")
    return Lengths({}, most, "maximum")


def remember(resolved: Resolved, account: Mapping[str, Any]) -> None:
    """Keep what tokenising the rows has shown, where `lengths_of` looks for it. A cache that takes no new files keeps
    nothing: the plan then knows less, and the run is none the worse."""
    path = _file(resolved)
    if path.exists():
        return
    kept = ("lengths_up_to", "longest_tokens", "tokens", "examples")
    with contextlib.suppress(RunError):
        files.write_json(path, {name: account[name] for name in kept})


def _file(resolved: Resolved) -> Path:
    """By all that the desk knows of the rows: of those on this machine also their content."""
    recipe, card = resolved.recipe, resolved.data
    content: list[str] = []
    if card.card.source.hub is None:
        with contextlib.suppress(UserError):  # rows that are not there are told where they are read
            content = [fingerprint.of_file(path) for path in pin.split_files(card, recipe.data.split)]
    key = fingerprint.of_value(
        {
            "base": [resolved.base.location, resolved.base.row],
            "data": recipe.data.model_dump(mode="json", exclude={"name"}),
            "card": [card.folder, card.name],
            "content": content,
            "objective": recipe.objective.model_dump(mode="json"),
        }
    )
    return resources.cache_directory() / "lengths" / f"{key}.json"
