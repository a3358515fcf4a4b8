"""Fields that are set otherwise, as a person gives them: `--set key=value`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

Setting = str | int | float | bool | None | Sequence[str]
Settings = Mapping[str, Any]
"""Dotted field -> value (a `Setting`), as `--set` takes them, in this order."""


def words(settings: Settings) -> list[str]:
    """Each as `key=value`, the value as YAML reads it on one line."""
    return [f"{key}={_written(value)}" for key, value in settings.items()]


def options(settings: Settings) -> str:
    """All of them as options that can be pasted into a shell."""
    return " ".join(f"--set {shlex.quote(word)}" for word in words(settings))


def _written(value: Setting) -> str:
    """A value as YAML reads it on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    return "" if value is None else f"[{','.join(value)}]"
