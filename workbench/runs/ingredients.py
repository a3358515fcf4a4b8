"""What a run was made of, held against what its names stand for now."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from workbench import files
from workbench.errors import Problem, RunError, UserError
from workbench.recipe import pin
from workbench.recipe.resolved import Resolved
from workbench.runs import create
from workbench.runs.run import Run

_WORDS = {
    "base": "the base's files",
    "rows": "the rows' files",
    "card": "the rows' card",
    "template": "the template's file",
    "init_from": "the adapter that it starts from",
    "items": "the suite's items, which rows were dropped for",
}
"""Parts of an identity that can change under a run -> in words."""


def changed(known: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """In words, the parts of an identity in which two of them differ."""
    parts = {place.partition(".")[0] for place in create.differences(known, found)}
    return sorted(_WORDS.get(part, part) for part in parts)


def problem(run: Run, what: str) -> Problem:
    """The problem of a run that is not made of the same things any more."""
    advice = "put it back as it was; or train the recipe anew, which makes another run of what is there now"
    return Problem(run.name, f"changed since the run was made: {what}", advice)


def refuse_another_base(run: Run) -> None:
    """Refuse a run whose base is not there, or is not what it was.

    Raises:
        RunError: that is so.
    """
    if found := problems(run, ("base",)):
        raise RunError(found)


def problems(run: Run, parts: Container[str] = frozenset(_WORDS)) -> list[Problem]:
    """Everything that a run was made of and that is not there, or is not what it was.

    Args:
        parts: of the identity; others are not looked at.
    """
    known, found = files.read_json(run.identity_file), []
    for part, look in _looks(run.resolved()):
        if part not in parts:
            continue
        try:
            if look() != known.get(part):
                found.append(problem(run, _WORDS[part]))
        except UserError as error:
            found.extend(error.problems)
    return found


def _looks(resolved: Resolved) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Part of an identity -> what looks at it."""
    yield "base", lambda: sorted(pin.pin_base(resolved)[1].values())
    if not resolved.trains:
        return
    recipe = resolved.recipe
    yield "rows", lambda: sorted(
        pin.row_hashes(pin.split_files(pin.pin_card(resolved.data), recipe.data.split)).values()
    )
    yield "template", lambda: pin.template_hash(resolved) or recipe.data.template
    yield "init_from", lambda: pin.adapter_hash(resolved)
    yield "items", lambda: pin.items_hash(resolved)


def suite_problems(run: Run) -> list[Problem]:
    """The same of what a finished run was scored on."""
    suite = run.resolved().suite
    if suite is None:
        return []
    if not run.results(suite.name).exists():
        return [Problem(run.name, f"was not scored on {suite.name}", f"workbench eval {run.name} --suite {suite.name}")]
    try:
        same = files.read_json(run.results(suite.name)).get("content") == pin.suite_content(suite)
    except UserError as error:
        return list(error.problems)
    advice = f"put it back as it was; or score the run on what is there now: workbench train {run.path}"
    return [] if same else [Problem(run.name, f"was scored on other items than {suite.name} holds now", advice)]
