"""How a step is cut into micro-batches: the one rule, used by training and by the plan alike."""

from __future__ import annotations

from collections.abc import Sequence


def cut_by_tokens(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Positions grouped into micro-batches: rows of like length together, at most `most_tokens` with padding (a longer
    row stands alone). Longest first, so that memory peaks at once."""
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    groups: list[list[int]] = []
    for at in order:
        widest = lengths[groups[-1][0]] if groups else 0
        if groups and widest * (len(groups[-1]) + 1) <= most_tokens:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups
