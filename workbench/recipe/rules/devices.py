"""Rules on what a kind of device, or a base on it, has no kernels for."""

from __future__ import annotations

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules import facts
from workbench.recipe.rules.rule import Rule

_KNOWN_TO_LIGER = frozenset(
    f"{name}ForCausalLM"
    for name in ("Qwen2", "Qwen3", "Qwen3Moe", "Qwen3Next", "DeepseekV2", "DeepseekV3", "Llama", "Glm4", "Mistral",
                 "Mixtral", "GptOss", "HunYuanDenseV1", "HunYuanMoEV1")
)  # fmt: skip
"""Architectures of the catalog that Liger patches."""

_WITHOUT_FLASH = frozenset({"DeepseekV32ForCausalLM", "GptOssForCausalLM"})
_WITHOUT_SDPA = frozenset({"GptOssForCausalLM"})


def _eight_bit(resolved: Resolved) -> bool:
    return resolved.recipe.training.optimizer in facts.EIGHT_BIT_OPTIMIZERS


def _paged(resolved: Resolved) -> bool:
    return resolved.recipe.training.optimizer.startswith("paged")


def _flash(resolved: Resolved) -> bool:
    return facts.attention(resolved) == "flash_attention_2"


def _liger(resolved: Resolved) -> bool:
    return resolved.recipe.target.kernels == "liger"


def _unknown_to_liger(resolved: Resolved) -> bool:
    known = facts.architecture(resolved)
    return _liger(resolved) and known != "" and known not in _KNOWN_TO_LIGER


RULES: tuple[Rule, ...] = (
    Rule(
        "paged-on-cpu",
        ("training", "optimizer"),
        "illegal",
        lambda r: r.target.device == "cpu" and _paged(r),
        "there is nothing to page on a CPU (bitsandbytes falls back silently)",
        "use adamw or adamw_8bit",
        "bitsandbytes 0.50.2 optim/optimizer.py:374",
        cure={"training.optimizer": "adamw_8bit"},
    ),
    Rule(
        "paged-unproved",
        ("training", "optimizer"),
        "unwise",
        lambda r: _paged(r) and r.target.capabilities().paged_optimizers == "unknown",
        "nobody says that paged optimizers run on this kind of device",
        "use adamw_8bit",
        "bitsandbytes 0.50.2: paging is documented for CUDA's unified memory",
        cure={"training.optimizer": "adamw_8bit"},
    ),
    Rule(
        "eight-bit-optimizer-device",
        ("training", "optimizer"),
        "illegal",
        lambda r: _eight_bit(r) and r.target.capabilities().eight_bit_optimizers == "no",
        "bitsandbytes has no 8-bit optimizer for this target",
        "use adamw",
        "bitsandbytes 0.50.2 backends/ (no optimizer_update_8bit_blockwise) and its table of accelerators",
        cure={"training.optimizer": "adamw"},
    ),
    Rule(
        "flash-attention-device",
        ("target", "attention"),
        "illegal",
        lambda r: _flash(r) and r.target.capabilities().flash_attention == "no",
        "there is no flash attention for this target",
        "use sdpa",
        "transformers 5.23 modeling_flash_attention_utils.py (FLASH_ATTENTION_COMPATIBILITY_MATRIX)",
        cure={"target.attention": "sdpa"},
    ),
    Rule(
        "flash-attention-unproved",
        ("target", "attention"),
        "unwise",
        lambda r: _flash(r) and r.target.capabilities().flash_attention == "unknown",
        "transformers lists this kind of device, but the kernels come from its vendor or from the hub",
        "use sdpa unless you have seen it run",
        "transformers 5.23 modeling_flash_attention_utils.py (FLASH_ATTENTION_COMPATIBILITY_MATRIX)",
        cure={"target.attention": "sdpa"},
    ),
    Rule(
        "flash-attention-base",
        ("target", "attention"),
        "illegal",
        lambda r: _flash(r) and facts.architecture(r) in _WITHOUT_FLASH,
        "this architecture has no flash_attention_2 (it is refused, or replaced by kernels from the hub)",
        "leave it at auto",
        "transformers 5.23 deepseek_v32 (_supports_flash_attn) and gpt_oss (_compatible_flash_implementations); seen",
        cure={"target.attention": "auto"},
    ),
    Rule(
        "sdpa-base",
        ("target", "attention"),
        "illegal",
        lambda r: facts.attention(r) == "sdpa" and facts.architecture(r) in _WITHOUT_SDPA,
        "this architecture's attention sinks have no sdpa",
        "leave it at auto",
        "transformers 5.23 gpt_oss/modeling_gpt_oss.py:379 (_supports_sdpa); seen",
        cure={"target.attention": "auto"},
    ),
    Rule(
        "compile-device",
        ("target", "compile"),
        "unwise",
        lambda r: r.recipe.target.compile and r.target.capabilities().compile != "yes",
        "torch.compile is not promised for this kind of device",
        "set target.compile to false",
        "torch 2.13 inductor (mps: a prototype); transformers 5.23 training_args.py:1624 (hpu has its own backend)",
        cure={"target.compile": False},
    ),
    Rule(
        "compile-on-cpu",
        ("target", "compile"),
        "unwise",
        lambda r: r.recipe.target.compile and r.target.device == "cpu",
        "compiling takes minutes on a CPU (123 s before 3 steps of a tiny model)",
        "set target.compile to false",
        "seen with trl 1.16 and torch 2.13",
        cure={"target.compile": False},
    ),
    Rule(
        "liger-device",
        ("target", "kernels"),
        "illegal",
        lambda r: _liger(r) and r.target.capabilities().liger == "no",
        "there are no Liger kernels for this target",
        "set target.kernels to torch",
        "liger-kernel needs Triton; ms-swift's NPU table: Liger not supported",
        cure={"target.kernels": "torch"},
    ),
    Rule(
        "liger-unproved",
        ("target", "kernels"),
        "unwise",
        lambda r: _liger(r) and r.target.capabilities().liger in ("experimental", "unknown"),
        "nobody promises Liger's kernels for this kind of device",
        "set target.kernels to torch",
        "liger-kernel 0.8.5 metadata: NVIDIA and AMD",
        cure={"target.kernels": "torch"},
    ),
    Rule(
        "liger-base",
        ("target", "kernels"),
        "unwise",
        _unknown_to_liger,
        "Liger does not know this architecture and silently leaves it as it is",
        "set target.kernels to torch",
        "liger-kernel 0.8.5 transformers/monkey_patch.py (MODEL_TYPE_TO_APPLY_LIGER_FN)",
        cure={"target.kernels": "torch"},
    ),
)
