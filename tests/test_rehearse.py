"""`workbench rehearse`: what would fail at hour nine fails here; a recipe that is well passes and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from conftest import ROOT, Outcome, write_rows
from small_recipes import Workbench, preferences, questions, train, write_recipe
from test_families import CHAT_TEMPLATE

from workbench import bases, files, twins
from workbench.bases import Loading

STAGES = ("runs folder", "tokenizer", "base", "items", "method", "rows", "disk", "twin", "base scored", "prepare",
          "train", "checkpoint", "continue", "save", "prove", "evaluate", "merge", "export")  # fmt: skip


def rehearse(workbench: Workbench, recipe: Path | str, *settings: str, runs: str = "runs") -> Outcome:
    overrides = [word for setting in settings for word in ("--set", setting)]
    return workbench("rehearse", str(recipe), "--runs", runs, *overrides)


def passed(outcome: Outcome, *left_out: str) -> None:
    assert outcome.status == 0, outcome.output
    assert "rehearsed in" in outcome.output and "failed" not in outcome.output
    lines = {line[8:20].strip(): line for line in outcome.output.splitlines() if line.startswith("ok ")}
    assert [name for name in STAGES if name not in left_out] == list(lines), outcome.output
    if "continue" in lines:
        assert "a second worker went on from step" in lines["continue"]


def refused(outcome: Outcome, stage: str, *words: str) -> None:
    said = " ".join(outcome.output.split())
    assert outcome.status == 2, outcome.output
    assert "Traceback" not in said, outcome.output
    assert any(line.startswith("failed") and line[8:20].strip() == stage for line in outcome.output.splitlines()), said
    for word in words:
        assert word in said, outcome.output


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Path:
    """A recipe that is well, with a suite of three kinds of tasks."""
    write_rows(tmp_path / "rows" / "test.jsonl", [
        {"prompt": f"what lies on the mat number {at}?", "completion": f"the {word}", "choices": ["the cat", "the dog"]}
        for at, word in enumerate(("cat", "dog", "cat", "dog", "cat"))
    ])  # fmt: skip
    write_rows(tmp_path / "rows" / "text.jsonl", [{"text": "the cat ran to the park. " * at} for at in range(1, 5)])
    for name, form in (("asked", "prompt_completion"), ("text", "text")):
        card = {"format": form, "splits": {"test": {"files": f"../rows/{'test' if name == 'asked' else name}.jsonl"}}}
        (tmp_path / "datasets").mkdir(exist_ok=True)
        (tmp_path / "datasets" / f"{name}.yaml").write_text(yaml.safe_dump(card))
    write_suite(tmp_path)
    write_recipe(tmp_path, small_base, questions(40), evaluation={"suite": "asked"}, training={"checkpoint_every": 50})
    return tmp_path


def write_suite(place: Path, *more: dict[str, Any], **changes: Any) -> None:
    tasks = [
        {"name": "generate", "id": "says", "data": "asked", "max_new_tokens": 3, "fewshot": 1, "fewshot_split": "test"},
        {"name": "choice", "id": "chooses", "data": "asked", "options": "choices"},
        {"name": "heldout", "id": "reads", "data": "text"},
    ]
    tasks = [{**task, **changes.get(str(task["id"]), {})} for task in tasks]
    (place / "suites").mkdir(exist_ok=True)
    (place / "suites" / "asked.yaml").write_text(yaml.safe_dump({"tasks": [*tasks, *more]}))


def rows_with(place: Path, last: dict[str, Any], count: int = 400) -> None:
    """Many good rows, and one more at the end."""
    write_rows(place / "rows" / "train.jsonl", [*questions(count), last])


# --- what is well ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_quickstart_passes_and_leaves_nothing_behind(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    outcome = rehearse(workbench, ROOT / "recipes" / "quickstart.yaml")
    passed(outcome)
    assert list(scratch.iterdir()) == []
    assert list(tmp_path.iterdir()) == [scratch], "not even the folder of the runs"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
def test_other_families_pass(
    workbench: Workbench, place: Path, family_base: Callable[[str], Path], family: str
) -> None:
    (place / "chat.jinja").write_text(CHAT_TEMPLATE)
    settings = [f"base={family_base(family)}", "data.template=./chat.jinja"]
    experts = ["method.experts=all"] if family == "qwen3_moe" else []
    passed(rehearse(workbench, place / "small.yaml", *settings, *experts))


VARIANTS: dict[str, list[str]] = {
    "qlora": ["method={name: qlora, rank: 64}"],
    "full, flattened, checkpointed": ["method=full", "target.layout=flattened", "target.gradient_checkpointing=true"],
    "an nvidia card in bf16": ["target.name=h100-80gb", "training.optimizer=paged_adamw_8bit"],
}


@pytest.mark.slow
@pytest.mark.parametrize("label", VARIANTS)
def test_every_method_passes(workbench: Workbench, place: Path, label: str) -> None:
    outcome = rehearse(workbench, place / "small.yaml", *VARIANTS[label], "evaluation.base=false")
    passed(outcome, "base scored")
    if label == "an nvidia card in bf16":
        assert "this machine has no cuda" in outcome.output


@pytest.mark.slow
def test_pairs_and_raw_text_and_a_base_that_is_only_scored_pass(
    workbench: Workbench, place: Path, small_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    passed(
        rehearse(workbench, place / "small.yaml", "method=none"),
        *STAGES[STAGES.index("base scored") : STAGES.index("evaluate")], "method", "rows", "disk", "merge", "export",
    )  # fmt: skip
    pairs = write_recipe(tmp_path_factory.mktemp("pairs"), small_base, preferences(), "preference", objective="dpo")
    passed(rehearse(workbench, pairs), "base scored", "evaluate")
    text = write_recipe(
        tmp_path_factory.mktemp("text"),
        small_base,
        [{"text": "the cat sat on the mat. " * 400}, {"text": "the dog ran."}],
        "text",
        objective="pretrain",
        method="full",
    )
    passed(rehearse(workbench, text, "base.init=random"), "base scored", "evaluate")


@pytest.mark.slow
def test_what_was_made_is_kept_where_asked(workbench: Workbench, place: Path) -> None:
    outcome = workbench("rehearse", str(place / "small.yaml"), "--keep", "kept", "--set", "evaluation.suite=")
    passed(outcome, "base scored", "evaluate")
    (run,) = Path("kept", "runs").glob("rehearsal-*")
    assert (run / "status.json").exists()
    attempts = [row["event"] for row in files.read_jsonl(run / "attempts.jsonl")]
    assert attempts == ["start", "start", "end"], "one was killed"
    rows = files.read_json(run / "data.json")
    assert rows["rows_in"] == 32, "some dozens of the 40"
    model = transformers.AutoModelForCausalLM.from_pretrained("kept/exported")
    assert model.config.hidden_size == 64
    assert workbench("rehearse", str(place / "small.yaml"), "--keep", "kept").status == 2


# --- what is not -----------------------------------------------------------------------------------------------------


def test_runs_that_cannot_be_written(workbench: Workbench, place: Path) -> None:
    (place / "occupied").write_text("a file")
    refused(rehearse(workbench, place / "small.yaml", runs="occupied/runs"), "runs folder", "cannot be written")


def test_a_last_row_longer_than_the_context(workbench: Workbench, place: Path) -> None:
    rows_with(place, {"prompt": "the cat and " * 600, "completion": "ran"})
    words = ("train.jsonl:401", "tokens long, at most 512 fit", "not rehearsed")
    refused(rehearse(workbench, place / "small.yaml"), "rows", *words)


def test_a_template_that_breaks_on_the_last_row(workbench: Workbench, place: Path) -> None:
    rows_with(place, {"prompt": "say FORBIDDEN", "completion": "ran"})
    (place / "picky.jinja").write_text(
        "{% for m in messages %}{% if 'FORBIDDEN' in m.content %}{{ raise_exception('no such word') }}{% endif %}"
        "{% endfor %}" + CHAT_TEMPLATE
    )
    outcome = rehearse(workbench, place / "small.yaml", "data.template=./picky.jinja")
    refused(outcome, "rows", "train.jsonl:401", "the chat template refuses it: no such word")


SUITES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], tuple[str, ...]]] = {
    "a regex that is none": ({"says": {"extract": "the (cat"}}, [], ("task says extract", "is no regex")),
    "an extraction that finds nothing": (
        {"says": {"extract": "#### ([0-9]+)"}}, [], ("extract finds nothing in the expected answer 'the cat'",)),
    "options in no column": ({"chooses": {"options": "options"}}, [], ("its options (options) are no list of texts",)),
    "an answer with no room": (
        {"says": {"max_new_tokens": 600}}, [], ("no prompt leaves room for its answer in the base's 512 tokens",)),
    "an lm-eval task that is not there": (
        {}, [{"name": "lm_eval", "id": "harness", "task": "no_such_task"}], ("has no task 'no_such_task'",)),
    "an lm-eval file that is not there": (
        {}, [{"name": "lm_eval", "id": "harness", "task": "./none.yaml"}], ("there is no task file",)),
}  # fmt: skip


@pytest.mark.parametrize("label", SUITES)
def test_a_suite_that_cannot_be_scored(workbench: Workbench, place: Path, label: str) -> None:
    changes, more, words = SUITES[label]
    write_suite(place, *more, **changes)
    refused(rehearse(workbench, place / "small.yaml"), "items", *words)


def test_items_that_stand_in_the_rows(workbench: Workbench, place: Path) -> None:
    rows_with(place, {"prompt": "What lies on  the mat number 3?", "completion": "the dog"})
    refused(rehearse(workbench, place / "small.yaml"), "rows", "train.jsonl:401", "same prompt as item")


def test_layers_that_do_not_exist(workbench: Workbench, place: Path) -> None:
    outcome = rehearse(workbench, place / "small.yaml", "method.targets=[q_proj, k_prj]")
    refused(outcome, "method", "'k_prj' matches no linear layer", "did you mean 'k_proj'")


def test_blocks_that_do_not_divide_the_real_width(workbench: Workbench, tmp_path: Path, small_tokenizer: Any) -> None:
    """48 divides the twin's widths (32 at most) after shrinking, and not the real 80 of this base."""
    base = odd_base(tmp_path / "odd", small_tokenizer)
    recipe = write_recipe(tmp_path, base, questions())
    outcome = rehearse(workbench, recipe, "method={name: oft, block_size: 32, targets: [q_proj]}")
    refused(outcome, "method", "32 does not divide the input width 80 of model.layers.0.self_attn.q_proj")


def odd_base(directory: Path, tokenizer: Any) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=80, intermediate_size=96, num_hidden_layers=3, num_attention_heads=5,
        num_key_value_heads=5, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _cut_short(base: Path) -> None:
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _other_header(base: Path) -> None:
    weights = base / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[9:40] = b"x" * 31
    weights.write_bytes(bytes(content))


def _one_layer_more(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    more = {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (base / "config.json").write_text(json.dumps(config | more))


def _other_width(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"intermediate_size": 100}))


def _pickled(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut_short, "its weights are damaged"),
        (_other_header, "its weights are damaged"),
        (_one_layer_more, "weights are missing"),
        (_other_width, "are of other sizes than config.json says"),
        (_pickled, "its weights are a pickle"),
    ],
)
def test_weights_that_are_damaged(
    workbench: Workbench, place: Path, small_base: Path, damage: Callable[[Path], None], words: str
) -> None:
    shutil.copytree(small_base, place / "base")
    damage(place / "base")
    refused(rehearse(workbench, place / "small.yaml", f"base={place / 'base'}"), "base", words)


def test_a_tokenizer_without_the_token_that_ends_an_answer(workbench: Workbench, place: Path, small_base: Path) -> None:
    shutil.copytree(small_base, place / "base")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = place / "base" / name
        if path.exists():
            values = json.loads(path.read_text())
            values.pop("eos_token", None)
            path.write_text(json.dumps(values))
    outcome = rehearse(workbench, place / "small.yaml", f"base={place / 'base'}", "data.template=plain")
    refused(outcome, "rows", "no EOS token to end a plain answer with")


