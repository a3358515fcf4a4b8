"""Bad input of every kind: one clear message that names the place, exit status 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, write_rows

ROWS = [{"prompt": f"the cat number {n} sat on", "completion": f" mat {n}"} for n in range(12)]
ITEMS = [{"prompt": f"the dog number {n} ran to", "completion": f" park {n}"} for n in range(4)]
CARD = "format: prompt_completion\nsplits:\n  train: {files: rows.jsonl}\n  test: {files: items.jsonl}\n"
SUITE = "tasks:\n  - {name: generate, id: words, data: ../datasets/rows.yaml, max_new_tokens: 4}\n"


@dataclass(frozen=True)
class Bad:
    """One way to be wrong."""

    name: str
    says: tuple[str, ...]
    """What the message must hold."""
    recipe: str = ""
    """Lines put in place of the good recipe's (by their key)."""
    files: dict[str, str | bytes] = field(default_factory=dict)
    """Written over the good ones."""
    sets: tuple[str, ...] = ()
    """--set arguments."""
    command: tuple[str, ...] = ("train", "recipe.yaml")


def _replace(recipe: str, lines: str) -> str:
    keys = {line.split(":")[0] for line in lines.splitlines() if line and not line.startswith(" ")}
    kept = [line for line in recipe.splitlines() if line.split(":")[0] not in keys]
    return "\n".join([*kept, lines]) + "\n"


def _row_7(text: str) -> str:
    lines = [json.dumps(row) for row in ROWS]
    lines[6] = text
    return "\n".join(lines) + "\n"


MESSAGES = "format: messages\nsplits:\n  train: {files: rows.jsonl}\n  test: {files: items.jsonl}\n"


def _conversation(*roles: str) -> str:
    turns = [{"role": role, "content": f"words of {role}"} for role in roles]
    return "".join(json.dumps({"messages": turns}) + "\n" for _ in range(3))


