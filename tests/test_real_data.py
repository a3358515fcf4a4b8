"""Real data on a real base: pretraining text, intents and grade-school problems go from a recipe to results.

The claims are the field's plainest: tuning beats the base on held-out items by an interval that excludes zero, and the
same rows from random weights are worse.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, write_rows

from workbench import files
from workbench.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.shared_data]

INTENTS = 12


VARIED = "method,base.init,training.learning_rate"


def verdict(workbench: Callable[..., Outcome], *names: str) -> dict[str, Any]:
    """What `workbench compare` says of some runs, the first being the reference."""
    compared = workbench("compare", *names, "--vary", VARIED, "--out", "verdict")
    assert compared.status == 0, compared.output
    return dict(files.read_json(Path("verdict") / "verdict.json"))


def arms(
    workbench: Callable[..., Outcome], recipe: Path, scratch_rate: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Train the recipe, and from scratch on the same rows: the verdict against the base, and its arms by name."""
    tuned = workbench("train", str(recipe))
    assert tuned.status == 0, tuned.output
    settings = ["name=scratch", "base.init=random", "method=full", f"training.learning_rate={scratch_rate}"]
    scratch = workbench("train", str(recipe), *(part for setting in settings for part in ("--set", setting)))
    assert scratch.status == 0, scratch.output
    found = verdict(workbench, "base", "tuned", "scratch")
    return found, {arm["name"].partition("-")[0]: arm for arm in found["arms"]}


def against_the_base(found: dict[str, Any], task: str) -> dict[str, Any]:
    """The contrast of the tuned run with the base on a task."""
    return next(one for one in found["contrasts"] if one["task"] == task and one["arm"] == "tuned")


def recipe(place: Path, stories: Path, text: str) -> Path:
    path = place / "tuned.yaml"
    path.write_text(f"base: {stories}\nmethod: {{name: lora, rank: 8}}\ntarget: cpu\n{text}")
    return path


def test_tinyshakespeare(workbench: Callable[..., Outcome], tmp_path: Path, shared: Path, stories: Path) -> None:
    (tmp_path / "datasets").mkdir()
    text = shared / "corpora" / "tinyshakespeare.txt"
    (tmp_path / "datasets" / "plays.yaml").write_text(
        f"format: text\ndocument_bytes: 4000\nsplits:\n  train: {{files: {text}, share: [0, 0.9]}}\n"
        f"  test: {{files: {text}, share: [0.9, 1]}}\n"
    )
    (tmp_path / "plays-suite.yaml").write_text("tasks: [{name: heldout, id: plays, data: plays, max_items: 25}]\n")
    made = recipe(
        tmp_path,
        stories,
        "objective: pretrain\ndata: plays\nevaluation: {suite: ./plays-suite.yaml}\n"
        "training: {steps: 100, batch_size: 3, learning_rate: 1e-2}\n",
    )
    found, by_name = arms(workbench, made, "3e-3")
    base, tuned, scratch = (by_name[name]["scores"]["plays"] for name in ("base", "tuned", "scratch"))
    assert against_the_base(found, "plays")["high"] < 0, "held-out bits per byte beat the base's"
    assert scratch["low"] > tuned["high"], "from scratch on the same rows is worse"
    assert 4.2 < base["value"] < 4.6, "what shared/data says of this base"


