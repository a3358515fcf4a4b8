"""Whether the device computes what the CPU computes: losses of a few steps, and 4-bit weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from gpu_checks.combinations import METHODS, Combination
from gpu_checks.steps import Trained, batch, counted, step_of
from workbench.methods.apply import apply

LIMITS = {"fp32": 1e-4, "bf16": 2e-2}
"""How far the losses may lie apart, nats a token."""
CASES = [(kind, precision) for kind in ("qwen3", "llama") for precision in LIMITS]
"""What is compared."""
_WIDTHS: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256, "max_position_embeddings": 512,
    "initializer_range": 0.1,
}  # fmt: skip
_STEPS, _RATE = 6, 3e-3
_BLOCK = 64
_NF4_WIDEST_GAP = 1.0 - 0.6961928
"""Between -1 and the next of NF4's 16 values (Dettmers et al. 2023, arXiv 2305.14314, appendix E): a weight lies at
most half of it from its value, times the block's largest weight."""
_ON_THE_EDGE = 1e-5
"""Share of bytes that may differ: weights so near the middle of two values that rounding decides."""


def losses_equal(kind: str, precision: str, device: str) -> dict[str, Any]:
    """A tiny base trained with LoRA, the same weights on the same rows: on the device with torch's attention, on the
    CPU with plain products (so that a CPU does not only meet itself).

    Raises:
        FloatingPointError: a loss is no number.
    """
    torch.set_float32_matmul_precision("highest")
    ours, reference = losses(kind, precision, device, "sdpa"), losses(kind, precision, "cpu", "eager")
    largest = max(abs(one - other) for one, other in zip(ours, reference, strict=True))
    return {
        "losses": ours,
        "cpu_losses": reference,
        "largest_difference": largest,
        "limit": LIMITS[precision],
        "holds": largest <= LIMITS[precision],
    }


def losses(kind: str, precision: str, device: str, attention: str) -> list[float]:
    """The losses of a few steps from the same start."""
    torch.manual_seed(0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    base = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**_WIDTHS), dtype=dtype, attn_implementation=attention)
    model = apply(base, METHODS["lora"], 0).to(device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    trained = Trained(model, torch.optim.AdamW(weights, lr=_RATE, fused=True), 0, 0)
    rows = batch(Combination(kind, "lora", 4, 48), _WIDTHS["vocab_size"], device)
    step = step_of(trained, rows, fused=False, device=device, mixed=precision != "fp32")
    return counted(float(step()) for _ in range(_STEPS))


def nf4_round_trip(device: str, small: bool, bitsandbytes: Any) -> dict[str, Any]:
    """A weight in NF4 on the device and on the CPU: the same bytes, and no entry further off than NF4 allows."""
    functional = bitsandbytes.functional
    torch.manual_seed(0)
    weight = torch.randn(256 if small else 2048, 1024) * 0.02

    def quantised(place: str, nested: bool = False) -> Any:
        return functional.quantize_4bit(
            weight.to(place), blocksize=_BLOCK, quant_type="nf4", compress_statistics=nested
        )

    (on_cpu, cpu_state), (packed, state) = quantised("cpu"), quantised(device)
    back = functional.dequantize_4bit(packed, state).cpu()
    nested = functional.dequantize_4bit(*quantised(device, nested=True)).cpu()
    from_cpu = functional.dequantize_4bit(on_cpu, cpu_state)
    cpu_state.to(device)
    apart = (functional.dequantize_4bit(on_cpu.to(device), cpu_state).cpu() - from_cpu).abs().max().item()
    different = int((on_cpu != packed.cpu()).sum())
    largest = weight.view(-1, _BLOCK).abs().amax(dim=1, keepdim=True)
    worst = ((weight - back).view(-1, _BLOCK).abs() / largest).max().item()
    return {
        "shape": list(weight.shape),
        "bytes": on_cpu.numel(),
        "different_bytes": different,
        "same_bytes_dequantised_apart": apart,
        "largest_error_of_block": worst,
        "allowed_error_of_block": _NF4_WIDEST_GAP / 2,
        "relative_error": ((weight - back).norm() / weight.norm()).item(),
        "relative_error_with_quantised_scales": ((weight - nested).norm() / weight.norm()).item(),
        "holds": different <= _ON_THE_EDGE * on_cpu.numel() and apart <= 1e-7 and worst <= _NF4_WIDEST_GAP / 2 + 1e-6,
    }
