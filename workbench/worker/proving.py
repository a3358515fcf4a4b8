"""What was prefetched is proved to be of use: read as a run reads it, with nothing fetched any more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from huggingface_hub import constants

from workbench import bases, fingerprint
from workbench.bases import Loading
from workbench.errors import Problem, UserError
from workbench.evaluation import items
from workbench.recipe import inputs, pin
from workbench.recipe.inputs import Repository
from workbench.recipe.resolved import Resolved, ResolvedSuite

Check = Callable[[], object]


def prove(recipes: Sequence[Resolved], lacking: Sequence[Repository], more: Sequence[Check]) -> list[Problem]:
    """Load each base's configuration and tokenizer, find each recipe's rows, read each suite's items.

    Args:
        lacking: what could not be fetched and was told already; nothing that needs it is looked at.
        more: what else is to be tried without the network.
    """
    problems: list[Problem] = []
    with _offline():
        for check in [*_checks(recipes, {one.source for one in lacking}).values(), *more]:
            try:
                check()
            except UserError as error:
                problems.extend(error.problems)
    return problems


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """As on a node: for us by the environment, for the hub's library (which read it when it was imported) by its own
    switch."""
    before, switch = os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"], constants.HF_HUB_OFFLINE = "1", True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = switch
        del os.environ["HF_HUB_OFFLINE"]
        if before is not None:
            os.environ["HF_HUB_OFFLINE"] = before


def _checks(recipes: Sequence[Resolved], lacking: set[tuple[str, str, str]]) -> dict[str, Check]:
    """What is to be looked at, by what tells it apart: the arms of a study share most of it."""
    checks: dict[str, Check] = {}

    def is_there(*wanted: Repository | None) -> bool:
        return not lacking & {one.source for one in wanted if one is not None}

    for resolved in recipes:
        section = resolved.recipe.base
        if is_there(inputs.base(resolved)):
            key = ["base", resolved.base.model_dump(mode="json"), section.init, section.trust_remote_code]
            checks.setdefault(fingerprint.of_value(key), partial(_base, resolved))
        card, split = resolved.data, resolved.recipe.data.split
        if resolved.trains and is_there(inputs.card(card)):
            key = ["data", card.model_dump(mode="json"), split]
            checks.setdefault(fingerprint.of_value(key), partial(pin.split_files, card, split))
        suite = resolved.suite
        if suite is not None and is_there(*map(inputs.card, suite.cards.values())):
            checks.setdefault(fingerprint.of_value(["suite", suite.model_dump(mode="json")]), partial(_suite, suite))
    return checks


def _base(resolved: Resolved) -> None:
    directory = pin.base_directory(resolved)
    section = resolved.recipe.base
    pin.check_directory(directory, weights=section.init == "pretrained")
    loading = Loading(directory=directory, init=section.init, trust_remote_code=section.trust_remote_code)
    bases.load_config(loading)
    bases.load_tokenizer(loading)


def _suite(suite: ResolvedSuite) -> None:
    items.load(suite)
