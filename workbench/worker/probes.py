"""`python -m workbench.worker.probes see | prove DEVICE COLLECTIVE NAME...`: what torch sees, and what works, as JSON.

A process of its own: importing torch may fail, and a library that is broken may take the process with it. Every proof
is one line on standard output as soon as it is there.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

_WIDTH = 64
_EIGHT_BIT_FROM = 4096
"""Elements from which bitsandbytes keeps an optimizer's state in 8 bits."""


class DoesNotWorkError(Exception):
    """An operation ran and gave something else than it should."""


def see() -> dict[str, Any]:
    """The accelerator that torch would use, with its devices; the kind is `cpu` where there is none."""
    found = torch.accelerator.current_accelerator()
    kind = found.type if found is not None else "cpu"
    module = getattr(torch, kind)
    count = module.device_count() if kind != "cpu" and module.is_available() else 0
    return {
        "kind": kind if count else "cpu",
        "is_rocm": torch.version.hip is not None,
        "build": torch.__version__,
        "toolkit": torch.version.hip or torch.version.cuda,
        "driver": _driver(kind) if count else None,
        "devices": [_device(module, number) for number in range(count)],
    }


def _device(module: Any, number: int) -> dict[str, Any]:
    memory = module.get_device_properties(number).total_memory if hasattr(module, "get_device_properties") else None
    name = module.get_device_name(number) if hasattr(module, "get_device_name") else module.__name__
    return {"name": name, "memory_bytes": memory}


def _driver(kind: str) -> str | None:
    """The driver's version, where its library says it."""
    if kind != "cuda" or torch.version.hip is not None:
        return None
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    return str(nvml.nvmlSystemGetDriverVersion())


