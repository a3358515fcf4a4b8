"""Whether a training had come to rest, by its own logged losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_FEWEST_LOSSES = 20
"""Two in each tenth: below that a tenth has no standard error."""
_FALL = 0.01


def converged(losses: Sequence[float]) -> bool:
    """Whether the last tenth of the step losses lies no lower than the tenth before.

    Not so when their means fell by more than 1 % of the earlier one and by more than two standard errors of the
    difference (taken as if steps were independent). The losses are those of one run, in order, one a logged step; fewer
    than twenty cannot show that a training came to rest, so the answer is no. A learning rate that decays to zero
    flattens every curve: this finds runs that were cut off, it does not prove that a longer run would end no lower.
    """
    tenth = len(losses) // 10
    if len(losses) < _FEWEST_LOSSES:
        return False
    last = np.asarray(losses[-tenth:], dtype=float)
    before = np.asarray(losses[-2 * tenth : -tenth], dtype=float)
    fall = float(before.mean() - last.mean())
    error = math.sqrt((before.var(ddof=1) + last.var(ddof=1)) / tenth)
    return not (fall > _FALL * abs(before.mean()) and fall > 2 * error)
