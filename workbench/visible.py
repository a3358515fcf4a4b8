"""Foreign text made safe to print: rows, answers and file names may hold what a terminal, or rich, would obey."""

from __future__ import annotations

import re

from rich.markup import escape

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (all but newline and tab), those that turn the direction of writing, and halves of a pair."""


def visible(text: str) -> str:
    """The text with every such character written out, as `\\x1b`."""
    return _OBEYED.sub(lambda found: repr(found.group())[1:-1], text)


def markup(text: str) -> str:
    """The same, fit to stand inside rich's markup, where brackets would be instructions."""
    return escape(visible(text))
