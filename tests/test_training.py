"""The optimizer's walk: exact however a step is cut, bit for bit after a stop, and stopped where it makes no sense."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Outcome, save_base
from small_recipes import Workbench, call, losses, preferences, questions, run_of, train, write_recipe
from transformers import AutoModelForCausalLM

from workbench import files
from workbench.data.batches import StepSampler
from workbench.progress import Progress
from workbench.runs import ledger
from workbench.runs.run import Run, without_measured
from workbench.tracking.followers import Followers
from workbench.training import checkpoints
from workbench.worker import stages
from workbench.worker.setup import rows_of, set_up


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """The sft recipe of this file, with checkpoints every second step."""
    folder = tmp_path_factory.mktemp("training")
    write_recipe(folder, small_base, questions(), training={"checkpoint_every": 2})
    return folder


@pytest.fixture(scope="module")
def text_room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """Raw text of differing lengths, windows of 64 tokens at most."""
    folder = tmp_path_factory.mktemp("text")
    rows = [{"text": "the cat sat on the mat and " * (1 + at % 6) + f"ran {at} times"} for at in range(16)]
    write_recipe(folder, small_base, rows, "text", objective="pretrain", data={"name": "rows", "max_length": 64})
    return folder


@pytest.fixture(scope="module")
def pair_room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """Preference pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    write_recipe(folder, small_base, preferences(), "preference", objective="dpo", training={"checkpoint_every": 2})
    return folder


# --- however a step is cut -------------------------------------------------------------------------------------------

PADDED = [
    {"micro_batch_tokens": 64, "attention": "eager"},
    {"micro_batch_tokens": 200, "attention": "sdpa"},
    {"micro_batch_tokens": 8192, "attention": "eager", "gradient_checkpointing": True},
]
FLATTENED = [
    {"micro_batch_tokens": 64, "layout": "flattened", "attention": "sdpa"},
    {"micro_batch_tokens": 200, "layout": "flattened", "attention": "eager"},
    {"micro_batch_tokens": 8192, "layout": "flattened", "attention": "sdpa"},
]


def cut(workbench: Workbench, folder: Path, root: Path, target: dict[str, Any]) -> Run:
    """The recipe at a fixed rate without dropout, cut as `target` says."""
    settings = [f"target.{key}={str(value).lower()}" for key, value in target.items()]
    fixed = ("training.schedule=constant", "training.steps=6", "training.learning_rate=1e-3")
    return train(workbench, folder / "small.yaml", root, *fixed, *settings)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["sft", "pretrain", "dpo"])
def test_the_loss_does_not_move_however_a_step_is_cut(
    workbench: Workbench, request: pytest.FixtureRequest, tmp_path: Path, objective: str
) -> None:
    folder: Path = request.getfixturevalue({"sft": "room", "pretrain": "text_room", "dpo": "pair_room"}[objective])
    whole = cut(workbench, folder, tmp_path / "whole", {"micro_batch_tokens": 8192})
    rows = list(files.read_jsonl(whole.metrics))
    assert len(rows) == 6 and rows[-1]["loss"] < rows[0]["loss"]
    for at, target in enumerate([*PADDED, *(FLATTENED if objective != "dpo" else [])]):
        run = cut(workbench, folder, tmp_path / str(at), target)
        assert run.name == whole.name  # how a step is cut is no part of a run's identity
        for ours, theirs in zip(rows, files.read_jsonl(run.metrics), strict=True):
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4), target
            assert theirs["gradient_norm"] == pytest.approx(ours["gradient_norm"], rel=1e-3), target
            for count in ("step", "examples", "tokens", "counted_tokens", "text_bytes", "squared_lengths"):
                assert theirs[count] == ours[count], target


def step_rows(run: Run, step: int) -> list[dict[str, Any]]:
    """The tokenised rows of an optimizer step."""
    rows = rows_of(set_up(run, run.resolved(), None, Progress())).rows
    recipe = run.resolved().recipe
    sampler = StepSampler(len(rows), recipe.training.batch_size, recipe.seed)
    epoch, place = divmod(step - 1, len(sampler))
    sampler.set_epoch(epoch)
    return [rows[at] for at in list(sampler)[place]]


