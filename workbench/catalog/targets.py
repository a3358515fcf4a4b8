"""The rows of targets.yaml: hardware that a run can be made for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, TypeAdapter, field_validator, model_validator

from workbench.catalog.backends import BackendName, BackendRow, DeviceKind, backends
from workbench.catalog.cards import Row

Arithmetic = Literal["fp32", "tf32", "fp16", "bf16"]


class TargetRow(Row):
    """One kind of device: what torch shows as one, which may be half a card (a die, a stack)."""

    name: str
    device: DeviceKind
    """torch's name of the device."""
    backend: BackendName | None = None
    """Its row of backends.yaml. None: the one called like the device."""
    memory_gib: Annotated[float, Field(gt=0)] | None
    """Memory of one device, GiB; None: the machine's own."""
    gigabytes_per_second: Annotated[float, Field(gt=0)] | None = None
    """Bandwidth of its memory, 10^9 bytes a second; None: not known."""
    peak_tflops: dict[Arithmetic, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Dense matrix products at their best, 10^12 operations a second, by arithmetic; those that are known."""
    rates_source: str | None = None
    """Where bandwidth and rates are stated."""
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

    @model_validator(mode="after")
    def _device_is_its_backends(self) -> Self:
        if self.capabilities().device != self.device:
            raise ValueError(f"the backend {self.backend!r} is of {self.capabilities().device!r}, not {self.device!r}")
        return self

    def capabilities(self) -> BackendRow:
        """What the libraries can do on it."""
        return backends()[self.backend or self.device]


class OwnTargets(Row):
    """Targets that a user describes: `targets.yaml` beside the recipe, or in a folder above it."""

    targets: Annotated[list[TargetRow], Field(min_length=1)]
    """Rows like those of the catalog. One of the same name goes before the catalog's."""

    @field_validator("targets")
    @classmethod
    def _each_name_once(cls, rows: list[TargetRow]) -> list[TargetRow]:
        names = [row.name for row in rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rows of the same name: {', '.join(twice)}")
        return rows


@cache
def targets() -> dict[str, TargetRow]:
    """All targets by name."""
    text = (Path(__file__).parent / "targets.yaml").read_text(encoding="utf-8")
    return {row.name: row for row in TypeAdapter(list[TargetRow]).validate_python(yaml.safe_load(text))}
