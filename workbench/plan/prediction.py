"""What a run will take, before it runs: memory by part, time, energy, money, disk, and whether it fits.

Pure functions of a recipe's numbers; nothing is read but the planner's own constants. A range, not a point: `low` is
the usual step with little overhead, `expected` the largest step that the rows will make, `high` the largest that the
recipe allows with the overhead of the worst runs seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from workbench.plan import disk
from workbench.plan.activations import Batch
from workbench.plan.lengths import Lengths, MicroBatch, Steps
from workbench.plan.memory import Memory, Setting, memory
from workbench.plan.timing import Device, constants, step_flops, step_time

GIB = 2.0**30
_HOUR_SECONDS = 3600.0
_STORED_BYTES = 2.0
"""Of a weight as bases are published: in bf16 (some in fewer bits)."""
Verdict = Literal["fits", "tight", "does not fit", "unknown"]


@dataclass(frozen=True)
class Range:
    """A figure with how far it may be off."""

    low: float
    expected: float
    high: float

    def times(self, factor: float) -> Range:
        """All three, scaled."""
        return Range(self.low * factor, self.expected * factor, self.high * factor)


@dataclass(frozen=True)
class Target:
    """The hardware, as far as a prediction depends on it."""

    name: str
    backend: str
    memory_bytes: float | None
    """Of one device; None: not known."""
    device: Device
    num_devices: int
    power_watts: float | None
    usd_per_hour: float | None


@dataclass(frozen=True)
class Job:
    """A run, as far as a prediction depends on it."""

    setting: Setting
    """Its `batch` is filled in by what the steps are made of."""
    kind: str
    """The method, as the constants name it."""
    lengths: Lengths
    steps: Steps
    num_steps: int | None
    """None: the number of rows is not known."""
    checkpoint_every: int
    """Steps between checkpoints."""


@dataclass(frozen=True)
class Correction:
    """What a ledger's own runs on this target say of the planner: measured over predicted, the median."""

    memory: float = 1.0
    seconds: float = 1.0
    runs: int = 0


@dataclass(frozen=True)
class Prediction:
    """What a run will take."""

    target: Target
    memory: Memory
    """Of the expected largest step."""
    device_bytes: Range
    """Of one device, everything included."""
    framework_bytes: float
    allocated_bytes: float
    """What the run will measure as its peak: of the device's allocator while it trains, or on a CPU of the process."""
    verdict: Verdict
    seconds: Range | None
    """Of the training steps; None: the device's rate is not known."""
    joules: Range | None
    usd: Range | None
    model_flops: float
    """Operations of the model over the whole run; 0: not known, or nothing is trained."""
    download_bytes: float
    """Of the base's weights as they are published."""
    run_bytes: float
    """Checkpoints, result and records under the run directory."""
    correction: Correction
    lengths_source: str
    """Where the lengths of the rows are from (`Lengths.source`)."""


def predict(job: Job, target: Target, correction: Correction = Correction()) -> Prediction:
    """Everything that a run will take on a target."""
    backend = target.backend
    framework = constants()["memory"]["framework_gib"][backend]
    spread = constants()["memory"]["spread"]["full" if job.kind == "full" else "adapter"]
    usual, expected, worst = (memory_of(job, batch) for batch in (job.steps.usual, job.steps.expected, job.steps.worst))
    scale = correction.memory
    needed = Range(
        (usual.bytes * spread["low"] + framework["low"] * GIB) * scale,
        (expected.bytes + framework["expected"] * GIB) * scale,
        (max(worst.bytes, expected.bytes) * spread["high"] + framework["high"] * GIB) * scale,
    )
    seconds = _seconds(job, target, correction)
    own, _ = step_flops(job.setting.model, job.setting, job.steps.tokens, job.steps.squared_lengths)
    trains = job.setting.adapted.kind != "none"
    return Prediction(
        target=target,
        memory=expected,
        device_bytes=needed,
        framework_bytes=framework["expected"] * GIB,
        allocated_bytes=expected.training_bytes + (framework["expected"] * GIB if backend == "cpu" else 0.0),
        verdict=_verdict(needed, target.memory_bytes),
        seconds=seconds,
        joules=_scaled(seconds, target.power_watts, target.num_devices),
        usd=_scaled(seconds, target.usd_per_hour, target.num_devices / _HOUR_SECONDS),
        model_flops=own * (job.num_steps or 0) if trains else 0.0,
        download_bytes=_STORED_BYTES * job.setting.model.parameters,
        run_bytes=_run_bytes(job),
        correction=correction,
        lengths_source=job.lengths.source,
    )


def memory_of(job: Job, batch: MicroBatch) -> Memory:
    """The parts and stages of a run whose largest micro-batch is this one."""
    attention = job.setting.batch.attention
    return memory(replace(job.setting, batch=Batch(batch.rows, batch.length, attention)))


def _verdict(needed: Range, available: float | None) -> Verdict:
    if available is None:
        return "unknown"
    usable = usable_bytes(available)
    if needed.high <= usable:
        return "fits"
    return "tight" if needed.expected <= usable else "does not fit"


def usable_bytes(available: float) -> float:
    """What of a device's stated memory a process can have."""
    return available * float(constants()["memory"]["usable_share"]["value"])


def _seconds(job: Job, target: Target, correction: Correction) -> Range | None:
    if job.setting.adapted.kind == "none":
        return Range(0.0, 0.0, 0.0)
    _, done = step_flops(job.setting.model, job.setting, job.steps.padded_tokens, job.steps.squared_lengths)
    step = step_time(done, job.setting, target.device, target.num_devices, job.kind, target.backend)
    if step is None or job.num_steps is None:
        return None
    spread = constants()["efficiency"]["spread"]
    low, high = (spread["low"], spread["high"]) if not correction.runs else (0.8, 1.25)
    total = step.seconds * job.num_steps * correction.seconds
    return Range(total * low, total, total * high)


def _scaled(seconds: Range | None, rate: float | None, factor: float) -> Range | None:
    return None if seconds is None or rate is None else seconds.times(rate * factor)


def _run_bytes(job: Job) -> float:
    """Checkpoints with the trained weights in fp32 and the optimizer's state, the result, and the lines about steps.
    (The worker asks again with the built model's own sizes before its first step: `workbench.worker.disk`.)"""
    trained = job.setting.trained_parameters
    if not trained:
        return 0.0
    checkpoint = 4 * trained + disk.optimizer_bytes([trained], job.setting.optimizer)
    num_steps = job.num_steps or disk.KEPT_CHECKPOINTS * job.checkpoint_every + 1
    number = disk.most_checkpoints(num_steps, job.checkpoint_every)
    return float(number * checkpoint + 4 * trained + disk.record_bytes(num_steps))
