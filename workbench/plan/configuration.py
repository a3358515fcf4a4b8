"""A config.json, read with transformers' defaults; what is missing or of the wrong type is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.errors import Problem, ShapeError

_SPELLINGS = {
    "num_experts": ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_tok", "moe_topk", "moe_k"),
    "n_shared_experts": ("n_shared_experts", "moe_num_shared_experts"),
}
"""Keys that the families spell differently; read in this order."""


class Configuration:
    """The fields of one config.json."""

    def __init__(
        self, values: Mapping[str, Any], needs: Sequence[str], defaults: Mapping[str, Any], where: str
    ) -> None:
        """
        Args:
            needs: keys without a default.
            defaults: what transformers' own class takes where a key is missing.
            where: how the file is named in messages.

        Raises:
            ShapeError: with every needed key that is missing.
        """
        self.where = where
        self._values: dict[str, Any] = dict(defaults)
        self._spelt: dict[str, str] = {}
        for key in (*needs, *defaults):
            spelling = next((name for name in _SPELLINGS.get(key, (key,)) if name in values), None)
            if spelling is not None:
                self._values[key], self._spelt[key] = values[spelling], spelling
        missing = [key for key in needs if key not in self._values]
        if missing:
            raise ShapeError([Problem(f"{where} {key}", "is missing", "a config.json states it") for key in missing])

    def number(self, key: str, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self._values[key]
        if type(value) is not int or value < least:
            raise self.wrong(key, f"a whole number of at least {least} is needed")
        return value

    def maybe(self, key: str) -> int | None:
        """A whole number, or null."""
        return None if self._values[key] is None else self.number(key)

    def flag(self, key: str) -> bool:
        """true or false; null is false."""
        value = self._values[key]
        if value is not None and type(value) is not bool:
            raise self.wrong(key, "true or false is needed")
        return bool(value)

    def words(self, key: str, allowed: Sequence[str]) -> list[str] | None:
        """A word for every layer, or null."""
        value = self._values[key]
        layers = self.number("num_hidden_layers")
        if value is not None and not (
            isinstance(value, list) and len(value) == layers and all(word in allowed for word in value)
        ):
            raise self.wrong(key, f"a list of {layers} words is needed, one a layer, of: {', '.join(allowed)}")
        return value

    def indices(self, key: str) -> list[int]:
        """A list of layers, counted from 0; null is none."""
        value = self._values[key]
        if value is not None and not (isinstance(value, list) and all(type(at) is int for at in value)):
            raise self.wrong(key, "a list of layers is needed")
        return value or []

    def same(self, key: str) -> int:
        """A whole number, or one for every layer, all equal."""
        value = self._values[key]
        if isinstance(value, list):
            if len(set(map(str, value))) != 1:
                raise self.wrong(key, "one number for all layers is needed")
            self._values[key] = value[0]
        return self.number(key)

    def wrong(self, key: str, need: str) -> ShapeError:
        """The error for a value that cannot stand there."""
        shown = repr(self._values[key])
        return ShapeError(
            Problem(f"{self.where} {self._spelt.get(key, key)}", f"is {shown[:60] + '...' * (len(shown) > 60)}", need)
        )
