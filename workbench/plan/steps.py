"""How long a training is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """Optimizer steps."""

    steps: int
    steps_per_epoch: int


def length(num_examples: int, batch_size: int, epochs: float | None, steps: int | None) -> Length:
    """Optimizer steps in all and in an epoch; an epoch's last step is short. Neither epochs nor steps: one epoch."""
    per_epoch = math.ceil(num_examples / batch_size)
    return Length(steps or math.ceil((epochs or 1.0) * per_epoch), per_epoch)