def step_squares(run: Run) -> list[float]:
    """The sum of squared lengths of every step: which rows it was made of."""
    totals = [row["squared_lengths"] for row in files.read_jsonl(run.metrics)]
    return [after - before for before, after in itertools.pairwise([0.0, *totals])]


@pytest.mark.parametrize("objective", ["sft", "pretrain"])
def test_the_first_loss_is_the_mean_over_counted_tokens(
    workbench: Workbench, request: pytest.FixtureRequest, tmp_path: Path, small_base: Path, objective: str
) -> None:
    folder: Path = request.getfixturevalue("room" if objective == "sft" else "text_room")
    model = AutoModelForCausalLM.from_pretrained(small_base).eval()
    run = cut(workbench, folder, tmp_path, {"micro_batch_tokens": 64})
    total, count = 0.0, 0
    for row in step_rows(run, 1):
        labels = torch.tensor([-100, *row["labels"][1:]])
        with torch.no_grad():
            logs = torch.log_softmax(model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double(), dim=-1)
        for at in range(1, len(labels)):
            if labels[at] != -100:
                total -= float(logs[at - 1, labels[at]])
                count += 1
    first = next(iter(files.read_jsonl(run.metrics)))
    assert first["loss"] == pytest.approx(total / count, rel=1e-5)
    assert first["counted_tokens"] == count
    assert first["tokens"] == sum(len(row["input_ids"]) for row in step_rows(run, 1))


def test_which_rows_make_a_step_depends_on_rows_and_seed_alone(
    workbench: Workbench, room: Path, tmp_path: Path
) -> None:
    squares = {}
    for label, settings in {
        "whole": ("target.micro_batch_tokens=8192",),
        "cut": ("target.micro_batch_tokens=64", "target.layout=flattened"),
        "method": ("method={name: ia3}",),
        "seed": ("seed=1",),
    }.items():
        run = train(workbench, room / "small.yaml", tmp_path / label, *settings)
        squares[label] = step_squares(run)
        assert squares[label] == [
            sum(len(row["input_ids"]) ** 2 for row in step_rows(run, step)) for step in range(1, 9)
        ]
    assert squares["whole"] == squares["cut"] == squares["method"] != squares["seed"]
    first, second = squares["whole"][:4], squares["whole"][4:]
    assert first != second and sum(first) == sum(second)  # each epoch has its own order of the same rows


# --- stopped and continued -------------------------------------------------------------------------------------------


class Stopping(Followers):
    """Presses Ctrl-C twice when a step has been recorded: stop at once, keep nothing more."""

    def __init__(self, step: int, run: Run, *more: Any) -> None:
        super().__init__(run, *more)
        self.step, self.run = step, run

    def look(self) -> None:
        if ledger.last_step(self.run) == self.step:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


Stop = Callable[..., Outcome]


