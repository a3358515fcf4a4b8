"""The rows of targets.yaml: hardware that a run can be made for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import TypeAdapter

from workbench.catalog.cards import Row

DeviceKind = Literal["cpu", "cuda", "npu", "xpu", "mps"]


class TargetRow(Row):
    """One kind of device."""

    name: str
    device: DeviceKind
    memory_gib: float | None
    """Memory of one device, GiB; None: the machine's own."""
    bf16: bool
    """Whether bf16 arithmetic is native (auto precision follows it)."""
    nf4: bool
    """Whether bitsandbytes has 4-bit kernels for it."""
    source: str
    as_of: str
    power_watts: float | None = None
    """Board power of one device under full load, watts: what an estimate of energy is made from. None: not known."""
    power_source: str | None = None
    """Where that is stated."""
    usd_per_hour: float | None = None
    """What an hour of one device costs to rent, US dollars; None: no published price was found."""
    price_source: str | None = None
    """Who asks that price, and where it was read; `recipe` where the recipe states it."""
    price_as_of: str | None = None
    """Day on which the price was read."""


@cache
def targets() -> dict[str, TargetRow]:
    """All targets by name."""
    text = (Path(__file__).parent / "targets.yaml").read_text(encoding="utf-8")
    return {row.name: row for row in TypeAdapter(list[TargetRow]).validate_python(yaml.safe_load(text))}