def test_an_adapter_to_start_from_that_is_of_another_base(
    workbench: Workbench, place: Path, small_tokenizer: Any
) -> None:
    started = train(workbench, place / "small.yaml", place / "runs", "evaluation.suite=", "training.steps=1")
    other = odd_base(place / "odd", small_tokenizer)
    settings = [f"base={other}", f"method.init_from={started.path}", "evaluation.suite="]
    outcome = rehearse(workbench, place / "small.yaml", *settings)
    refused(outcome, "method", "does not fit this base")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_too_small_for_the_real_checkpoints(place: Path, small_disk: Path, workbench: Workbench) -> None:
    settings = ("method=full", "training.checkpoint_every=2")
    outcome = rehearse(workbench, place / "small.yaml", *settings, runs=str(small_disk / "runs"))
    refused(outcome, "disk", "free, the run needs", "3 checkpoints of")
    assert list(small_disk.iterdir()) == []


@pytest.mark.slow
def test_a_rate_that_makes_the_loss_infinite(workbench: Workbench, place: Path) -> None:
    settings = ("training.learning_rate=1e38", "training.max_grad_norm=0", "training.warmup_fraction=0")
    outcome = rehearse(workbench, place / "small.yaml", *settings, "evaluation.base=false")
    assert outcome.status == 2, outcome.output
    said = " ".join(outcome.output.split())
    assert "lower training.learning_rate" in said and "Traceback" not in said, outcome.output