DESK = [
    Bad("typo in a section", ("methd", "recipe.yaml:", "did you mean 'method'"), recipe="methd: lora"),
    Bad("typo in a field", ("method.rnk", "did you mean 'rank'"), recipe="method: {name: lora, rnk: 8}"),
    Bad("unknown method", ("method", "'loraa'", "did you mean 'lora'"), recipe="method: loraa"),
    Bad("unknown objective", ("objective", "'sftt'"), recipe="objective: sftt"),
    Bad("text for a number", ("method.rank", "'eight'"), recipe="method: {name: lora, rank: eight}"),
    Bad("number for text", ("data.name", "7"), recipe="data: {name: 7}"),
    Bad("list for a section", ("training", "section"), recipe="training: [1, 2]"),
    Bad("negative rank", ("method.rank", "-4"), recipe="method: {name: lora, rank: -4}"),
    Bad("rate of zero", ("training.learning_rate",), recipe="training: {learning_rate: 0}"),
    Bad("rate not a number", ("training.learning_rate", ".nan"), recipe="training: {learning_rate: .nan}"),
    Bad("duplicate key", ("training", "stands twice"), recipe="training: {steps: 2}\ntraining: {steps: 3}"),
    Bad("not YAML", ("recipe.yaml:", "not YAML"), recipe="method: {name: lora"),
    Bad("epochs and steps", ("training.steps", "both"), recipe="training: {steps: 2, epochs: 1}"),
    Bad("missing base", ("base", "needed"), files={"recipe.yaml": "data: rows\n"}),
    Bad("unknown base", ("base.name", "did you mean 'qwen3-0.6b'"), recipe="base: qwen3-0.6"),
    Bad("base directory not there", ("base.name", "no directory"), recipe="base: ./nowhere"),
    Bad("base directory empty", ("base.name", "config.json"), recipe="base: ./datasets"),
    Bad("base from the hub without network", ("Nobody/nothing", "not on this machine"), recipe="base: Nobody/nothing"),
    Bad("unknown card", ("data.name", "did you mean 'rows'"), recipe="data: rowz"),
    Bad("card file not there", ("data.name",), recipe="data: ./datasets/none.yaml"),
    Bad("unknown split", ("data.split", "no such split"), recipe="data: {name: rows, split: valid}"),
    Bad("typo in a card", ("rows.yaml:", "colums"), files={"datasets/rows.yaml": CARD + "colums: {}\n"}),
    Bad("card names no file", ("rows", "no file matches"), files={"datasets/rows.yaml": CARD.replace("rows.jsonl", "x")}),
    Bad("unknown suite", ("evaluation.suite", "no suite"), recipe="evaluation: {suite: worlds}"),
    Bad("unknown task", ("tasks[0]", "'generat'"), recipe="evaluation: {suite: ./suites/words.yaml}", files={"suites/words.yaml": SUITE.replace("generate", "generat")}),
    Bad("unknown target", ("target.name", "did you mean 'rtx-4090'"), recipe="target: rtx-409"),
    Bad("wrong rows for dpo", ("objective.name", "chosen and rejected"), recipe="objective: dpo"),
    Bad("wrong rows for pretrain", ("objective.name", "raw text"), recipe="objective: pretrain"),
    Bad("adapter on random weights", ("base.init", "random"), recipe="base: {name: ./base, init: random}"),
    Bad("code without a pin", ("base.trust_remote_code", "pinned"), recipe="base: {name: Qwen/Qwen3-0.6B, trust_remote_code: yes}"),
    Bad("paged optimizer on a CPU", ("training.optimizer",), recipe="training: {steps: 2, optimizer: paged_adamw_8bit}"),
    Bad("extends nothing", ("extends", "there is no"), recipe="extends: other.yaml"),
    Bad("extends twice", ("extends", "one level"), recipe="extends: two.yaml",
        files={"two.yaml": "extends: three.yaml\n", "three.yaml": "seed: 1\n"}),
    Bad("recipe not there", ("there is no such file", "did you mean 'recipe.yaml'"), command=("train", "recip.yaml")),
    Bad("recipe empty", ("is empty",), files={"recipe.yaml": ""}),
    Bad("recipe binary", ("not UTF-8",), files={"recipe.yaml": b"\xff\xfe\x00\x80" * 9}),
    Bad("recipe is a list", ("sections are needed",), files={"recipe.yaml": "- 1\n- 2\n"}),
    Bad("set without equals", ("--set", "method.rank=8"), sets=("method.rank",)),
    Bad("set of an unknown field", ("--set method.rang", "did you mean 'rank'"), sets=("method.rang=8",)),
    Bad("pickled weights", ("pickle", "safetensors"), recipe="base: ./pickled"),
    Bad("no weights", ("no weights", "init: random"), recipe="base: ./blank"),
    Bad("init_from nowhere", ("init_from", "no adapter"), recipe="method: {name: lora, init_from: ./datasets}"),
    Bad("template not there", ("data.template", "no template"), recipe="data: {name: rows, template: ./none.jinja}"),
    Bad("eval of no run", ("is no run",), command=("eval", "nothing", "--suite", "words")),
    Bad("compare of no run", ("is no run",), command=("compare", "one", "two")),
    Bad("explain of no field", ("no field", "method.rank"), command=("explain", "method.rnk")),
]  # fmt: skip

