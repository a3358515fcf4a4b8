"""Load a base and its tokenizer at a pinned revision, or build the same architecture fresh from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from workbench import documents, fingerprint
from workbench.errors import BaseError, Problem

transformers_logging.disable_progress_bar()  # a bar for every load would drown our own

_TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "*.tiktoken")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_STORAGES = {**DTYPES, "uint8": torch.uint8}


@dataclass(frozen=True)
class Loading:
    """How a base is put into memory."""

    directory: Path
    init: str = "pretrained"
    """pretrained or random."""
    dtype: str = "fp32"
    """Storage of the weights: fp32, fp16 or bf16."""
    quantization: str = "none"
    """none, nf4 or fp4."""
    double_quantization: bool = True
    storage: str = "uint8"
    """Type that packed 4-bit weights lie in: uint8, fp32 or bf16; the same bits in each."""
    attention: str = "auto"
    device: str | None = "cpu"
    """torch's name of a device. None: wherever the library that shards the weights wants them first."""
    seed: int = 0
    """Of a random initialisation."""
    gguf: Path | None = None
    """A GGUF file to read, dequantised, in place of the directory's weights. (The configuration stays the directory's:
    transformers takes only a part of it from such a file.)"""
    trust_remote_code: bool = False


def load_tokenizer(loading: Loading) -> Any:
    """The base's own (fast) tokenizer.

    Raises:
        BaseError: there is none, or it gives no character offsets.
    """
    where = documents.display(loading.directory)
    if not any(path for pattern in _TOKENIZER_FILES for path in loading.directory.glob(pattern)):
        # transformers would make an empty tokenizer from the configuration alone
        raise BaseError(Problem(where, "has no tokenizer file", "a base needs a tokenizer.json beside its weights"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(loading.directory), trust_remote_code=loading.trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseError(
            Problem(
                where,
                f"its tokenizer cannot be loaded: {_first_line(error)}",
                "a base needs a tokenizer.json beside its weights",
            )
        ) from None
    if not tokenizer.is_fast:
        raise BaseError(
            Problem(
                where,
                "its tokenizer has no tokenizer.json, so the loss mask cannot be placed exactly",
                "convert it once with transformers' AutoTokenizer and save_pretrained",
            )
        )
    return tokenizer


def chat_template(tokenizer: Any, chosen: str) -> str | None:
    """The Jinja template that `data.template` names, or None for plain.

    Raises:
        BaseError: `base` is asked for and the base has none.
    """
    if chosen == "plain":
        return None
    if chosen != "base":
        return Path(chosen).read_text(encoding="utf-8")
    if not isinstance(tokenizer.chat_template, str):
        raise BaseError(
            Problem(
                "data.template",
                "the base has no chat template",
                "use an instruct base, data.template: plain, or a path to a Jinja template",
            )
        )
    return tokenizer.chat_template


def template_fingerprint(template: str | None) -> str:
    """What two runs compare their templates by."""
    return fingerprint.of_text(template or "plain")


def load_model(loading: Loading) -> Any:
    """The causal language model, in evaluation mode.

    Raises:
        BaseError: weights are missing or unreadable, or the architecture is not known.
    """
    where = documents.display(loading.directory)
    options: dict[str, Any] = {"trust_remote_code": loading.trust_remote_code}
    if loading.attention != "auto":
        options["attn_implementation"] = loading.attention
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        model = _random(loading, options) if loading.init == "random" else _pretrained(loading, options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BaseError(Problem(where, f"the base cannot be loaded: {_first_line(error)}")) from None
    except Exception as error:  # safetensors' own error type derives from Exception alone
        if type(error).__name__ != "SafetensorError":
            raise
        raise BaseError(Problem(where, f"its weights are damaged: {_first_line(error)}", "fetch them again")) from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    model.eval()
    return model


def _random(loading: Loading, options: dict[str, Any]) -> Any:
    config = load_config(loading)
    torch.manual_seed(loading.seed)
    model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[loading.dtype], **options)
    return model.to(loading.device) if loading.device else model


def _pretrained(loading: Loading, options: dict[str, Any]) -> Any:
    if loading.quantization != "none":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=loading.quantization,
            bnb_4bit_use_double_quant=loading.double_quantization,
            bnb_4bit_compute_dtype=DTYPES[loading.dtype],
            bnb_4bit_quant_storage=_STORAGES[loading.storage],
        )
    if loading.gguf is not None:
        options |= {"gguf_file": loading.gguf.name, "config": load_config(loading)}
    model, facts = AutoModelForCausalLM.from_pretrained(
        str(loading.gguf.parent if loading.gguf else loading.directory),
        dtype=DTYPES[loading.dtype],
        device_map={"": loading.device} if loading.device else None,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused below, in words
        **options,
    )
    if facts["mismatched_keys"]:
        name, stored, wanted = sorted(facts["mismatched_keys"])[0]
        raise BaseError(
            Problem(
                documents.display(loading.directory),
                f"{len(facts['mismatched_keys'])} weights are of other sizes than config.json says (such as {name}: "
                f"{list(stored)}, not {list(wanted)})",
                "the files and config.json do not belong together",
            )
        )
    if facts["missing_keys"]:
        missing = ", ".join(sorted(facts["missing_keys"])[:3])
        raise BaseError(
            Problem(
                documents.display(loading.directory),
                f"{len(facts['missing_keys'])} weights are missing (such as {missing})",
                "the files and config.json do not belong together",
            )
        )
    if loading.quantization != "none" and loading.device == "cpu":
        _exact_on_cpu(model)
    return model


def _exact_on_cpu(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first forward without gradients: on CPUs with AVX512-BF16
    it rounds their scales to bf16 for good, so that training, scoring and other machines would see different models
    (and it fails on widths that 64 does not divide)."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def load_config(loading: Loading) -> Any:
    """The base's configuration.

    Raises:
        BaseError: it cannot be read, or contradicts itself.
    """
    try:
        return AutoConfig.from_pretrained(
            str(loading.directory), trust_remote_code=loading.trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        where = f"{documents.display(loading.directory)}/config.json"
        raise BaseError(Problem(where, f"is no usable configuration: {_last_line(error)}")) from None


def context_length(model_config: Any) -> int:
    """Longest sequence, in tokens, that the base's positions allow."""
    text = model_config.get_text_config()
    return int(getattr(text, "max_position_embeddings", 0) or 2048)


def _last_line(error: BaseException) -> str:
    """Where a library wraps an error, the reason stands last."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:300]


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
