"""One rule: a combination of settings, why it cannot be (or had better not be), and the nearest one that can."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from workbench.documents import Trail
from workbench.recipe import settings
from workbench.recipe.resolved import Resolved
from workbench.recipe.settings import Settings

Level = Literal["illegal", "unwise"]
"""illegal: refused, for it fails or silently does something else than it says. unwise: it runs, and is only said."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One combination of the table."""

    id: str
    field: Trail
    """Where it is told."""
    level: Level
    breaks: Callable[[Resolved], bool]
    """Whether a resolved recipe is such a combination."""
    reason: str
    """What is so, in words that follow the field's name."""
    fix: str
    """What to do about it."""
    source: str
    """Where it was read, or that it was seen: a file and its version, a page, an issue."""
    cure: Settings | Callable[[Resolved], Settings] = dataclasses.field(default_factory=dict)
    """The nearest alternative that does not break the rule; empty where only a person can decide."""

    def settings(self, resolved: Resolved) -> list[str]:
        """The cure of a recipe that breaks the rule, as `key=value` words for `--set`."""
        return settings.words(self._cure(resolved))

    def _cure(self, resolved: Resolved) -> Settings:
        return self.cure(resolved) if callable(self.cure) else self.cure

    def advice(self, resolved: Resolved) -> str:
        """What to do, in words and as the options that do it."""
        options = settings.options(self._cure(resolved))
        return f"{self.fix} ({options})" if options else self.fix
