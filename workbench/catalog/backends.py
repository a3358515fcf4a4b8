"""The rows of backends.yaml: what the libraries can do on each kind of accelerator, whatever its model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import TypeAdapter

from workbench.catalog.cards import Row

DeviceKind = Literal["cpu", "cuda", "npu", "xpu", "hpu", "mps", "mlu", "musa"]
"""torch's name of a device (AMD's GPUs are `cuda` there as well)."""

BackendName = Literal["cpu", "cuda", "rocm", "npu", "xpu", "hpu", "mps", "mlu", "musa"]
"""What target rows call a vendor's stack."""

Support = Literal["yes", "no", "experimental", "unknown"]


class BackendRow(Row):
    """One vendor's stack under torch, transformers, accelerate and bitsandbytes."""

    name: BackendName
    """What target rows call it."""
    title: str
    """What a person calls it."""
    device: DeviceKind
    """torch's name of its devices."""
    collective: str | None
    """torch.distributed's backend between its devices; None: one device only."""
    visible_devices: str | None
    """Environment variable that chooses devices."""
    bf16: Support
    """bf16 arithmetic."""
    fp16: Support
    """fp16 mixed precision with a loss scaler."""
    tf32: Support
    """TensorFloat-32 matrix products."""
    nf4: Support
    """4-bit bases through bitsandbytes."""
    double_quantization: Support
    """Quantised scales of a 4-bit base."""
    int8: Support
    """8-bit bases through bitsandbytes."""
    eight_bit_optimizers: Support
    """bitsandbytes' blockwise 8-bit optimizers."""
    paged_optimizers: Support
    """bitsandbytes' optimizers that page to the host."""
    fused_adamw: Support
    """torch's AdamW in one kernel."""
    sdpa: Support
    """torch's scaled dot product attention."""
    flash_attention: Support
    """Attention with variable lengths (`flash_attention_2`)."""
    compile: Support
    """torch.compile."""
    liger: Support
    """Liger's Triton kernels."""
    ddp: Support
    """Several processes with whole copies."""
    fsdp: Support
    """Several processes with sharded weights, through accelerate."""
    source: str
    """Where this was read, or that it was seen."""
    as_of: str
    """Day on which it was looked up."""


CAPABILITIES = tuple(name for name, kind in BackendRow.__annotations__.items() if kind == "Support")
"""The fields that say whether something works."""


@cache
def backends() -> dict[BackendName, BackendRow]:
    """All backends by name."""
    text = (Path(__file__).parent / "backends.yaml").read_text(encoding="utf-8")
    return {row.name: row for row in TypeAdapter(list[BackendRow]).validate_python(yaml.safe_load(text))}
