"""How a step is cut into micro-batches: the one rule, used by training and by the plan alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST = 2**32
"""As `start_tokens`: there are as few micro-batches as fit, and then the least padding."""


def cut_by_tokens(lengths: Sequence[int], most_tokens: int, start_tokens: int = FEWEST) -> list[list[int]]:
    """Positions grouped into micro-batches of at most `most_tokens`, padding included (a longer row stands alone), such
    that all take the least time: sum of rows x widest, and `start_tokens` for every micro-batch (what starting one
    costs, in tokens). Rows of like length come together; longest first, so that memory peaks at once.

    In the order of length every group is a stretch, so the best cut of the first k rows is the best cut of some first j
    and one group of the rest (dynamic programming over k).
    """
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    widths = np.array([lengths[at] for at in order], dtype=np.int64)
    least = np.zeros(len(order) + 1, dtype=np.int64)
    """Of the cost of the first k rows."""
    begins = np.zeros(len(order) + 1, dtype=np.int64)
    """Of the last group of the first k rows."""
    for end in range(1, len(order) + 1):
        padded = widths[:end] * np.arange(end, 0, -1)
        fits = (padded <= most_tokens) | (np.arange(end) == end - 1)
        cost = np.where(fits, least[:end] + padded + start_tokens, np.iinfo(np.int64).max)
        begins[end] = int(cost.argmin())  # of equals the first: the fewest groups
        least[end] = cost[begins[end]]
    groups = []
    end = len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = int(begins[end])
    return groups[::-1]


def cut_end_to_end(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Positions grouped into as few micro-batches as fit end to end in `most_tokens` (a longer row stands alone): each
    row, longest first, goes where room is left (first fit decreasing: at most 11/9 of the fewest, Johnson 1973)."""
    groups: list[list[int]] = []
    room: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        place = next((place for place, left in enumerate(room) if lengths[at] <= left), None)
        if place is None:
            groups.append([at])
            room.append(most_tokens - lengths[at])
        else:
            groups[place].append(at)
            room[place] -= lengths[at]
    return groups
