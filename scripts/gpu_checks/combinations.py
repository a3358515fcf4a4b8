"""What is trained in the check, in which order, and what the planner says of each (no torch here)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workbench.catalog.bases import BaseRow, bases
from workbench.catalog.targets import targets
from workbench.plan import shapes
from workbench.plan.activations import Adapted, Arithmetic, Batch
from workbench.plan.adapters import targeted, trainable_parameters
from workbench.plan.families import FAMILIES
from workbench.plan.lengths import Lengths, MicroBatch, Steps
from workbench.plan.memory import Setting
from workbench.plan.prediction import GIB, Job, Target
from workbench.plan.timing import Device
from workbench.recipe.schema import Full, Lora, Qlora
from workbench.recipe.section import Section

METHODS: dict[str, Section] = {
    "lora": Lora(alpha=32),
    "dora": Lora(alpha=32, variant="dora"),
    "qlora": Qlora(alpha=32),
    "full": Full(),
}
"""The workbench's defaults: rank 16 on every linear layer but the head, no dropout."""

TELLING = (
    "qwen3-0.6b/lora: 4x512 1x2048 8x1024+checkpointing",
    "llama-3.2-3b/lora: 4x768 4x768+logits 8x1024+checkpointing",
    "qwen3-8b/lora: 4x512 1x2048 8x1024+checkpointing",
    "qwen3-8b/qlora: 4x512 8x1024+checkpointing",
    "llama-3.2-3b/dora: 4x768 8x1024+checkpointing",
    "qwen3-0.6b/full: 4x512 1x2048 8x1024+checkpointing",
    "qwen3-1.7b/lora: 4x512 8x1024+checkpointing",
    "qwen3-1.7b/full: 4x512 8x1024+checkpointing",
    "llama-3.1-8b/qlora: 1x2048 8x1024+checkpointing",
    "qwen3-4b/lora: 4x512 1x2048 8x1024+checkpointing",
    "qwen3-0.6b/dora: 4x512 1x2048",
    "qwen3-4b/qlora: 4x512 8x1024+checkpointing",
    "qwen3-8b/dora: 4x512 8x1024+checkpointing",
    "llama-3.1-8b/lora: 4x512 8x1024+checkpointing",
    "qwen3-0.6b/qlora: 4x512 8x1024+checkpointing",
    "qwen3-0.6b/lora: 8x1024 4x512+logits",
    "qwen3-8b/full: 8x2048",
)
"""The most telling first; 4x768 of the 3B Llama is what PEFT's method comparison runs. The last one fits no
single device, to see the planner say so."""

SMALL = (
    "small-qwen3/lora: 4x128 1x256+checkpointing 4x128+logits",
    "small-llama/qlora: 4x128",
    "small-llama/dora: 4x128",
    "small-qwen3/full: 4x128",
)
_SMALL_WIDTHS: dict[str, Any] = {
    "hidden_size": 256, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 64, "intermediate_size": 768,
    "vocab_size": 4096,
}  # fmt: skip


def rows() -> dict[str, BaseRow]:
    """The catalog's bases, and two small ones of the same architectures."""
    known = dict(bases())
    for name, like in (("small-qwen3", "qwen3-0.6b"), ("small-llama", "llama-3.1-8b")):
        shape = known[like].shape.model_copy(update=_SMALL_WIDTHS)
        known[name] = known[like].model_copy(update={"name": name, "shape": shape, "context": 1024})
    return known


