"""What tests share: a settled environment, small real bases, and a way to run the worker in this process."""

from __future__ import annotations

import os
import sys
import tempfile

_HOME = tempfile.mkdtemp(prefix="workbench-tests-")
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": f"{_HOME}/hf",
        "HF_DATASETS_CACHE": f"{_HOME}/datasets",
        "WORKBENCH_CACHE": f"{_HOME}/cache",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "COLUMNS": "200",
    }
)

import json  # noqa: E402
from collections.abc import Callable, Iterator, Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    """A real pretrained base of 260,032 parameters (Llama architecture)."""
    return shared / "bases" / "stories260K"


FAMILIES = ("qwen3", "qwen3_moe", "deepseek_v3", "llama")


def family_config(family: str, vocabulary: int) -> Any:
    """A real config class at a small size."""
    import transformers

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    if family == "llama":
        return transformers.LlamaConfig(**common, num_key_value_heads=2)
    if family == "qwen3":
        return transformers.Qwen3Config(**common, num_key_value_heads=2, head_dim=16)
    if family == "qwen3_moe":
        return transformers.Qwen3MoeConfig(
            **common, num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
        )
    return transformers.DeepseekV3Config(
        **common, num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8,
        v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1,
        moe_intermediate_size=32, n_shared_experts=1,
    )  # fmt: skip


def save_base(directory: Path, family: str, tokenizer: Any) -> Path:
    """A small random base of a real architecture, laid out as save_pretrained writes it."""
    import torch
    import transformers

    torch.manual_seed(7)
    config = family_config(family, len(tokenizer))
    config.eos_token_id = tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def qwen_tokenizer(shared: Path) -> Any:
    """The real Qwen2 tokenizer. (The stored chat template ends in a line of its own and is not prefix-stable.)"""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared / "tokenizers" / "qwen2" / "hf_fast")


@pytest.fixture(scope="session")
def family_base(tmp_path_factory: pytest.TempPathFactory, qwen_tokenizer: Any) -> Callable[[str], Path]:
    """family -> directory of a small random base with the real Qwen2 tokenizer (made once a session)."""
    made: dict[str, Path] = {}

    def base(family: str) -> Path:
        if family not in made:
            made[family] = save_base(tmp_path_factory.mktemp("bases") / family, family, qwen_tokenizer)
        return made[family]

    return base


@pytest.fixture(scope="session")
def small_tokenizer() -> Any:
    """A byte-level BPE trained in place, with a chat template of the common ChatML shape."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ran to the park with a red ball"] * 20, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return made


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> Path:
    """A small random Qwen3 with a vocabulary of 400: fast enough for any test."""
    return save_base(tmp_path_factory.mktemp("bases") / "small", "qwen3", small_tokenizer)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run bench processes in this one: the same code without twelve seconds of imports each. (Other tests start real
    processes.)"""
    import importlib

    from workbench.launch import local

    real = local.run_bench

    def run_bench(module: str, *arguments: str, environment: Mapping[str, str | None] | None = None) -> int:
        if module.startswith("workbench.tracking"):  # trackers keep threads, and services, of their own
            return real(module, *arguments)
        name = f"{module}.__main__" if module == "workbench.worker" else module
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        before = dict(os.environ)
        os.environ.update({key: value for key, value in (environment or {}).items() if value is not None})
        for key in [key for key, value in (environment or {}).items() if value is None]:
            os.environ.pop(key, None)
        try:
            return int(importlib.import_module(name).main())
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            for key in environment or {}:
                os.environ.pop(key, None)
            os.environ.update({key: value for key, value in before.items() if key in (environment or {})})

    monkeypatch.setattr(local, "run_bench", run_bench)


class Outcome:
    """What a command did."""

    def __init__(self, status: int, output: str) -> None:
        self.status, self.output = status, output


@pytest.fixture
def workbench(
    in_process: None, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Outcome]]:
    """Call the command line as a person would, in an empty directory: workbench("train", "recipe.yaml")."""
    import logging

    from workbench import bench
    from workbench.cli import app

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        try:
            status = bench.ended(lambda: app(list(arguments), standalone_mode=True))
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capfd.readouterr()
        return Outcome(status, said.out + said.err)

    yield call
    for handler in list(logging.getLogger("workbench").handlers):
        logging.getLogger("workbench").removeHandler(handler)
        handler.close()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
