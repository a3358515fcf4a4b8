"""Rules on arithmetic: bf16, fp16 and fp32 against devices, bases and attention."""

from __future__ import annotations

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import facts
from workbench.recipe.rules.rule import Rule
from workbench.recipe.settings import Settings

_OVERFLOWING = frozenset(f"{name}ForCausalLM" for name in ("Qwen2", "Qwen3Moe", "Glm4Moe", "DeepseekV2"))
"""Architectures of the catalog that were reported to overflow in fp16."""


def _wide(resolved: Resolved) -> Settings:
    """An arithmetic with the range of fp32: bf16 where the target has it."""
    return {"training.precision": "bf16" if resolved.target.bf16 else "fp32"}


RULES: tuple[Rule, ...] = (
    Rule(
        "bf16-device",
        ("training", "precision"),
        "illegal",
        lambda r: r.dtype == "bf16" and not r.target.bf16 and r.target.device != "cpu",
        "this target has no bf16 arithmetic",
        "use precision fp32, or fp16 where the base bears it",
        "transformers 5.23 training_args.py:1777; NVIDIA: bf16 from compute capability 8.0 on",
        cure={"training.precision": "fp32"},
    ),
    Rule(
        "bf16-emulated",
        ("training", "precision"),
        "unwise",
        lambda r: r.dtype == "bf16" and r.target.bf16 and r.target.capabilities().bf16 == "experimental",
        "bf16 is emulated in fp32 on some devices of this kind: no faster, and less exact",
        "use precision fp32 unless your device has bf16",
        "transformers 5.23 utils/import_utils.py:658 (M1 and M2)",
        cure={"training.precision": "fp32"},
    ),
    Rule(
        "fp16-device",
        ("training", "precision"),
        "illegal",
        lambda r: r.dtype == "fp16" and r.target.capabilities().fp16 == "no",
        "fp16 is silently ignored there: training would run in another arithmetic than it says",
        "use precision fp32",
        "accelerate 1.15 accelerator.py:566 (no loss scaling on cpu); seen with trl 1.16 on a CPU",
        cure={"training.precision": "fp32"},
    ),
    Rule(
        "fp16-unused",
        ("training", "precision"),
        "unwise",
        lambda r: r.dtype == "fp32" and r.target.device == "cuda" and not r.target.bf16,
        "this GPU has no bf16, so auto takes fp32, although its fp16 is several times as fast in half the memory",
        "set precision to fp16, where the base bears it",
        "NVIDIA's datasheets of T4 and V100 (fp16 eight times fp32)",
        cure={"training.precision": "fp16"},
    ),
    Rule(
        "fp16-beside-bf16",
        ("training", "precision"),
        "unwise",
        lambda r: r.dtype == "fp16" and r.target.bf16,
        "this target has bf16, which keeps the range of fp32 and needs no scaled loss",
        "use precision bf16",
        "transformers documentation, mixed_precision_training; trl 1.16 sft_config.py (bf16 by default)",
        cure={"training.precision": "bf16"},
    ),
    Rule(
        "fp16-base",
        ("training", "precision"),
        "unwise",
        lambda r: r.dtype == "fp16" and facts.architecture(r) in _OVERFLOWING,
        "bases of this architecture were trained in bf16 and are reported to overflow in fp16",
        "use precision bf16 where there is one, else fp32",
        "QwenLM/Qwen3 issue 868 (Qwen2), unslothai/unsloth-zoo PR 866 (Qwen3-MoE, GLM-4-MoE), "
        "deepseek-ai/DeepSeek-V2 issue 93",
        cure=_wide,
    ),
    Rule(
        "eager-low-precision",
        ("target", "attention"),
        "unwise",
        lambda r: facts.attention(r) == "eager" and r.dtype != "fp32" and facts.architecture(r) == "Qwen2ForCausalLM",
        "this architecture's products of queries and keys leave the range of 16 bits in eager attention "
        "(perplexity 8.0 for 7.1 in bf16, not a number in fp16)",
        "use sdpa",
        "transformers PR 33317 (measured on Qwen2-7B)",
        cure={"target.attention": "sdpa"},
    ),
    Rule(
        "flash-attention-fp32",
        ("target", "attention"),
        "illegal",
        lambda r: facts.attention(r) == "flash_attention_2" and r.dtype == "fp32",
        "flash attention has no fp32",
        "use sdpa, or precision bf16",
        "transformers 5.23 modeling_utils.py:1622",
        cure={"target.attention": "sdpa"},
    ),
)
