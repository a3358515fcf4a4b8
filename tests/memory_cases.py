"""Training steps of real architectures, traced and by the closed form: what the tests of memory compare."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.bases import Loading, load_config
from workbench.plan import shapes
from workbench.plan.activations import Adapted, Arithmetic, Batch
from workbench.plan.adapters import targeted, trainable_parameters
from workbench.plan.architecture import Architecture
from workbench.plan.memory import Memory, Setting, memory
from workbench.recipe.schema import Full, Ia3, Lora, Oft, Qlora, Vera
from workbench.training.skeleton import Skeleton, build
from workbench.training.tracing import Step, Traced, trace

GIB = 2.0**30


@dataclass(frozen=True)
class Case:
    """One step of one method on one base."""

    base: str
    """A file of the stored configurations."""
    method: Any
    rows: int = 2
    length: int = 1024
    checkpointing: bool = False
    dtype: str = "bf16"
    layers: int | None = None
    """Only so many decoder layers: the widths stay true."""
    on_accelerator: bool = True
    plain_loop: bool = False
    """The anchors' way: no autocast, logits built, the last outputs still held."""
    attention: str = "sdpa"
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Such as qwen3-8B lora ckpt 2x1024."""
        variant = getattr(self.method, "variant", "plain")
        name = self.method.name if variant == "plain" else variant
        extras = ["ckpt"] * self.checkpointing + [self.attention] * (self.attention != "sdpa") + [self.dtype]
        return f"{self.base} {name} {' '.join(extras)} {self.rows}x{self.length}"


def config_of(case: Case, configs: Path) -> dict[str, Any]:
    """The base's config.json, cut to the case's layers."""
    config: dict[str, Any] = json.loads((configs / f"{case.base}_config.json").read_text())
    text = config.get("text_config", config)
    if case.layers:
        text["num_hidden_layers"] = case.layers
        if "layer_types" in text:
            text["layer_types"] = text["layer_types"][: case.layers]
    return config


def setting_of(case: Case, model: Architecture) -> Setting:
    """The case as the closed form takes it."""
    method = case.method
    weights: Any = "fp32" if method.name == "full" and not case.plain_loop else case.dtype
    kind: Any = "dora" if getattr(method, "variant", "") == "dora" else {"qlora": "lora"}.get(method.name, method.name)
    adapted = Adapted(
        kind,
        targeted(model, method),
        getattr(method, "rank", 0),
        getattr(method, "dropout", 0.0) > 0,
        frozenset(getattr(method, "feedforward_targets", ())),
    )
    products: Any = case.dtype
    attention: Any = case.attention
    return Setting(
        model,
        adapted,
        trainable_parameters(model, method),
        Arithmetic(weights, products),
        Batch(case.rows, case.length, attention),
        quantised=isinstance(method, Qlora),
        double_quantisation=getattr(method, "double_quantization", True),
        checkpointing=case.checkpointing,
        head="logits" if case.plain_loop else "fused",
        keeps_outputs=case.plain_loop,
        autocast=case.dtype != "fp32" and not case.plain_loop,
        tiles_in_place=case.on_accelerator,
    )


def formula(case: Case, configs: Path) -> Memory:
    """By the closed form."""
    return memory(setting_of(case, shapes.from_config(config_of(case, configs))))


def traced(case: Case, configs: Path, folder: Path) -> Traced:
    """Under fake tensors."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(case, configs)))
    full = case.method.name == "full" and not case.plain_loop
    skeleton = Skeleton(
        load_config(Loading(folder)),
        case.method,
        "fp32" if full else case.dtype,
        case.attention,
        case.checkpointing,
    )
    step = Step(
        case.rows,
        case.length,
        head="logits" if case.plain_loop else "fused",
        keeps_outputs=case.plain_loop,
        autocast="fp32" if case.plain_loop else case.dtype,
        on_accelerator=case.on_accelerator,
    )
    return trace(build(skeleton), step)


