"""What is proved of every trained result.

1. The trained weights are those declared, and every targeted place moved.
2. The saved files, loaded afresh, give the logits of the model in memory (and not the base's).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file

from workbench import files, saving
from workbench.collective import whole
from workbench.errors import MethodError, Problem
from workbench.methods.targets import adapted

_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2}
"""Largest difference of logits, relative to their spread, between the saved files and the model in memory."""
PROBE_ROWS = 3
_PROBE_TOKENS = 64
_START_WEIGHTS = ("lora_A",)
"""Weights that may move while the update stays zero: they do not show that a place was trained."""


def digests(model: Any) -> dict[str, str]:
    """sha256 by name of every trainable weight: what the start is remembered by."""
    return {name: _digest(weight) for name, weight in model.named_parameters() if weight.requires_grad}


def _digest(weight: torch.Tensor) -> str:
    values = whole(weight.detach()).to("cpu").contiguous().view(torch.uint8)
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def prove_trained(model: Any, before: dict[str, str]) -> dict[str, Any]:
    """Check that what was declared trainable is what is trained, and that every place moved.

    Raises:
        MethodError: a place did not move, or weights outside the adapter are trainable.
    """
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if trainable.keys() != before.keys():
        odd = sorted(trainable.keys() ^ before.keys())[:3]
        raise MethodError(Problem("method", f"the trainable weights changed during training (such as {odd})"))
    moved = {name for name, weight in trainable.items() if _digest(weight) != before[name]}
    is_peft = isinstance(model, peft.PeftModel)
    places = sorted(adapted(model)) if is_peft else sorted(trainable)
    telling = {name for name in moved if not any(part in name for part in _START_WEIGHTS)}
    still = (
        [place for place in places if not any(_belongs(name, place) for name in telling)]
        if is_peft
        else [name for name in places if name not in moved]
    )
    if still:
        raise MethodError(
            Problem(
                "adapter",
                f"{len(still)} of {len(places)} trained places did not move (such as {still[0]})",
                "train longer, raise training.learning_rate, or take them out of method.targets",
            )
        )
    return {
        "places": len(places),
        "moved": len(places),
        "trained_parameters": sum(w.numel() for w in trainable.values()),
    }


def _belongs(weight: str, place: str) -> bool:
    return weight.removeprefix("base_model.model.").startswith(f"{place}.")


def probe_bytes(vocabulary: int) -> int:
    """Of a probe on the disk, at most: logits in fp32."""
    return PROBE_ROWS * _PROBE_TOKENS * vocabulary * 4


def probe_rows(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """The first tokens of a few rows."""
    return [list(row[:_PROBE_TOKENS]) for row in rows]


@torch.no_grad()
def logits(model: Any, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Next-token logits [tokens, vocabulary] of each row, in fp32 on the CPU."""
    was_training = model.training
    model.eval()
    found = [
        model(input_ids=torch.tensor([list(row)], device=model.device), use_cache=False).logits[0].float().cpu()
        for row in rows
    ]
    model.train(was_training)
    return found


def save_probe(path: Path, rows: Sequence[Sequence[int]], found: Sequence[torch.Tensor]) -> None:
    """Keep the probe's rows and the logits of the model in memory.

    Raises:
        MethodError: the logits are not numbers (the last step threw the weights away).
        RunError: they cannot be written.
    """
    if not all(bool(torch.isfinite(values).all()) for values in found):
        raise MethodError(
            Problem(
                "adapter", "the trained model's logits are not finite", "lower training.learning_rate and train anew"
            )
        )
    tensors = {f"ids.{at}": torch.tensor(list(row)) for at, row in enumerate(rows)}
    tensors |= {f"logits.{at}": values.contiguous() for at, values in enumerate(found)}
    with files.whole_file(path) as fresh, saving.told(path):
        save_file(tensors, str(fresh))


def load_probe(path: Path) -> tuple[list[list[int]], list[torch.Tensor]]:
    """The probe's rows and logits."""
    tensors = load_file(str(path))
    count = sum(name.startswith("ids.") for name in tensors)
    return [tensors[f"ids.{at}"].tolist() for at in range(count)], [tensors[f"logits.{at}"] for at in range(count)]


def distance(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Largest difference of logits, relative to the spread (standard deviation) of the first."""
    spread = max(float(torch.cat([values.flatten() for values in one]).std()), 1e-12)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / spread


def prove_saved(
    memory: Sequence[torch.Tensor], fresh: Sequence[torch.Tensor], base: Sequence[torch.Tensor] | None, dtype: str
) -> dict[str, Any]:
    """Compare logits of the model in memory, of the saved files loaded afresh, and of the base.

    Raises:
        MethodError: the files give other logits than the model did, or the same as the base.
    """
    error = distance(memory, fresh)
    if not error <= _TOLERANCE[dtype]:  # so that NaN is refused too
        raise MethodError(
            Problem(
                "adapter",
                f"the saved files give other logits than the trained model did (by {error:.2g} of their spread)",
                "please report this: the result on disk is not the model that was trained",
            )
        )
    facts: dict[str, Any] = {"saved_against_memory": error, "tolerance": _TOLERANCE[dtype]}
    if base is not None:
        facts["saved_against_base"] = distance(base, fresh)
        if facts["saved_against_base"] == 0.0:
            raise MethodError(
                Problem(
                    "adapter",
                    "gives the same logits as the base: it does nothing",
                    "train longer or raise training.learning_rate",
                )
            )
    return facts