def test_banking77(workbench: Callable[..., Outcome], tmp_path: Path, shared: Path, stories: Path) -> None:
    task = shared / "tasks" / "banking77"
    names = sorted(json.loads((task / "categories.json").read_text()))[:INTENTS]
    for split in ("train", "test"):
        with (task / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
            rows = [{"text": row["text"].strip(), "intent": row["category"].replace("_", " ")}
                    for row in csv.DictReader(stream) if row["category"] in names]  # fmt: skip
        write_rows(tmp_path / "datasets" / f"{split}.jsonl", rows)
    (tmp_path / "datasets" / "banking.yaml").write_text(
        'format: prompt_completion\ncolumns: {prompt: "Message: {text}\\nIntent:", completion: " {intent}"}\n'
        "splits: {train: {files: train.jsonl}, test: {files: test.jsonl}}\nlicence: CC-BY-4.0\n"
    )
    (tmp_path / "intents-suite.yaml").write_text(
        "tasks:\n  - {name: choice, id: choice, data: banking, max_items: 60}\n"
        "  - {name: generate, id: words, data: banking, max_items: 60, max_new_tokens: 24}\n"
    )
    made = recipe(
        tmp_path,
        stories,
        "data: {name: banking, template: plain, contamination: drop}\nevaluation: {suite: ./intents-suite.yaml}\n"
        "training: {epochs: 2, batch_size: 16, learning_rate: 1e-2}\n",
    )
    trained = workbench("train", str(made))
    assert trained.status == 0, trained.output
    assert against_the_base(verdict(workbench, "base", "tuned"), "choice")["low"] > 0.3, "far better than the base"
    run = Run(next(Path("runs").glob("tuned-*")))
    words = [row for row in files.read_jsonl(run.items("intents-suite")) if row["task"] == "words"]
    assert len(words) == 60
    assert {row["state"] for row in words} <= {"ok", "truncated"}


def test_gsm8k(workbench: Callable[..., Outcome], tmp_path: Path, shared: Path, stories: Path) -> None:
    """Rows that fit into 512 tokens: the worked answers' own bits per byte (such a base solves none of them)."""
    for split, most in (("train", 800), ("test", 25)):
        with (shared / "tasks" / "gsm8k" / f"{split}.jsonl").open(encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        short = [row for row in rows if len(row["question"]) + len(row["answer"]) < 520][:most]
        write_rows(tmp_path / "datasets" / f"{split}.jsonl", short)
    (tmp_path / "datasets" / "gsm8k.yaml").write_text(
        'format: prompt_completion\ncolumns: {prompt: "{question}\\n", completion: answer}\n'
        "splits: {train: {files: train.jsonl}, test: {files: test.jsonl}}\nlicence: MIT\n"
    )
    (tmp_path / "gsm8k-suite.yaml").write_text(
        "tasks:\n  - {name: choice, id: worked, data: gsm8k, primary: answer_bits_per_byte}\n"
        "  - {name: generate, id: number, data: gsm8k, max_new_tokens: 40, extract: '####\\s*(-?[\\d.,]*\\d)'}\n"
    )
    made = recipe(
        tmp_path,
        stories,
        "data: {name: gsm8k, template: plain}\nevaluation: {suite: ./gsm8k-suite.yaml}\n"
        "training: {epochs: 1, batch_size: 16, learning_rate: 1e-2}\n",
    )
    found, by_name = arms(workbench, made, "3e-3")
    tuned, scratch = (by_name[name]["scores"]["worked"] for name in ("tuned", "scratch"))
    assert against_the_base(found, "worked")["high"] < 0, "better than the base"
    assert scratch["low"] > tuned["high"], "from scratch on the same rows is worse"


def test_qlora_learns_shakespeare_over_a_4_bit_base(
    workbench: Callable[..., Outcome], tmp_path: Path, shared: Path, stories: Path
) -> None:
    """A few hundred real lines, NF4 weights on a CPU: trained, proved and scored from the command line."""
    lines = (shared / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    for split, chosen in (("train", lines[:900]), ("test", lines[5000:5100])):
        (tmp_path / "datasets").mkdir(exist_ok=True)
        (tmp_path / "datasets" / f"{split}.txt").write_text("".join(chosen), encoding="utf-8")
    (tmp_path / "datasets" / "plays.yaml").write_text(
        "format: text\ndocument_bytes: 700\nsplits: {train: {files: train.txt}, test: {files: test.txt}}\n"
    )
    (tmp_path / "plays-suite.yaml").write_text("tasks: [{name: heldout, id: plays, data: plays}]\n")
    made = recipe(
        tmp_path,
        stories,
        "objective: pretrain\ndata: plays\nevaluation: {suite: ./plays-suite.yaml}\n"
        "training: {steps: 40, batch_size: 4, learning_rate: 1e-2}\n",
    )
    made.write_text(made.read_text().replace("{name: lora, rank: 8}", "{name: qlora, rank: 8, quantization: nf4}"))
    outcome = workbench("train", str(made))
    assert outcome.status == 0, outcome.output
    run = Run(next(Path("runs").glob("tuned-*")))
    losses = [row["loss"] for row in files.read_jsonl(run.metrics)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    proof = files.read_json(run.proof)
    assert proof["places"] == 35, "seven linear layers in each of five"
    assert proof["saved_against_memory"] <= proof["tolerance"] < proof["saved_against_base"]
    base = Run(next(Path("runs").glob("base-*")))
    assert base.resolved().recipe.method.quantization == "nf4", "compared with the base as qlora holds it"
    before, after = (files.read_json(one.results("plays-suite"))["tasks"]["plays"] for one in (base, run))
    assert after["high"] < before["low"], "held-out bits per byte are better than the base's by more than chance"
