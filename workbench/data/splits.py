"""Deterministic splits and subsets by content: appending rows moves no row to another side."""

from __future__ import annotations

import hashlib

_UNIT = float(1 << 64)


def position(key: str, seed: int, purpose: str) -> float:
    """A row's place in [0, 1): sha256 over its content key, a seed and what the place is for."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / _UNIT


def in_share(key: str, seed: int, start: float, end: float) -> bool:
    """Whether a row belongs to the share `[start, end)`."""
    return start <= position(key, seed, "split") < end


def in_fraction(key: str, fraction: float) -> bool:
    """Whether a row is kept when only a fraction is used; the rows of 0.1 are among those of 0.2."""
    return fraction >= 1.0 or position(key, 0, "fraction") < fraction