_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "gate_proj", "up_proj"]
_QV = ["q_proj", "v_proj"]
ANCHORS: dict[str, Any] = {
    "lora--llama-3.2-3B-rank32": Lora(rank=32, alpha=64.0, targets=_QV),
    "lora--llama-3.2-3B-rank64": Lora(rank=64, alpha=64.0, targets=_QV),
    "lora--llama-3.2-3B-rank64-rslora": Lora(rank=64, alpha=64.0, variant="rslora", targets=_QV),
    "lora--llama-3.2-3B-rank10-target-mlp": Lora(rank=10, alpha=20.0, targets=["gate_proj", "up_proj", "down_proj"]),
    "lora--llama-3.2-3B-rank32-dora": Lora(rank=32, alpha=64.0, variant="dora", targets=_QV),
    "vera--llama-3.2-3B-default": Vera(targets=_QV),
    "ia3--llama-3.2-3B-default": Ia3(),
    "ia3--llama-3.2-3B-lr_0.001": Ia3(),
    "ia3--llama-3.2-3B-all-attn-5k-lr0.005": Ia3(
        targets=_SEVEN, feedforward_targets=["down_proj", "gate_proj", "up_proj"]
    ),
    "oft--llama-3.2-3B-rank32": Oft(block_size=96, targets=_QV),
    "full-finetuning--llama-3.2-3B-lr_0.00001": Full(),
}
"""Every run of PEFT's method comparison whose method the workbench has -> that method. (OFT's r counts blocks there: 32
of 96 on a width of 3,072.)"""


def anchor(name: str) -> Case:
    """An anchor's step: four rows of 768 tokens in a plain loop over a bf16 base with fp32 adapters."""
    return Case("llama-3.2-3b", ANCHORS[name], rows=4, length=768, plain_loop=True)


def measured_gib(anchors: Path) -> dict[str, float]:
    """The largest reserved memory of every run of the comparison, GiB."""
    with (anchors / "peft_metamathqa_results.csv").open() as stream:
        return {row["experiment"]: float(row["max_mem_reserved_GiB"]) for row in csv.DictReader(stream)}


def lora(**fields: Any) -> Lora:
    """Rank 16 on all linear layers."""
    return Lora(rank=16, alpha=32.0, **fields)


CASES = [
    Case("qwen3-8B", lora(), layers=12),
    Case("qwen3-8B", lora(), layers=12, checkpointing=True),
    Case("qwen3-8B", Qlora(rank=16, alpha=32.0), layers=12, checkpointing=True),
    Case("qwen3-4b-2507", lora(dropout=0.1), rows=8, length=256, layers=12),
    Case("qwen3-4b-2507", Full(), layers=12),
    Case("qwen3-4b-2507", Full(), layers=12, checkpointing=True),
    Case("llama-3.1-8b", lora(variant="dora"), layers=8),
    Case("llama-3.2-3b", lora(), rows=1, length=8192, layers=8, checkpointing=True),
    Case("llama-3.2-3b", Vera(), layers=8),
    Case("llama-3.2-3b", Ia3(), layers=8),
    Case("llama-3.2-3b", Oft(), layers=8),
    Case("llama-3.2-3b", lora(), layers=8, attention="eager"),
    Case("llama-3.2-3b", lora(), layers=8, dtype="fp32", on_accelerator=False),
    Case("llama-3.2-3b", Full(), layers=8, dtype="fp32", on_accelerator=False),
    Case("qwen3-30B-A3B", lora(), layers=8),
    Case("qwen3-30B-A3B", lora(), layers=8, checkpointing=True),
    Case("qwen3-30B-A3B", lora(experts="all"), layers=4),
    Case("deepseek_v3", lora(), layers=5),
    Case("deepseek_v3", lora(), layers=5, checkpointing=True),
    Case("glm45", lora(), layers=5),
    Case("minimax-m2", lora(), layers=4),
    Case("ernie-4.5-21b-a3b", lora(), layers=6),
    Case("qwen3-next-80B-A3B", lora(), layers=4),
]