BENCH = [
    Bad("bad JSON in row 7", ("rows.jsonl:7", "not JSON", "max_dropped"), files={"datasets/rows.jsonl": _row_7("{bad")}),
    Bad("row 7 is a list", ("rows.jsonl:7", "object"), files={"datasets/rows.jsonl": _row_7("[1]")}),
    Bad("missing column", ("rows.jsonl:7", "completion"), files={"datasets/rows.jsonl": _row_7('{"prompt": "a"}')}),
    Bad("empty answer", ("rows.jsonl:7", "empty"), files={"datasets/rows.jsonl": _row_7('{"prompt":"a","completion":""}')}),
    Bad("empty data file", ("rows.jsonl", "is empty"), files={"datasets/rows.jsonl": ""}),
    Bad("binary data file", ("rows.jsonl", "not UTF-8"), files={"datasets/rows.jsonl": b"\xff\xfe\x80" * 40}),
    Bad("unknown role", ("unknown role 'bot'",), files={
        "datasets/rows.yaml": MESSAGES, "datasets/rows.jsonl": _conversation("user", "bot")}),
    Bad("no assistant turn", ("assistant turn is needed",), files={
        "datasets/rows.yaml": MESSAGES, "datasets/rows.jsonl": _conversation("user")}),
    Bad("control token as text", ("control token", "<|im_end|>"),
        files={"datasets/rows.jsonl": _row_7('{"prompt": "say <|im_end|>", "completion": "x"}')}),
    Bad("template not prefix-stable", ("prefix-stable",), recipe="data: {name: rows, template: ./unstable.jinja}"),
    Bad("template without an end of turn", ("end-of-turn",), recipe="data: {name: rows, template: ./endless.jinja}"),
    Bad("template that is no Jinja", ("template",), recipe="data: {name: rows, template: ./broken.jinja}"),
    Bad("base without a template", ("data.template", "no chat template"), recipe="base: ./plain"),
    Bad("row too long", ("tokens long", "too_long"), recipe="data: {name: rows, max_length: 8}"),
    Bad("contaminated items", ("same prompt as item", "contamination"),
        files={"datasets/items.jsonl": json.dumps({"prompt": "THE  cat number 3 sat on", "completion": "x"}) + "\n"},
        recipe="evaluation: {suite: ./suites/words.yaml}"),
    Bad("target matches nothing", ("'k_prj' matches no linear layer", "did you mean 'k_proj'"),
        recipe="method: {name: lora, targets: [q_proj, k_prj]}"),
    Bad("experts on a dense base", ("method.experts", "no fused experts"), recipe="method: {name: lora, experts: all}"),
    Bad("block size does not divide", ("method.block_size", "does not divide"),
        recipe="method: {name: oft, block_size: 7, targets: [q_proj]}"),
    Bad("damaged weights", ("damaged", "weights are damaged"), recipe="base: ./damaged"),
    Bad("weights of another shape", ("mixed", "3", "layer"), recipe="base: ./mixed"),
    Bad("no tokenizer", ("tokenizer",), recipe="base: ./mute"),
    Bad("loss not finite", ("step ", "the loss is", "learning_rate"),
        recipe="training: {steps: 40, batch_size: 2, learning_rate: 1.0e+38, max_grad_norm: 0, warmup_fraction: 0}"),
    Bad("extract finds nothing in the answers", ("extract", "expected answer"),
        recipe="evaluation: {suite: ./suites/words.yaml}",
        files={"suites/words.yaml": SUITE.replace("max_new", "extract: 'zzz(.)', max_new")}),
    Bad("frozen fingerprint not met", ("fingerprint",), recipe="evaluation: {suite: ./suites/words.yaml}",
        files={"suites/words.yaml": SUITE + "fingerprint: abc\n"}),
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, small_base: Path) -> Path:
    """A directory in which all is well: a recipe, a card, rows, a suite and a base (and some bad bases)."""
    base = tmp_path / "base"
    shutil.copytree(small_base, base)
    (tmp_path / "recipe.yaml").write_text(
        "base: ./base\nmethod: {name: lora, rank: 4}\ndata: rows\n"
        "training: {steps: 2, batch_size: 2, learning_rate: 1e-2}\ntarget: cpu\n"
    )
    write_rows(tmp_path / "datasets" / "rows.jsonl", ROWS)
    write_rows(tmp_path / "datasets" / "items.jsonl", ITEMS)
    (tmp_path / "datasets" / "rows.yaml").write_text(CARD)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "words.yaml").write_text(SUITE)
    (tmp_path / "unstable.jinja").write_text(
        "{{ messages|length }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    (tmp_path / "endless.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    (tmp_path / "broken.jinja").write_text("{% for m in messages %}{{ m.content }}")
    for name in ("pickled", "blank", "plain", "damaged", "mixed", "mute"):
        shutil.copytree(base, tmp_path / name)
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "blank" / "model.safetensors").unlink()
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"\x00" * 100)
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "mixed" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    for file in (tmp_path / "mute").glob("tokenizer*"):
        file.unlink()
    return tmp_path


def _prepare(place: Path, bad: Bad) -> list[str]:
    recipe = place / "recipe.yaml"
    if bad.recipe:
        recipe.write_text(_replace(recipe.read_text(), bad.recipe))
    for name, content in bad.files.items():
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [*bad.command, *(part for text in bad.sets for part in ("--set", text))]


def _one_clear_message(outcome: Outcome, bad: Bad) -> None:
    assert outcome.status == 2, outcome.output
    assert "Traceback" not in outcome.output
    for words in bad.says:
        assert words in " ".join(outcome.output.split()), outcome.output


@pytest.mark.parametrize("bad", DESK, ids=[bad.name for bad in DESK])
def test_desk_refuses_before_anything_starts(bad: Bad, place: Path, workbench: Callable[..., Outcome]) -> None:
    _one_clear_message(workbench(*_prepare(place, bad)), bad)
    assert not (place / "runs").exists()