@dataclass(frozen=True)
class Combination:
    """One way to take a step, named such as `qwen3-0.6b/lora/8x1024+checkpointing`."""

    base: str
    method: str
    num_rows: int
    length: int
    checkpointing: bool = False
    logits: bool = False
    """Whole logits, where TRL's fused head could be used."""

    @property
    def name(self) -> str:
        """What it is called on the command line and in the JSON."""
        extras = "+checkpointing" * self.checkpointing + "+logits" * self.logits
        return f"{self.base}/{self.method}/{self.num_rows}x{self.length}{extras}"

    def lengths(self) -> list[int]:
        """Tokens of each row: the last of several is a little shorter, for nearly every real micro-batch has a mask."""
        shortened = self.length - max(1, self.length // 16)
        return [self.length] * (self.num_rows - 1) + [shortened if self.num_rows > 1 else self.length]


def names(lines: Sequence[str]) -> list[str]:
    """The names that lines such as TELLING's stand for."""
    pairs = (line.split(": ") for line in lines)
    return [f"{model}/{step}" for model, all_steps in pairs for step in all_steps.split()]


def parse(name: str) -> Combination:
    """The combination of a name.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([^/]+)/([a-z]+)/([1-9]\d*)x([1-9]\d*)((?:\+checkpointing)?)((?:\+logits)?)", name)
    if found is None:
        raise ValueError(f"{name!r} is not BASE/METHOD/ROWSxLENGTH, with +checkpointing, +logits or both after it")
    base, method, num_rows, length, checkpointing, logits = found.groups()
    for word, known in ((base, rows()), (method, METHODS)):
        if word not in known:
            raise ValueError(f"{name!r}: {word!r} is none of {', '.join(known)}")
    return Combination(base, method, int(num_rows), int(length), bool(checkpointing), bool(logits))


def config_fields(row: BaseRow) -> dict[str, Any]:
    """A row's shape as transformers' configuration classes call its parts, model_type among them."""
    shape = row.shape
    kind = next(kind for kind, family in FAMILIES.items() if family.architecture == row.architecture)
    return {
        "model_type": kind,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied_embeddings,
        "max_position_embeddings": row.context,
    }


def job_of(combination: Combination, head: Literal["fused", "logits"], on_cpu: bool) -> Job:
    """What the planner is asked: the setting that `workbench.plan.jobs` makes of such a recipe, for one step."""
    method = METHODS[combination.method]
    model = shapes.from_row(rows()[combination.base])
    full = combination.method == "full"
    batch = MicroBatch(combination.num_rows, combination.length)
    kind: Literal["lora", "dora", "full"] = (
        "full" if full else "dora" if getattr(method, "variant", "plain") == "dora" else "lora"
    )
    setting = Setting(
        model=model,
        adapted=Adapted(kind, targeted(model, method), rank=getattr(method, "rank", 0)),
        trained_parameters=trainable_parameters(model, method),
        arithmetic=Arithmetic("fp32" if full else "bf16", "bf16"),
        batch=Batch(batch.rows, batch.length),
        quantised=combination.method == "qlora",
        checkpointing=combination.checkpointing,
        head=head,
        tiles_in_place=not on_cpu,
    )
    lengths = combination.lengths()
    steps = Steps(
        usual=batch, expected=batch, worst=batch,
        tokens=float(sum(lengths)), padded_tokens=float(batch.tokens),
        squared_lengths=float(sum(length**2 for length in lengths)),
    )  # fmt: skip
    known = Lengths({combination.length: combination.num_rows}, combination.length, "rows")
    return Job(setting, combination.method, known, steps, num_steps=1, checkpoint_every=100)


def target_of(device_name: str, backend: str, memory_bytes: float, tflops: float) -> Target:
    """The device as the planner knows it.

    Args:
        device_name: as torch says it.
        backend: cuda, rocm or cpu.
        tflops: bf16 rate that was measured, which stands in where the catalog has no row or no rate.
    """
    words = set(re.split(r"[^a-z0-9]+", device_name.lower()))
    fitting = {}
    for row in targets().values():
        parts = [part for part in row.name.split("-") if not re.fullmatch(r"\d+gb", part)]
        if row.memory_gib is not None and words.issuperset(parts):
            fitting[row.name] = (len(parts), -abs(row.memory_gib - memory_bytes / GIB))
    best = targets()[max(fitting, key=lambda name: fitting[name])] if fitting else None
    return Target(
        name=best.name if best else device_name,
        backend=backend,
        memory_bytes=memory_bytes,
        device=Device(
            best.peak_tflops.get("bf16", tflops) if best else tflops, best.gigabytes_per_second if best else None
        ),
        num_devices=1,
        power_watts=None,
        usd_per_hour=None,
    )
