"""Energy of the device that trains, from the hardware's own counters; what has none is not measured, never guessed.

NVIDIA GPUs since Volta count millijoules (NVML's total energy counter), processors microjoules a socket (RAPL, read
through Linux powercap). Both count the whole board or socket, whoever uses it, idle power included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

try:
    import pynvml as nvml  # type: ignore[import-untyped, import-not-found, unused-ignore]
except ImportError:  # the library is optional: without it a run says that it was not measured
    nvml = None

_POWERCAP = Path("/sys/class/powercap")
SOURCES = {"cuda": "nvml_counter", "cpu": "rapl"}
"""What counts the joules of a device kind."""


class NotCountedError(Exception):
    """Why nothing counts (becomes a meter's note)."""


@dataclass(frozen=True)
class Counter:
    """One of the hardware's counters."""

    read: Callable[[], float]
    """Joules since some time in the past; raises NotCountedError."""
    wraps_at: float | None = None
    """Joules at which it starts again at 0. (RAPL at 150 W: after about half an hour, which no step should take.)"""


class Meter:
    """Adds up what counters say between readings."""

    def __init__(self, counters: Sequence[Counter], note: str | None = None) -> None:
        self.note = note
        """Why nothing is measured; None where something is."""
        self._counters = tuple(counters)
        self._before: list[float] | None = None

    def taken(self) -> float | None:
        """Joules since the last call (0 the first time); None where nothing counts, or no longer does."""
        try:
            now = [counter.read() for counter in self._counters]
        except NotCountedError as reason:
            self.note, self._counters = str(reason), ()
        if not self._counters:
            return None
        before, self._before = self._before or now, now
        return sum(
            after - was if counter.wraps_at is None else (after - was) % counter.wraps_at
            for counter, was, after in zip(self._counters, before, now, strict=True)
        )


def meter(device: str) -> Meter:
    """The counters of the device that torch computes on in this process."""
    try:
        if device == "cuda":
            return Meter([nvml_counter(f"GPU-{_properties().uuid}")])
        if device == "cpu":
            return Meter(rapl_counters(_POWERCAP))
        raise NotCountedError(f"no energy counter of {device} devices is known")
    except NotCountedError as reason:
        return Meter((), note=str(reason))


def counted_elsewhere() -> Meter:
    """Of a process whose device another one counts already: the processors of a machine are counted once."""
    return Meter([Counter(lambda: 0.0)])


def _properties() -> Any:
    """Of torch's current GPU: its number among the visible ones is not NVML's, its UUID is."""
    return torch.cuda.get_device_properties(torch.cuda.current_device())


def nvml_counter(uuid: str) -> Counter:
    """The energy counter of one NVIDIA GPU.

    Args:
        uuid: as nvidia-smi writes it (`GPU-...`).

    Raises:
        NotCountedError: no library, no driver, no such GPU, or a GPU without the counter; says which.
    """
    if nvml is None:
        raise NotCountedError("the package nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NotCountedError(f"there is no NVIDIA driver to ask: {error}") from None
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError as error:
        raise NotCountedError(f"NVML does not know the GPU {uuid}: {error}") from None

    def read() -> float:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except nvml.NVMLError as error:
            raise NotCountedError(f"the GPU's energy counter cannot be read: {error}") from None

    read()
    return Counter(read)


def rapl_counters(powercap: Path) -> list[Counter]:
    """The counters of all sockets, and of their memory where that is counted apart.

    Left out: `core` and `uncore`, which are parts of `package`, and `psys`, which contains it.

    Raises:
        NotCountedError: there are none, or they may not be read (only root may, by default).
    """
    counters = []
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                wraps_at = int((zone / "max_energy_range_uj").read_text()) / 1e6 or None
                counters.append(Counter(partial(_joules, zone / "energy_uj"), wraps_at))
        for counter in counters:
            counter.read()
    except (OSError, ValueError) as error:
        raise NotCountedError(f"the processor's energy counters (RAPL) cannot be read: {error}") from None
    if not counters:
        raise NotCountedError("this machine shows no energy counters of its processor (RAPL)")
    return counters


def _joules(file: Path) -> float:
    try:
        return int(file.read_text()) / 1e6
    except (OSError, ValueError) as error:
        raise NotCountedError(f"the processor's energy counter cannot be read: {error}") from None
