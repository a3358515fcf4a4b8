"""The shipped recipes on repositories laid out as the hub's cache lays them out, offline: small models, real rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Outcome
from huggingface_hub import constants

from workbench.recipe.load import load
from workbench.recipe.resolve import resolve
from workbench.runs.run import Run

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def lay_out(kind: str, repository: str) -> Path:
    """An empty snapshot in the hub's cache."""
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


@pytest.fixture(scope="module")
def hub(shared: Path, family_base: Callable[[str], Path]) -> None:
    """Bases by their real names (small random weights, the real Qwen2 tokenizer) and the data sets of the recipes."""
    for repository, family in (
        ("Qwen/Qwen3-0.6B", "qwen3"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("Qwen/Qwen3-0.6B-Base", "qwen3"),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "qwen3"),
    ):
        snapshot = lay_out("models", repository)
        shutil.copytree(family_base(family), snapshot, dirs_exist_ok=True)
        (snapshot / "chat_template.jinja").write_text(CHAT)
    gsm8k = lay_out("datasets", "openai/gsm8k") / "main"
    gsm8k.mkdir(exist_ok=True)
    for split, most in (("train", 30), ("test", 1)):
        with (shared / "tasks" / "gsm8k" / f"{split}.jsonl").open(encoding="utf-8") as stream:
            rows = [row for row in map(json.loads, stream) if len(row["question"]) < 150][:most]
        pq.write_table(pa.Table.from_pylist(rows), gsm8k / f"{split}-00000-of-00001.parquet")
    stories = lay_out("datasets", "roneneldan/TinyStories")
    text = (shared / "corpora" / "tinystories_train_2MiB.txt").read_text(encoding="utf-8")
    (stories / "TinyStoriesV2-GPT4-train.txt").write_text(text[:300_000])
    (stories / "TinyStoriesV2-GPT4-valid.txt").write_text(text[300_000:304_000])
    pairs = lay_out("datasets", "trl-lib/ultrafeedback_binarized") / "data"
    pairs.mkdir(exist_ok=True)
    source = json.loads((shared / "tasks" / "instructions" / "instruction-data-with-preference.json").read_text())
    rows = [_pair(row) for row in source[:40] if row["chosen"] != row["rejected"]]
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows), pairs / f"{split}-00000-of-00001.parquet")


def _pair(row: dict[str, str]) -> dict[str, Any]:
    asked = {"role": "user", "content": (row["instruction"] + "\n" + row["input"]).strip()}
    sides = {side: [asked, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {**sides, "score_chosen": 8.0, "score_rejected": 3.0}


SHIPPED = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
FROM_HUB = [name for name in SHIPPED if name not in ("quickstart", "scratch-quickstart", "embedded-pretrain")]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_resolves(name: str) -> None:
    resolved = resolve(load(ROOT / "recipes" / f"{name}.yaml", ["target=cpu"]))
    assert resolved.name == name
    assert resolved.suite is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_HUB)
def test_every_recipe_from_the_hub_runs_offline_from_its_cache(
    name: str, hub: None, workbench: Callable[..., Outcome]
) -> None:
    settings = ["target=cpu", "training.steps=2", "training.batch_size=4", "training.learning_rate=1e-3",
                "data.fraction=1.0", "data.max_length=500", "training.preflight=false"]  # fmt: skip
    outcome = workbench("train", f"recipes/{name}.yaml", *(part for s in settings for part in ("--set", s)))
    assert outcome.status == 0, outcome.output
    run = Run(next(Path("runs").glob(f"{name}-*")))
    manifest = json.loads(run.manifest.read_text())
    assert manifest["base"]["revision"] == COMMIT
    assert manifest["data"]["revision"] == COMMIT
    assert run.resolved().base.revision == COMMIT
    assert run.suites()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen-qlora"])
def test_a_recipe_from_the_hub_is_rehearsed_without_its_weights(
    name: str, hub: None, workbench: Callable[..., Outcome]
) -> None:
    """Tokenizer and configuration are there, the weights not yet: the twin needs none."""
    snapshots = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model.safetensors")
    moved = [path.rename(path.with_name("away")) for path in list(snapshots)]
    try:
        settings = ["data.fraction=1.0", "data.max_length=500"]
        outcome = workbench("rehearse", f"recipes/{name}.yaml", *(part for s in settings for part in ("--set", s)))
    finally:
        for path in moved:
            path.rename(path.with_name("model.safetensors"))
    assert outcome.status == 0, outcome.output
    assert "its weights are not on this machine yet" in outcome.output
    assert "rehearsed in" in outcome.output
    assert not Path("runs").exists()


def test_what_is_not_in_the_cache_is_said_with_the_command_that_fetches_it(workbench: Callable[..., Outcome]) -> None:
    outcome = workbench("train", "recipes/qwen-lora.yaml", "--set", "base=Qwen/Qwen3-1.7B", "--set", "target=cpu")
    assert outcome.status == 2
    assert "hf download Qwen/Qwen3-1.7B" in outcome.output
