"""Is there disk for everything that a run will write?"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import peft
from peft import get_peft_model_state_dict

from workbench import documents, hub
from workbench.errors import Problem, RunError
from workbench.methods import proof
from workbench.plan.disk import Disk, most_checkpoints, optimizer_bytes, record_bytes
from workbench.recipe.schema import Lora
from workbench.worker.setup import Bench

_GIB = 2**30
_ANSWER_BYTES = 8
"""Of one generated token as text, generously."""


def planned(bench: Bench, model: Any, steps: int) -> Disk:
    """What the run will write.

    Args:
        model: with its trained weights, in memory or only as shapes on the meta device.
    """
    recipe = bench.resolved.recipe
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    saved = _saved_bytes(model)
    pissa = isinstance(recipe.method, Lora) and recipe.method.variant == "pissa"
    tokenizer = _tokenizer_bytes(bench.loading.directory)
    vocabulary = int(model.config.get_text_config().vocab_size)
    return Disk(
        checkpoint_bytes=saved
        + optimizer_bytes((weight.numel() for weight in trained), recipe.training.optimizer)
        + tokenizer
        + record_bytes(steps),
        checkpoints=most_checkpoints(steps, recipe.training.checkpoint_every),
        result_bytes=saved * (3 if pissa else 1) + tokenizer,  # PiSSA: twice the rank, and its start beside it
        other_bytes=proof.probe_bytes(vocabulary) + _score_bytes(bench) + record_bytes(steps),
    )


def check(disk: Disk, folder: Path) -> None:
    """Refuse a folder whose disk has too little room.

    Raises:
        RunError: says what is needed for what, and what is free.
    """
    free = shutil.disk_usage(folder).free
    if free >= disk.needed_bytes:
        return
    found = (
        f"has {shown(free)} free, the run needs {shown(disk.needed_bytes)}: {disk.checkpoints} checkpoints of "
        f"{shown(disk.checkpoint_bytes)} at once, {shown(disk.result_bytes)} for the result, "
        f"{shown(disk.other_bytes)} for the rest, and a tenth of it"
    )
    raise RunError(
        Problem(
            f"disk of {documents.display(folder)}",
            found,
            "free some, choose another place with --runs, or raise training.checkpoint_every",
        )
    )


def shown(count: float) -> str:
    """Bytes for a person."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB / 100 else f"{count / 2**20:.2f} MiB"


def _saved_bytes(model: Any) -> int:
    """Of the weights that a checkpoint holds: the adapter's, or all of them (shared ones once)."""
    weights = get_peft_model_state_dict(model).values() if isinstance(model, peft.PeftModel) else model.parameters()
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _tokenizer_bytes(directory: Path) -> int:
    """Of the files beside the weights, which every checkpoint and the result hold a copy of."""
    found = {path for pattern in hub.MODEL_FILES for path in directory.glob(pattern)}
    return sum(path.stat().st_size for path in found if "safetensors" not in path.name)


def _score_bytes(bench: Bench) -> int:
    """Of one row an item: what it holds, its answer, its numbers."""
    size = 0
    for one in bench.items:
        answer = _ANSWER_BYTES * getattr(one.task, "max_new_tokens", 64)
        size += sum(2 * len(json.dumps(item.as_words())) + answer for item in one.items)
    return math.ceil(size)
