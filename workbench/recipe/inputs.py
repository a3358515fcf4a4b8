"""What a recipe reads from outside this machine: repositories of the hub, and data sets of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from workbench import hub
from workbench.catalog.suites import LmEval
from workbench.recipe import pin
from workbench.recipe.resolved import Resolved, ResolvedCard


@dataclass(frozen=True)
class Repository:
    """Files of one revision of a repository."""

    kind: hub.Kind
    name: str
    revision: str | None
    patterns: tuple[str, ...]

    @property
    def shown(self) -> str:
        """How it is called in messages."""
        return f"{self.kind} {self.name}@{self.revision or 'main'}"

    @property
    def source(self) -> tuple[str, str, str]:
        """The same for all that one fetch of the repository answers."""
        return self.kind, self.name, self.revision or "main"


def base(resolved: Resolved) -> Repository | None:
    """The base; None where it is a directory."""
    found = resolved.base
    if found.kind != "hub":
        return None
    return Repository("model", found.location, found.revision, tuple(pin.patterns_of(resolved)))


def card(found: ResolvedCard) -> Repository | None:
    """The repository of a dataset card; None where its files lie on this machine."""
    source = found.card.source
    if source.hub is None:
        return None
    return Repository("dataset", source.hub, source.revision, tuple(pin.card_patterns(found)))


def repositories(resolved: Resolved) -> list[Repository]:
    """All that a run reads from the hub by itself, each revision once."""
    cards = [resolved.data] if resolved.trains else []
    cards += list(resolved.suite.cards.values()) if resolved.suite else []
    return union(found for found in (base(resolved), *map(card, cards)) if found)


def union(wanted: Iterable[Repository]) -> list[Repository]:
    """The same with all the patterns of a revision together, in the order in which they come first."""
    together: dict[tuple[str, str, str], Repository] = {}
    for one in wanted:
        known = together.setdefault(one.source, one)
        together[one.source] = replace(known, patterns=tuple(dict.fromkeys((*known.patterns, *one.patterns))))
    return list(together.values())


def harness_tasks(resolved: Resolved) -> list[LmEval]:
    """The tasks of lm-evaluation-harness that the library brings itself (a task file says where its own rows are)."""
    tasks = resolved.suite.suite.tasks if resolved.suite else ()
    return [task for task in tasks if isinstance(task, LmEval) and not task.is_file]
