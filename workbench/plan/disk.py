"""Bytes that a run leaves on the disk, in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

KEPT_CHECKPOINTS = 2
"""Checkpoints that a run keeps; one more is there while it is written."""
_MARGIN = 1.1
_SMALL_WEIGHTS = 4096
"""bitsandbytes keeps the state of smaller tensors in fp32."""
_LINE_BYTES = 512
"""Of one logged step, generously."""
_SMALL_FILES_BYTES = 1 << 16
"""Of settings, random states and seals in a folder, generously."""


@dataclass(frozen=True)
class Disk:
    """What lies in a run's folder at its fullest."""

    checkpoint_bytes: int
    checkpoints: int
    """Most of them at one time."""
    result_bytes: int
    other_bytes: int
    """Probe, scores and records."""

    @property
    def needed_bytes(self) -> int:
        """All together, with a margin of a tenth."""
        return math.ceil(_MARGIN * (self.checkpoints * self.checkpoint_bytes + self.result_bytes + self.other_bytes))


def most_checkpoints(steps: int, checkpoint_every: int) -> int:
    """How many checkpoints lie side by side at most (the last step is one)."""
    return min(KEPT_CHECKPOINTS + 1, math.ceil(steps / checkpoint_every))


def optimizer_bytes(sizes: Iterable[int], optimizer: str) -> int:
    """State of AdamW: two moments a trained weight, of 4 bytes or (with a scale for 256 of them) of 1.

    Args:
        sizes: entries of every trained weight.
    """
    wide = optimizer == "adamw"
    return sum(math.ceil(size * (8 if wide or size < _SMALL_WEIGHTS else 2 + 8 / 256)) for size in sizes)


def record_bytes(steps: int) -> int:
    """Of the lines about every step and the small files, in a run's folder and again in a checkpoint."""
    return _SMALL_FILES_BYTES + steps * _LINE_BYTES
