"""Do items of the suite also stand in the rows that are trained on?

Equality of the whole prompt (or document) after folding case and white space decides; shared 13-grams of words are
only reported (the overlap measure of Brown et al. 2020, arXiv 2005.14165, appendix C).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_GRAM_WORDS = 13


def folded(text: str) -> str:
    """Text with case folded and every run of white space made one space."""
    return " ".join(text.casefold().split())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def _grams(text: str) -> Iterator[bytes]:
    words = folded(text).split()
    for at in range(len(words) - _GRAM_WORDS + 1):
        yield _digest(" ".join(words[at : at + _GRAM_WORDS]))


@dataclass
class Guard:
    """Knows the suite's items; is shown every training row. Memory grows with the items, not with the rows."""

    prompts: dict[bytes, str] = field(default_factory=dict)
    """Digest of a folded prompt -> the item's name."""
    grams: dict[bytes, set[str]] = field(default_factory=dict)
    """Digest of a 13-gram -> the items that hold it."""
    num_items: int = 0
    matches: dict[str, str] = field(default_factory=dict)
    """Item -> the first training row with the same prompt."""
    num_rows: int = 0
    """Training rows with the same prompt as some item."""
    overlapping: set[str] = field(default_factory=set)
    """Items that share a 13-gram with some training row."""

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]]) -> Guard:
        """From (item name, prompt text) pairs."""
        guard = cls()
        for name, text in items:
            guard.num_items += 1
            guard.prompts.setdefault(_digest(folded(text)), name)
            for gram in _grams(text):
                guard.grams.setdefault(gram, set()).add(name)
        return guard

    def meet(self, text: str, where: str) -> bool:
        """Show a training row's prompt (or document); True where an item has the same one."""
        if self.grams:
            for gram in _grams(text):
                self.overlapping |= self.grams.get(gram, set())
        name = self.prompts.get(_digest(folded(text)))
        if name is None:
            return False
        self.num_rows += 1
        self.matches.setdefault(name, where)
        return True

    def report(self) -> dict[str, int | list[dict[str, str]]]:
        """What was found, for data.json."""
        first = [{"item": item, "row": row} for item, row in list(self.matches.items())[:20]]
        return {
            "items": self.num_items,
            "rows_with_an_item's_prompt": self.num_rows,
            "items_in_the_rows": len(self.matches),
            "first": first,
            "items_sharing_a_13_gram": len(self.overlapping),
        }