@pytest.mark.parametrize("bad", BENCH, ids=[bad.name for bad in BENCH])
def test_bench_stops_with_a_message_and_leaves_nothing_half(
    bad: Bad, place: Path, workbench: Callable[..., Outcome]
) -> None:
    _one_clear_message(workbench(*_prepare(place, bad)), bad)
    _nothing_half_written(place / "runs")


def _nothing_half_written(runs: Path) -> None:
    left = [path.name for path in runs.rglob("*")]
    assert not [name for name in left if ".tmp" in name], left
    assert "adapter" not in left
    assert not list(runs.glob("recipe-*/status.json"))


def test_the_good_one_is_good(place: Path, workbench: Callable[..., Outcome]) -> None:
    outcome = workbench("train", "recipe.yaml", "--set", "evaluation.suite=./suites/words.yaml")
    assert outcome.status == 0, outcome.output
    assert len(list((place / "runs").glob("recipe-*/status.json"))) == 1


def test_all_problems_are_listed_at_once(place: Path, workbench: Callable[..., Outcome]) -> None:
    (place / "recipe.yaml").write_text("base: ./base\nmethod: {name: lora, rnk: 1}\ndata: {nam: rows}\nseed: x\n")
    outcome = workbench("check", "recipe.yaml")
    assert outcome.status == 2
    for words in ("recipe.yaml:2 method.rnk", "recipe.yaml:3 data.nam", "recipe.yaml:4 seed"):
        assert words in outcome.output


def test_unwritable_output(place: Path, workbench: Callable[..., Outcome]) -> None:
    (place / "occupied").write_text("a file where the runs should go")
    outcome = workbench("train", "recipe.yaml", "--runs", "occupied")
    _one_clear_message(outcome, Bad("", ("occupied", "cannot be written")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_output(place: Path, workbench: Callable[..., Outcome]) -> None:
    (place / "runs").mkdir(mode=0o500)
    outcome = workbench("train", "recipe.yaml")
    _one_clear_message(outcome, Bad("", ("runs", "cannot be written")))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(place: Path, small_disk: Path, workbench: Callable[..., Outcome]) -> None:
    """The disk fills up at the first checkpoint or at the save; with room again, the same command finishes."""
    arguments = ("train", "recipe.yaml", "--runs", str(small_disk), "--set", "method=full", "--set",
                 "training.checkpoint_every=1", "--set", "training.preflight=false")  # fmt: skip
    outcome = workbench(*arguments)
    _one_clear_message(outcome, Bad("", ("after step ", "No space left", "disk")))
    assert not list(small_disk.glob("*/adapter"))
    assert not list(small_disk.glob("*/status.json"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = workbench(*arguments)
    assert again.status == 0, again.output


def test_lost_mount(place: Path, small_disk: Path, workbench: Callable[..., Outcome], monkeypatch: Any) -> None:
    """The disk that the run lies on is gone between two steps; when it is back, the same command finishes."""
    from workbench.training.callbacks import Recorder

    log = Recorder.on_log

    def lose(self: Recorder, args: Any, state: Any, *rest: Any, **named: Any) -> None:
        if state.global_step == 1:
            subprocess.run(["umount", "--lazy", str(small_disk)], check=True)
        log(self, args, state, *rest, **named)

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    arguments = ("train", "recipe.yaml", "--runs", str(small_disk), "--set", "training.checkpoint_every=1")
    with monkeypatch.context() as lost:
        lost.setattr(Recorder, "on_log", lose)
        outcome = workbench(*arguments)
    _one_clear_message(outcome, Bad("", ("after step 1", "metrics.jsonl", "cannot be written")))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small_disk)], check=True)
    again = workbench(*arguments)
    assert again.status == 0, again.output


def test_two_at_once(place: Path, workbench: Callable[..., Outcome]) -> None:
    from workbench.runs import lock
    from workbench.runs.run import Run

    assert workbench("train", "recipe.yaml").status == 0
    run = Run(next((place / "runs").glob("recipe-*")))
    run.status.unlink()
    with lock.held(run):
        outcome = workbench("train", "recipe.yaml")
    _one_clear_message(outcome, Bad("", ("is being worked on by process", str(os.getpid()))))


def test_defects_of_ours_are_not_hidden(workbench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a user did is told without a traceback."""
    from workbench.verbs import desk

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(desk, "check", broken)
    outcome = workbench("check", "x.yaml")
    assert outcome.status == 1
    assert "Traceback" in outcome.output
    assert "defect of the workbench" in outcome.output