def test_all_that_can_be_found_is_found_at_once(workbench: Workbench, place: Path, small_base: Path) -> None:
    shutil.copytree(small_base, place / "base")
    _cut_short(place / "base")
    rows_with(place, {"prompt": "", "completion": "ran"})
    write_suite(place, chooses={"options": "options"})
    (place / "occupied").write_text("a file")
    outcome = rehearse(workbench, place / "small.yaml", f"base={place / 'base'}", runs="occupied")
    for stage in ("runs folder", "base", "items", "rows"):
        refused(outcome, stage)
    assert "failed in runs folder, base, items, rows" in outcome.output


def test_what_cannot_be_fetched_is_said_all_at_once(workbench: Workbench) -> None:
    settings = ("base=Qwen/Qwen3-1.7B", "data=tinystories", "objective=pretrain", "evaluation.suite=")
    outcome = rehearse(workbench, "recipes/qwen-lora.yaml", *settings)
    assert outcome.status == 2
    assert "hf download Qwen/Qwen3-1.7B" in outcome.output
    assert "hf download roneneldan/TinyStories --repo-type dataset" in outcome.output


def test_the_cache_keeps_the_rows_for_the_real_run(workbench: Workbench, place: Path) -> None:
    def entries() -> set[str]:
        return {path.name for path in (Path(os.environ["WORKBENCH_CACHE"]) / "rows").iterdir()}

    write_suite(place, says={"max_new_tokens": 600})
    rehearse(workbench, place / "small.yaml", "evaluation.suite=", "method.targets=[none_such]")
    before = entries()
    train(workbench, place / "small.yaml", place / "runs", "evaluation.suite=", "training.steps=1")
    assert entries() == before


# --- the twin --------------------------------------------------------------------------------------------------------


def _parameter_kinds(model: Any) -> set[str]:
    """Names of parameters without the numbers of layers."""
    return {".".join(part for part in name.split(".") if not part.isdigit()) for name, _ in model.named_parameters()}


CONFIGS = ("deepseek_v3", "ernie-4.5-21b-a3b", "glm45", "llama-3.1-8b", "minimax-m2", "qwen3-30B-A3B", "qwen3-8B",
           "qwen3-next-80B-A3B", "qwen3.5-35B-A3B")  # fmt: skip


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore")  # a model library's remarks about kernels that are not installed
@pytest.mark.parametrize("name", CONFIGS)
def test_a_twin_has_every_kind_of_layer_of_the_real_base(shared: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "real").mkdir()
    shutil.copy(shared / "configs" / f"{name}_config.json", tmp_path / "real" / "config.json")
    loading = Loading(tmp_path / "real")
    twins.make(loading, tmp_path / "twin")
    with torch.device("meta"):
        real = transformers.AutoModelForCausalLM.from_config(bases.load_config(loading))
    twin = bases.load_model(Loading(tmp_path / "twin"))
    assert type(twin) is type(real)
    assert _parameter_kinds(twin) == _parameter_kinds(real)
    assert twin.config.get_text_config().vocab_size == real.config.get_text_config().vocab_size
    assert sum(weight.numel() for weight in twin.parameters()) < 40_000_000
    assert bool(twin(input_ids=torch.arange(24)[None], use_cache=False).logits.isfinite().all())