@pytest.fixture
def stopped_after(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Train a recipe until Ctrl-C comes in a step."""

    def stop(step: int, recipe: Path, root: Path, *settings: str) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setattr(stages, "Followers", functools.partial(Stopping, step))
            return call(workbench, recipe, root, *settings)

    return stop


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file of a result."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_equal_runs(one: Run, other: Run) -> None:
    """The same result byte for byte, and the same records apart from what is measured."""
    assert digests(one.adapter) == digests(other.adapter)
    assert digests(one.adapter)
    for path in (one.metrics, one.cost, one.training, one.proof, one.data):
        theirs = other.path / path.name
        read = files.read_jsonl if path.suffix == ".jsonl" else files.read_json
        ours = read(path) if path.suffix == ".json" else list(read(path))
        found = read(theirs) if path.suffix == ".json" else list(read(theirs))
        assert without_measured(ours) == without_measured(found), path.name


RESUMED = {
    "lora": "method={name: lora, rank: 4, dropout: 0.1}",
    "dora": "method={name: lora, rank: 4, variant: dora, dropout: 0.1}",
    "pissa": "method={name: lora, rank: 4, variant: pissa, dropout: 0.1}",
    "qlora": "method={name: qlora, rank: 4, dropout: 0.1}",
    "vera": "method={name: vera, rank: 16, dropout: 0.1}",
    "ia3": "method={name: ia3}",
    "oft": "method={name: oft, block_size: 16}",
    "full": "method=full",
}


@pytest.mark.parametrize("label", RESUMED)
def test_a_stopped_run_continues_bit_for_bit(
    workbench: Workbench, stopped_after: Stop, room: Path, tmp_path: Path, label: str
) -> None:
    whole = train(workbench, room / "small.yaml", room / "whole-runs", RESUMED[label])
    stopped = stopped_after(6, room / "small.yaml", tmp_path / "stopped", RESUMED[label])
    assert stopped.status == 130 and "the same command continues it" in stopped.output
    run = run_of(stopped, tmp_path / "stopped")
    assert len(losses(run)) == 6 and not run.adapter.exists() and not run.is_finished()
    again = call(workbench, room / "small.yaml", tmp_path / "stopped", RESUMED[label])
    assert again.status == 0 and "going on from step 4" in again.output, again.output
    assert run.is_finished()
    assert_equal_runs(whole, run)
    assert not run.pissa_start.exists()


def test_a_run_stopped_inside_a_later_epoch_continues_bit_for_bit(
    workbench: Workbench, stopped_after: Stop, room: Path, tmp_path: Path
) -> None:
    whole = train(workbench, room / "small.yaml", room / "whole-runs", RESUMED["lora"])
    run = run_of(stopped_after(7, room / "small.yaml", tmp_path, RESUMED["lora"]), tmp_path)
    again = call(workbench, room / "small.yaml", tmp_path, RESUMED["lora"])
    assert "going on from step 6" in again.output  # four steps make an epoch
    assert_equal_runs(whole, run)


def test_dpo_continues_bit_for_bit(workbench: Workbench, stopped_after: Stop, pair_room: Path, tmp_path: Path) -> None:
    recipe = pair_room / "small.yaml"
    whole = train(workbench, recipe, tmp_path / "whole", "method.dropout=0.1")
    run = run_of(stopped_after(5, recipe, tmp_path / "stopped", "method.dropout=0.1"), tmp_path / "stopped")
    again = call(workbench, recipe, tmp_path / "stopped", "method.dropout=0.1")
    assert "going on from step 4" in again.output
    assert_equal_runs(whole, run)


def test_a_run_stopped_before_its_first_checkpoint_starts_again(
    workbench: Workbench, stopped_after: Stop, room: Path, tmp_path: Path
) -> None:
    whole = train(workbench, room / "small.yaml", room / "whole-runs")
    run = run_of(stopped_after(1, room / "small.yaml", tmp_path / "stopped"), tmp_path / "stopped")
    again = call(workbench, room / "small.yaml", tmp_path / "stopped")
    assert again.status == 0 and "going on" not in again.output
    assert_equal_runs(whole, run)


def test_a_run_stopped_twice_continues_bit_for_bit(
    workbench: Workbench, stopped_after: Stop, room: Path, tmp_path: Path
) -> None:
    whole = train(workbench, room / "small.yaml", room / "whole-runs", RESUMED["lora"])
    stopped_after(3, room / "small.yaml", tmp_path / "stopped", RESUMED["lora"])
    run = run_of(stopped_after(7, room / "small.yaml", tmp_path / "stopped", RESUMED["lora"]), tmp_path / "stopped")
    train(workbench, room / "small.yaml", tmp_path / "stopped", RESUMED["lora"])
    assert_equal_runs(whole, run)


@pytest.mark.parametrize("label", ["lora", "pissa", "full"])
def test_a_run_stopped_between_its_last_step_and_saving_walks_no_further(
    workbench: Workbench, room: Path, tmp_path: Path, label: str
) -> None:
    whole = train(workbench, room / "small.yaml", room / "whole-runs", RESUMED[label])
    run = Run(tmp_path / "stopped" / whole.name)
    shutil.copytree(whole.path, run.path)
    for path in (run.status, run.proof, run.cost, run.training, run.probe):
        path.unlink()
    shutil.rmtree(run.adapter)
    again = call(workbench, room / "small.yaml", tmp_path / "stopped", RESUMED[label])
    assert again.status == 0 and "going on from step 8" in again.output, again.output
    assert_equal_runs(whole, run)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def flip_a_byte(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "unsealed": (lambda folder: (folder / "sealed.json").unlink(), "it was not finished"),
    "torn seal": (lambda folder: (folder / "sealed.json").write_text("{"), "its seal is damaged"),
    "empty seal": (lambda folder: (folder / "sealed.json").write_text("null"), "its seal is damaged"),
    "other seal": (lambda folder: (folder / "sealed.json").write_text('{"files": []}'), "its seal is damaged"),
    "one bit": (flip_a_byte, "adapter_model.safetensors is damaged"),
    "missing file": (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is damaged"),
}


@pytest.mark.parametrize("damage", ["unsealed", "one bit"])
def test_a_checkpoint_that_is_not_whole_is_left_out_for_the_one_before(
    workbench: Workbench, stopped_after: Stop, room: Path, tmp_path: Path, damage: str
) -> None:
    whole = train(workbench, room / "small.yaml", room / "whole-runs")
    run = run_of(stopped_after(7, room / "small.yaml", tmp_path), tmp_path)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    spoil, reason = DAMAGES[damage]
    spoil(run.checkpoints / "checkpoint-6")
    again = call(workbench, room / "small.yaml", tmp_path)
    assert again.status == 0, again.output
    assert f"checkpoint-6 is left out: {reason}" in again.output
    assert "going on from step 4" in again.output
    assert_equal_runs(whole, run)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_seal_covers_every_file(tmp_path: Path, damage: str) -> None:
    folders = {step: tmp_path / f"checkpoint-{step}" for step in (9, 10)}
    for step in folders:
        fresh = checkpoints.aside(tmp_path) / f"checkpoint-{step}"
        (fresh / "inner").mkdir(parents=True)
        for name in ("adapter_model.safetensors", "optimizer.pt", "inner/more.bin"):
            (fresh / name).write_text("content")
        checkpoints.finish(tmp_path, step, {})
    said: list[str] = []
    assert checkpoints.newest(tmp_path, said.append) == (folders[10], 10) and said == []
    spoil, reason = DAMAGES[damage]
    spoil(folders[10])
    assert checkpoints.newest(tmp_path, said.append) == (folders[9], 9)
    assert said == [f"checkpoint-10 is left out: {reason}"]
    (folders[9] / "inner" / "more.bin").write_text("contenu")
    assert checkpoints.newest(tmp_path, said.append) is None
    assert said[1:] == ["checkpoint-9 is left out: inner/more.bin is damaged"]


def test_the_newest_checkpoint_is_the_one_of_most_steps(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        (checkpoints.aside(tmp_path) / f"checkpoint-{step}").mkdir(parents=True)
        checkpoints.finish(tmp_path, step, {})
    found = checkpoints.newest(tmp_path, print)
    assert found is not None and found[1] == 100
    assert not (tmp_path / "checkpoint-9").exists(), "two are kept"


# --- a walk that makes no sense --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("micro_batch_tokens", "rows"), [(1, 1), (8192, 4)])
def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_rows(
    workbench: Workbench, room: Path, tmp_path: Path, micro_batch_tokens: int, rows: int
) -> None:
    wild = ("training.learning_rate=1e30", "training.max_grad_norm=0", "training.warmup_fraction=0")
    cut_as = f"target.micro_batch_tokens={micro_batch_tokens}"
    outcome = call(workbench, room / "small.yaml", tmp_path, *wild, cut_as)
    assert outcome.status == 2, outcome.output
    assert "error step 2: the loss is" in outcome.output
    assert "train.jsonl:" in outcome.output and "training.learning_rate" in outcome.output
    run = run_of(outcome, tmp_path)
    assert len(losses(run)) == 1 and not run.adapter.exists() and not run.is_finished()
    named = outcome.output.split("in the rows ")[1].splitlines()[0].split(", ")
    assert len(named) == rows


def test_router_loss_on_a_base_without_one_is_refused(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    outcome = call(workbench, room / "small.yaml", tmp_path, "training.router_loss=0.01")
    assert outcome.status == 2
    assert "training.router_loss" in outcome.output and "no load-balancing loss" in outcome.output


def test_router_loss_is_added_to_the_loss_of_a_mixture_of_experts(
    workbench: Workbench, tmp_path: Path, small_tokenizer: Any
) -> None:
    base = save_base(tmp_path / "moe", "qwen3_moe", small_tokenizer)
    recipe = write_recipe(tmp_path, base, questions(), training={"steps": 4})
    without = losses(train(workbench, recipe, tmp_path / "runs"))
    outcome = call(workbench, recipe, tmp_path / "runs", "training.router_loss=0.1")
    assert outcome.status == 0 and "target.micro_batch_tokens matters" in outcome.output
    with_loss = losses(run_of(outcome, tmp_path / "runs"))
    # Experts times the sum over them of (share of tokens) * (mean probability): two of four are taken for each token,
    # and with even shares and probabilities that is 4 * 4 * (2/4 * 1/4) = 2. This step is one micro-batch.
    assert with_loss[0] - without[0] == pytest.approx(0.1 * 2.0, rel=0.05)


# --- the learning rate and the length --------------------------------------------------------------------------------


def expected_rate(step: int, steps: int, schedule: str, warmup: int, peak: float) -> float:
    """The rate that step 1, 2, ... is taken with (the docstrings of the schema, as a formula)."""
    done = step - 1
    if done < warmup:
        return peak * done / warmup
    share = (done - warmup) / (steps - warmup)
    return peak * {"cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share, "constant": 1.0}[schedule]


@pytest.mark.parametrize("warmup_fraction", [0.0, 0.25])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_follows_its_closed_form(
    workbench: Workbench, room: Path, tmp_path: Path, schedule: str, warmup_fraction: float
) -> None:
    settings = (f"training.schedule={schedule}", f"training.warmup_fraction={warmup_fraction}")
    run = train(workbench, room / "small.yaml", tmp_path, *settings)
    warmup = math.ceil(8 * warmup_fraction)
    for row in files.read_jsonl(run.metrics):
        assert row["learning_rate"] == pytest.approx(expected_rate(row["step"], 8, schedule, warmup, 1e-2), rel=1e-6)


def test_a_run_of_one_step_moves(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    run = train(workbench, room / "small.yaml", tmp_path, "training.steps=1")
    assert [row["learning_rate"] for row in files.read_jsonl(run.metrics)] == [1e-2]


@pytest.mark.parametrize(
    ("epochs", "steps", "examples"), [(2, 6, [4, 8, 10, 14, 18, 20]), (1.5, 5, [4, 8, 10, 14, 18])]
)
def test_an_epochs_last_step_is_short_and_no_row_is_repeated(
    workbench: Workbench, small_base: Path, tmp_path: Path, epochs: float, steps: int, examples: list[int]
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(10))
    run = train(workbench, recipe, tmp_path / "runs", "training.steps=", f"training.epochs={epochs}")
    rows = list(files.read_jsonl(run.metrics))
    assert [row["examples"] for row in rows] == examples and len(rows) == steps
    account = files.read_json(run.data)
    assert (rows[2]["tokens"], rows[2]["counted_tokens"]) == (account["tokens"], account["counted_tokens"])
    if epochs == 2:
        assert rows[5]["tokens"] == 2 * account["tokens"] and rows[5]["text_bytes"] == 2 * account["counted_text_bytes"]
    cost = files.read_json(run.cost)
    assert cost["steps"] == steps and cost["examples"] == examples[-1] and cost["tokens"] == rows[-1]["tokens"]


def test_a_single_row_can_be_trained_on(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(1), training={"batch_size": 16})
    run = train(workbench, recipe, tmp_path / "runs")
    assert [row["examples"] for row in files.read_jsonl(run.metrics)] == list(range(1, 9))