def _close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Raise where they differ by more than a part of the spread of what is wanted."""
    error = float((found.detach().float() - wanted.detach().float()).abs().max() / wanted.detach().float().std())
    if not error <= tolerance:
        raise DoesNotWorkError(f"the result is off by {error:.2g} of its spread")


def _product(device: str, dtype: torch.dtype, tolerance: float) -> str:
    one, other = torch.randn(2, _WIDTH, _WIDTH, device=device)
    _close(one.to(dtype) @ other.to(dtype), one @ other, tolerance)
    return "a matrix product"


def _bf16(device: str) -> str:
    return _product(device, torch.bfloat16, 0.1)


def _fp16(device: str) -> str:
    weight = nn.Linear(_WIDTH, _WIDTH, device=device)
    optimizer, scaler = torch.optim.SGD(weight.parameters()), torch.amp.GradScaler(device)
    with torch.autocast(device, dtype=torch.float16):
        loss = weight(torch.randn(8, _WIDTH, device=device)).float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    return "a step with a scaled loss"


def _tf32(device: str) -> str:
    one, other = torch.randn(2, 512, 512, device=device)
    torch.set_float32_matmul_precision("highest")
    exact = one @ other
    torch.set_float32_matmul_precision("high")
    rounded = one @ other
    torch.set_float32_matmul_precision("highest")
    _close(rounded, exact, 0.05)
    if torch.equal(rounded, exact):
        raise DoesNotWorkError("products are not rounded: the device has no such arithmetic")
    return "a matrix product, rounded"


def _quantized(layer: Any, device: str, tolerance: float) -> str:
    """Forward and backward of a quantised layer against the one it was made from."""
    whole = nn.Linear(_WIDTH, _WIDTH)
    layer.load_state_dict(whole.state_dict())
    layer, whole = layer.to(device), whole.to(device)
    rows = torch.randn(8, _WIDTH, device=device, requires_grad=True)
    found = layer(rows)
    _close(found, whole(rows), tolerance)
    torch.autograd.backward(found.float().sum())
    if rows.grad is None or not torch.isfinite(rows.grad).all():
        raise DoesNotWorkError("the backward pass gives no finite gradient")
    return "a layer's forward and backward"


def _nf4(device: str, double: bool = False) -> str:
    bitsandbytes = importlib.import_module("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(
        _WIDTH, _WIDTH, compute_dtype=torch.float32, compress_statistics=double, quant_type="nf4"
    )
    return _quantized(layer, device, 0.7)


def _double_quantization(device: str) -> str:
    return _nf4(device, double=True)


def _int8(device: str) -> str:
    bitsandbytes = importlib.import_module("bitsandbytes")
    return _quantized(bitsandbytes.nn.Linear8bitLt(_WIDTH, _WIDTH, has_fp16_weights=False), device, 0.2)


def _stepped(optimizer_of: Callable[[list[nn.Parameter]], Any], device: str) -> Any:
    """One step of an optimizer on a weight that is large enough for 8 bits; returns it."""
    weight = nn.Parameter(torch.randn(_EIGHT_BIT_FROM * 2, device=device))
    before = weight.detach().clone()
    optimizer = optimizer_of([weight])
    weight.grad = 2 * weight.detach()
    optimizer.step()
    if not torch.isfinite(weight).all() or torch.equal(weight, before):
        raise DoesNotWorkError("the step moved nothing")
    return optimizer


def _eight_bit_optimizers(device: str, name: str = "AdamW8bit") -> str:
    bitsandbytes = importlib.import_module("bitsandbytes")
    optimizer = _stepped(getattr(bitsandbytes.optim, name), device)
    (state,) = optimizer.state.values()
    if state["state1"].dtype != torch.uint8:
        raise DoesNotWorkError(f"its state is {state['state1'].dtype}, not 8 bits")
    return "a step; its state is 8 bits"


def _paged_optimizers(device: str) -> str:
    return _eight_bit_optimizers(device, "PagedAdamW8bit")


def _fused_adamw(device: str) -> str:
    _stepped(lambda weights: torch.optim.AdamW(weights, fused=True), device)
    return "a step"


def _sdpa(device: str) -> str:
    query, key, value = torch.randn(3, 1, 2, 16, 32, device=device)
    wanted = torch.softmax(query @ key.transpose(-1, -2) / 32**0.5, dim=-1) @ value
    _close(nn.functional.scaled_dot_product_attention(query, key, value), wanted, 0.05)
    return "against the formula"


def _flash_attention(device: str) -> str:
    attention = importlib.import_module("flash_attn").flash_attn_varlen_func
    query, key, value = torch.randn(3, 24, 2, 64, device=device, dtype=torch.bfloat16)
    ends = torch.tensor([0, 16, 24], device=device, dtype=torch.int32)
    found = attention(query, key, value, ends, ends, 16, 16)
    first = (part[:16].transpose(0, 1).float() for part in (query, key, value))
    _close(found[:16].transpose(0, 1), nn.functional.scaled_dot_product_attention(*first), 0.1)
    return "two rows end to end"


def _liger(device: str) -> str:
    norm = importlib.import_module("liger_kernel.transformers").LigerRMSNorm(_WIDTH).to(device)
    rows = torch.randn(8, _WIDTH, device=device)
    _close(norm(rows), nn.functional.rms_norm(rows, (_WIDTH,), eps=1e-6), 0.05)
    return "a norm"


def _compile(device: str) -> str:
    rows = torch.randn(8, _WIDTH, device=device)
    _close(torch.compile(lambda x: torch.sin(x) + x.square())(rows), torch.sin(rows) + rows.square(), 1e-3)
    return "a compiled function"


def _ddp(device: str) -> str:
    layer = DistributedDataParallel(nn.Linear(_WIDTH, _WIDTH, device=device))
    layer(torch.randn(8, _WIDTH, device=device)).sum().backward()
    return f"a group of one over {dist.get_backend()}, and a step in it"


def _fsdp(device: str) -> str:
    layer = nn.Linear(_WIDTH, _WIDTH, device=device)
    fully_shard(layer, mesh=init_device_mesh(device, (1,)))
    layer(torch.randn(8, _WIDTH, device=device)).sum().backward()
    return "torch's fully_shard in a group of one"


PROOFS: dict[str, Callable[[str], str]] = {
    "bf16": _bf16,
    "fp16": _fp16,
    "tf32": _tf32,
    "nf4": _nf4,
    "double_quantization": _double_quantization,
    "int8": _int8,
    "eight_bit_optimizers": _eight_bit_optimizers,
    "paged_optimizers": _paged_optimizers,
    "fused_adamw": _fused_adamw,
    "sdpa": _sdpa,
    "flash_attention": _flash_attention,
    "liger": _liger,
    "compile": _compile,
    "ddp": _ddp,
    "fsdp": _fsdp,
}
"""Capability -> a tiny real operation of it on a device; says what was done, or raises."""


def prove(device: str, collective: str, names: list[str]) -> None:
    """Write a line for every proof: whether it holds, and what was done or what went wrong."""
    out, sys.stdout = sys.stdout, sys.stderr  # libraries that print do not write between the lines
    if {"ddp", "fsdp"} & set(names):
        dist.init_process_group(collective, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    for name in names:
        torch.manual_seed(0)
        try:
            found = {"name": name, "holds": True, "said": PROOFS[name](device)}
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the answer
            lines = str(error).strip().splitlines() or [type(error).__name__]
            found = {"name": name, "holds": False, "said": lines[0]}
        print(json.dumps(found), file=out, flush=True)


def main() -> int:
    """See, or prove what is named."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if sys.argv[1] == "see":
        print(json.dumps(see()))
    else:
        prove(sys.argv[2], sys.argv[3], sys.argv[4:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
