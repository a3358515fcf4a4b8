"""Rules on bases in 4 bits."""

from __future__ import annotations

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import facts
from workbench.recipe.rules.rule import Rule
from workbench.recipe.settings import Setting, Settings

_OF_FOUR_BITS = {"name", "quantization", "double_quantization", "storage"}


def _unquantized(resolved: Resolved) -> Settings:
    """The same over an unquantised base: lora with all that qlora said, in bf16 where the target has it."""
    adapter = facts.low_rank(resolved)
    if adapter is None:
        return {"method.quantization": "none"}
    said = adapter.model_dump(exclude_defaults=True, exclude=_OF_FOUR_BITS)
    if said.get("alpha") == 2.0 * adapter.rank:
        del said["alpha"]
    cure: dict[str, Setting] = {"method": "lora"} | {f"method.{name}": value for name, value in said.items()}
    return cure | ({"training.precision": "bf16"} if resolved.target.bf16 else {})


def _missing(resolved: Resolved) -> bool:
    return not resolved.target.nf4 or resolved.target.capabilities().nf4 == "no"


def _stored(resolved: Resolved) -> str | None:
    """What the base's own files are quantised to, where they are read."""
    known = facts.row(resolved)
    return known.stored if known and resolved.recipe.base.init == "pretrained" else None


RULES: tuple[Rule, ...] = (
    Rule(
        "four-bit-device",
        ("method", "name"),
        "illegal",
        lambda r: facts.four_bit(r) and _missing(r),
        "bitsandbytes has no 4-bit kernels for this target",
        "use method lora (in bf16) there",
        "bitsandbytes 0.50.2 __init__.py (supported_torch_devices), backends/; ms-swift's NPU table: no QLoRA",
        cure=_unquantized,
    ),
    Rule(
        "four-bit-unproved",
        ("method", "name"),
        "unwise",
        lambda r: facts.four_bit(r) and not _missing(r) and r.target.capabilities().nf4 == "experimental",
        "bitsandbytes runs 4-bit bases there through plain torch operations or in part only",
        "use method lora (in bf16) there",
        "bitsandbytes 0.50.2 backends/default and backends/hpu; its table of accelerators: partially supported",
        cure=_unquantized,
    ),
    Rule(
        "double-quantization-device",
        ("method", "double_quantization"),
        "illegal",
        lambda r: (
            facts.four_bit(r)
            and not _missing(r)
            and getattr(r.recipe.method, "double_quantization", False)
            and r.target.capabilities().double_quantization == "no"
        ),
        "the scales of a 4-bit base cannot be quantised on this target",
        "set method.double_quantization to false",
        "LLaMA-Factory examples/train_qlora/qwen3_lora_sft_bnb_npu.yaml: double_quantization false",
        cure={"method.double_quantization": False},
    ),
    Rule(
        "four-bit-of-quantized",
        ("method", "quantization"),
        "illegal",
        lambda r: facts.four_bit(r) and _stored(r) is not None,
        "the base's own files are quantised already, and transformers does not quantise them a second time",
        "use method lora, or a repository with its weights in bf16",
        "transformers 5.23 quantizers/auto.py:263; seen on a base whose config.json says fp8",
        cure=_unquantized,
    ),
    Rule(
        "four-bit-random",
        ("method", "quantization"),
        "illegal",
        lambda r: r.recipe.base.init == "random" and r.recipe.method.name == "none" and facts.four_bit(r),
        "random weights are built in full precision, so the quantization would be ignored",
        "set method.quantization to none",
        "workbench/bases.py: only weights that are read are quantised",
        cure={"method.quantization": "none"},
    ),
    Rule(
        "four-bit-experts",
        ("method", "quantization"),
        "unwise",
        lambda r: facts.four_bit(r) and facts.fused_experts(r),
        "the fused experts, most of this base's weights, are no linear layers and stay unquantised",
        "count on the memory of an unquantised base, or choose a dense one",
        "bitsandbytes issue 1849 (open); seen on a small Qwen3-MoE: experts.gate_up_proj stays float32",
    ),
    Rule(
        "fp4",
        ("method", "quantization"),
        "unwise",
        lambda r: getattr(r.recipe.method, "quantization", "none") == "fp4",
        "fp4 is less exact than nf4 at the same size (logit error 0.285 against 0.20 on random weights)",
        "use nf4",
        "Dettmers et al. 2023 (arXiv 2305.14314), section 4; seen on a small Llama",
        cure={"method.quantization": "nf4"},
    ),
    Rule(
        "mxfp4-training",
        ("base", "name"),
        "unwise",
        lambda r: r.trains and not facts.four_bit(r) and _stored(r) == "mxfp4",
        "MXFP4 weights are not trained on: they are unpacked to bf16 (four times the bytes), and training is refused "
        "where their kernels are installed",
        "train where the `kernels` package is not installed, and plan for the bf16 size",
        "transformers 5.23 quantizers/quantizer_mxfp4.py:209, issue 39969",
    ),
)
