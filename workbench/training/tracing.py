"""The memory of one training step, traced under fake tensors: the real model class, the real adapter and the real loss
at their true shapes, without a byte of their weights.

Every operation runs on tensors that have a shape and no content (torch's FakeTensorMode); we add up the storages that
are alive, as the device's allocator would hold them. Checked against measured peaks in the tests.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import bitsandbytes as bnb
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.kernels import chunked_logprob
from trl.trainer.utils import add_fused_lm_head

from workbench.bases import DTYPES
from workbench.training.skeleton import packed_weight

_ROUNDING_BYTES = 512
"""Allocators of accelerators give out memory in blocks of this size."""
_STEPS = 2
"""The first step makes the optimizer's state; the second one is like all later ones."""


@dataclass(frozen=True)
class Step:
    """How one step is taken."""

    rows: int
    length: int
    """Tokens of each row, padding included."""
    padded: bool = True
    """Whether the rows come with an attention mask."""
    head: Literal["fused", "logits"] = "fused"
    """fused: TRL's head, which never builds the logits; logits: the model's own loss, which does."""
    keeps_outputs: bool = False
    """Whether the caller still holds the last step's outputs (as a loop does that names them)."""
    autocast: str = "fp32"
    """Arithmetic around the forward: fp32 (none), fp16 or bf16."""
    on_accelerator: bool = True
    """Whether kernels of an accelerator are to be assumed: the fused head then works inside its tiles, and dropout
    keeps one byte an entry."""


@dataclass(frozen=True)
class Traced:
    """Bytes alive at their most, by stage of a step."""

    weights_bytes: int
    """Weights and buffers, trained or not."""
    state_bytes: int
    """The optimizer's state, and what else stays from step to step."""
    saved_bytes: int
    """What the forward keeps for the backward."""
    forward_peak_bytes: int
    backward_peak_bytes: int
    optimizer_peak_bytes: int
    largest_operation: str
    """The operation at the peak of the backward."""

    @property
    def peak_bytes(self) -> int:
        """The most of all stages."""
        return max(self.forward_peak_bytes, self.backward_peak_bytes, self.optimizer_peak_bytes)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages of all tensors that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.at_peak = ""
        self._held: dict[int, int] = {}

    def hold(self, tensor: torch.Tensor, operation: str = "") -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._held:
            return
        size = -(-storage.nbytes() // _ROUNDING_BYTES) * _ROUNDING_BYTES
        self._held[key] = size
        self.now += size
        if self.now > self.peak:
            self.peak, self.at_peak = self.now, operation
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._held.pop(key, 0)

    def start_stage(self) -> None:
        """Forget the peak of what was before."""
        self.peak = self.now

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.hold(tensor, str(function))
        return result


def trace(model: Any, step: Step) -> Traced:
    """Walk two steps of a model that lies on the meta device, in training mode, its trainable weights chosen.

    The model's weights are replaced by fake ones and are of no use afterwards.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if step.head == "fused":
        add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live, _kernels(model, step.on_accelerator):
        for tensor in (*_fake(model), *model.parameters(), *model.buffers()):
            live.hold(tensor)
        weights = live.now
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
        outputs = None
        for _ in range(_STEPS):
            start = live.now
            live.start_stage()
            with torch.autocast("cpu", dtype=DTYPES[step.autocast], enabled=step.autocast != "fp32"):
                outputs = model(**_inputs(step))
            loss = outputs.loss
            outputs = outputs if step.keeps_outputs else None
            saved, forward_peak = live.now - start, live.peak
            live.start_stage()
            loss.backward()
            del loss
            backward_peak, largest = live.peak, live.at_peak
            live.start_stage()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return Traced(weights, start - weights, saved, forward_peak, backward_peak, live.peak, largest)


def _inputs(step: Step) -> dict[str, Any]:
    ids = torch.zeros(step.rows, step.length, dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": ids, "labels": ids}
    if step.padded:
        inputs["attention_mask"] = torch.ones(step.rows, step.length, dtype=torch.long)
    if step.head == "fused":
        inputs["fused_lm_head"] = True
    return inputs


def _fake(model: nn.Module) -> list[torch.Tensor]:
    """Weights and buffers as fake tensors on the CPU; what was tied stays so. Returns the scales of 4-bit layers, which
    are neither."""
    made: dict[int, torch.Tensor] = {}
    scales: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.weight, own = packed_weight(module, module.compute_dtype)
            scales += own
            made[id(module.weight)] = module.weight
        for store in (module._parameters, module._buffers):
            for name, tensor in list(store.items()):
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fresh = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_weight = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fresh, tensor.requires_grad) if is_weight else fresh
                store[name] = made[id(tensor)]  # type: ignore[assignment]
    return scales


class _MaskedDropout(nn.Module):
    """Dropout as accelerators have it: the kept mask takes a byte an entry."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Of any shape."""
        kept: torch.Tensor = _ByteDropout.apply(inputs, self.probability)  # type: ignore[no-untyped-call]
        return kept


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, probability: float) -> torch.Tensor:
        mask = torch.empty(inputs.shape, dtype=torch.bool)
        ctx.save_for_backward(mask)
        return torch.empty_like(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradient * mask, None


class _EfficientAttention(torch.autograd.Function):
    """What a memory-efficient attention kernel keeps: its inputs, its output, a logarithm a row; never the
    probabilities."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        rows, heads, length, _ = query.shape
        result = torch.empty(rows, length, heads, value.shape[-1], dtype=query.dtype).transpose(1, 2)
        ctx.save_for_backward(query, key, value, result, torch.empty(rows, heads, length))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
    """In place of torch's scaled_dot_product_attention."""
    if torch.is_autocast_enabled("cpu"):
        kept = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(kept), key.to(kept), value.to(kept)
    attended: torch.Tensor = _EfficientAttention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return attended


_INSIDE_TILES = ("_forward_tile", "_backward_tile", "_addmm_fp32")
"""Steps of TRL's fused head that Triton and cuBLAS do without a tensor of their own."""


@contextlib.contextmanager
def _kernels(model: nn.Module, on_accelerator: bool) -> Iterator[None]:
    """What an accelerator's kernels do in place or in less space than the CPU's operations."""
    if not on_accelerator:
        yield
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout) and child.p > 0:
                setattr(module, name, _MaskedDropout(child.p))
    before = {name: getattr(chunked_logprob, name) for name in _INSIDE_TILES}
    attention = nn.functional.scaled_dot_product_attention
    try:
        for name in _INSIDE_TILES:
            setattr(chunked_logprob, name, lambda *tile, **options: None)
        nn.functional.scaled_dot_product_attention = _attention
        yield
    finally:
        nn.functional.scaled_dot_product_attention = attention
        for name, function in before.items():
            setattr(chunked_logprob, name, function)
