"""What a run leaves: an adapter in plain PEFT format, or a plain transformers model. Saved whole, loaded afresh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch

from workbench import bases, files, saving
from workbench.bases import Loading


def save(
    model: Any,
    tokenizer: Any,
    target: Path,
    pissa_start: Path | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write the trained adapter (or model) and the tokenizer, whole or not at all.

    Args:
        pissa_start: the adapter as PiSSA initialised it; with it the result is converted to an ordinary LoRA of twice
            the rank on the untouched base.
        weights: the model's state in whole tensors, where the model holds only parts of them.
    """
    given = {} if weights is None else {"state_dict": weights}
    with files.whole_directory(target) as fresh, saving.told(target):
        if isinstance(model, peft.PeftModel):
            options = {"path_initial_model_for_weight_conversion": str(pissa_start)} if pissa_start else {}
            model.save_pretrained(str(fresh), safe_serialization=True, **options, **given)
            (fresh / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
            _sort_config(fresh / "adapter_config.json")
        else:
            model.save_pretrained(str(fresh), safe_serialization=True, **given)
        tokenizer.save_pretrained(str(fresh))


def _sort_config(path: Path) -> None:
    """PEFT writes its sets in an order that changes from process to process; equal runs must leave equal files."""
    config = {
        key: sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
        for key, value in files.read_json(path).items()
    }
    files.write_json(path, config)


def save_pissa_start(model: Any, target: Path) -> None:
    """Keep the adapter as PiSSA initialised it; `save` needs it."""
    config = model.peft_config["default"]
    kept, config.init_lora_weights = config.init_lora_weights, True
    with files.whole_directory(target) as fresh, saving.told(target):
        model.save_pretrained(str(fresh))
    config.init_lora_weights = kept


def is_adapter(result: Path) -> bool:
    """Whether a result directory holds an adapter (else a whole model)."""
    return (result / "adapter_config.json").exists()


def load(base: Loading, result: Path | None) -> Any:
    """The model that a finished run stands for: the base with the saved adapter on it, or the saved model.

    Args:
        result: the run's adapter directory; None for the base as it is.
    """
    if result is None:
        return bases.load_model(base)
    if not is_adapter(result):
        return bases.load_model(replace(base, directory=result, init="pretrained"))
    model = peft.PeftModel.from_pretrained(bases.load_model(base), str(result))
    model.eval()
    return model
