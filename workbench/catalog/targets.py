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


@cache
def targets() -> dict[str, TargetRow]:
    """All targets by name."""
    text = (Path(__file__).parent / "targets.yaml").read_text(encoding="utf-8")
    return {row.name: row for row in TypeAdapter(list[TargetRow]).validate_python(yaml.safe_load(text))}
