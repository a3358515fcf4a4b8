"""Several processes a run: the result of one, whatever their number; ended and continued together."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from small_recipes import Workbench, preferences, questions, train, write_recipe

from workbench import files
from workbench.runs.run import Run, without_measured

SUITE = """tasks:
  - {name: generate, id: facts, data: %(data)s/world-questions.yaml, max_items: 12, max_new_tokens: 4}
  - {name: heldout, id: biographies, data: %(data)s/world-biographies.yaml, max_items: 10}
"""
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
STEPS = 12


def command(recipe: Path, runs: Path, *settings: str) -> list[str]:
    chosen = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "workbench", "train", str(recipe), "--runs", str(runs), *chosen]


def run_of(runs: Path, name: str = "quickstart") -> Run:
    (found,) = [path for path in runs.glob(f"{name}-*") if path.is_dir()]
    return Run(found)


def finish(recipe: Path, runs: Path, *settings: str, name: str = "quickstart") -> Run:
    done = subprocess.run(command(recipe, runs, *settings), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return run_of(runs, name)


def distance(one: Run, other: Run) -> float:
    """Of two results, relative to the length of the first."""
    (name,) = [path.name for path in one.adapter.glob("*.safetensors")]
    left, right = (load_file(run.adapter / name) for run in (one, other))
    assert left.keys() == right.keys()
    flat = [torch.cat([part[key].double().flatten() for key in sorted(part)]) for part in (left, right)]
    return float((flat[0] - flat[1]).norm() / flat[0].norm())


def assert_same_walk(one: Run, other: Run) -> None:
    """The same examples, tokens and bytes after every step; losses and gradients within float noise."""
    floats = ("loss", "gradient_norm")
    walks = [[without_measured(row) for row in files.read_jsonl(run.metrics)] for run in (one, other)]
    for mine, theirs in zip(*walks, strict=True):
        assert [mine.pop(name) for name in floats] == pytest.approx([theirs.pop(name) for name in floats], rel=1e-5)
        assert mine == theirs
    assert walks[0]


def assert_same_scores(one: Run, other: Run) -> None:
    for suite in one.suites():
        rows = [list(files.read_jsonl(run.items(suite))) for run in (one, other)]
        assert [(row["task"], row["id"], row["state"]) for row in rows[0]] == [
            (row["task"], row["id"], row["state"]) for row in rows[1]
        ]
        assert [row["value"] for row in rows[0]] == pytest.approx([row["value"] for row in rows[1]], rel=1e-4)
    assert one.suites() == other.suites() != []


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The quickstart cut short."""
    suite = tmp_path_factory.mktemp("suite") / "few.yaml"
    suite.write_text(SUITE % {"data": ROOT / "datasets"})
    return (f"training.steps={STEPS}", "training.checkpoint_every=4", "target.threads=1", f"evaluation.suite={suite}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, settings: tuple[str, ...]) -> Run:
    """The run of one process."""
    return finish(QUICKSTART, tmp_path_factory.mktemp("alone"), *settings)


# --- the same result -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [("target.devices=2",), ("target.devices=4",), ("target.devices=2", "target.sharding=fsdp")], ids=" ".join
)
def test_several_processes_give_the_run_of_one(
    tmp_path: Path, settings: tuple[str, ...], alone: Run, shape: tuple[str, ...]
) -> None:
    run = finish(QUICKSTART, tmp_path, *settings, *shape)
    assert run.name == alone.name
    assert distance(alone, run) < 1e-5
    assert_same_walk(alone, run)
    assert_same_scores(alone, run)
    bases = [run_of(one.path.parent, "base") for one in (alone, run)]
    assert_same_scores(*bases)
    for name in ("data.json", "identity.json"):
        assert files.read_json(run.path / name) == files.read_json(alone.path / name)
    cost = files.read_json(run.cost)
    seconds = list(files.read_jsonl(run.metrics))[-1]["seconds"]
    assert cost["device_seconds"] == pytest.approx(cost["devices"] * seconds, rel=1e-3)
    assert cost["devices"] == int(shape[0][-1])
    assert [row["event"] for row in files.read_jsonl(run.attempts)] == ["start", "end"]


def small(folder: Path, base: Path, what: str) -> Path:
    """Recipes whose steps leave processes without a row: an epoch's last step is of one or two."""
    if what == "dpo":
        return write_recipe(
            folder, base, preferences(), "preference", objective={"name": "dpo"}, training={"batch_size": 3},
            target={"micro_batch_tokens": 128},
        )  # fmt: skip
    return write_recipe(
        folder, base, questions(), method="full", training={"batch_size": 5, "learning_rate": 1e-3},
        target={"micro_batch_tokens": 64},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "shape"),
    [
        ("dpo", ("target.devices=3",)),
        ("full", ("target.devices=2", "target.sharding=fsdp")),
    ],
    ids=str,
)
def test_every_objective_and_method_shares_its_steps(
    workbench: Workbench, small_base: Path, tmp_path: Path, what: str, shape: tuple[str, ...]
) -> None:
    """Also where a step has fewer rows than there are processes, and the shares are cut into differing numbers."""
    recipe = small(tmp_path, small_base, what)
    one = train(workbench, recipe, tmp_path / "alone")
    several = finish(recipe, tmp_path / "several", *shape, name="small")
    assert distance(one, several) < 2e-5
    assert_same_walk(one, several)
    assert (several.adapter / ("model.safetensors" if what == "full" else "adapter_model.safetensors")).exists()
    assert files.read_json(several.proof)["saved_against_memory"] < 1e-5


# --- ended and continued ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(line: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            for left in (process, *psutil.Process().children(recursive=True)):
                left.kill()


def workers(runs: Path) -> dict[int, psutil.Process]:
    """The run's processes by rank."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "workbench.worker" in line and any(word.startswith(str(runs)) for word in line):
            with contextlib.suppress(psutil.NoSuchProcess, KeyError):  # torchrun itself has no rank
                found[int(process.environ()["RANK"])] = process
    return found


def wait_for_steps(process: subprocess.Popen[str], runs: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        found = [path for path in runs.glob("quickstart-*/metrics.jsonl") if path.read_bytes().count(b"\n") >= count]
        if found:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[0])


@pytest.mark.slow
@pytest.mark.parametrize(("sharding", "rank"), [("ddp", 1)])
def test_a_killed_process_ends_the_run_and_the_same_command_finishes_it(
    tmp_path: Path, settings: tuple[str, ...], alone: Run, sharding: str, rank: int
) -> None:
    line = command(QUICKSTART, tmp_path, *settings, "target.devices=2", f"target.sharding={sharding}")
    with started(line) as process:
        wait_for_steps(process, tmp_path, 6)
        workers(tmp_path)[rank].kill()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert f"process {rank} of the run was ended by SIGKILL" in said
    assert "Traceback" not in said
    assert workers(tmp_path) == {}
    run = run_of(tmp_path)
    assert not run.adapter.exists()
    again = subprocess.run(line, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on from step 4" in again.stdout
    assert distance(alone, run) < 1e-5
    assert_same_walk(alone, run)


@pytest.mark.slow
def test_a_polite_stop_keeps_the_step_and_one_process_goes_on(
    tmp_path: Path, settings: tuple[str, ...], alone: Run
) -> None:
    """Asked is the launcher; all processes stop after the same step."""
    with started(command(QUICKSTART, tmp_path, *settings, "target.devices=2")) as process:
        wait_for_steps(process, tmp_path, 2)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said.count("the same command continues it") == 1
    run = run_of(tmp_path)
    kept = len(list(files.read_jsonl(run.metrics)))
    assert (run.checkpoints / f"checkpoint-{kept}" / "sealed.json").exists()
    again = subprocess.run(command(QUICKSTART, tmp_path, *settings), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"going on from step {kept}" in again.stdout
    assert distance(alone, run) < 1e-5
    assert_same_walk(alone, run)


@pytest.mark.slow
def test_an_error_is_told_once_with_its_own_status(small_base: Path, tmp_path: Path) -> None:
    """A loss that is not finite in one process ends all, naming the rows."""
    recipe = small(tmp_path, small_base, "full")
    done = subprocess.run(
        command(recipe, tmp_path / "runs", "target.devices=2", "training.learning_rate=1e30",
                "training.schedule=constant", "training.warmup_fraction=0"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("the loss is nan, in the rows") == 1
    assert "train.jsonl:" in done.stderr
    assert "Traceback" not in done.stderr and "another process" not in done.stderr


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_of_a_dry_run_works_by_hand(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = small(tmp_path, small_base, "full")
    said = workbench("train", str(recipe), "--runs", "runs", "--dry-run", "--set", "target.devices=2")
    assert said.status == 0
    run = run_of(tmp_path / "runs", "small")
    line = said.output.strip()
    assert shlex.split(line)[1:3] == ["-m", "torch.distributed.run"]
    assert not run.attempts.exists() and not run.lock.exists()
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, cwd="/", env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.is_finished()


@pytest.mark.slow
def test_other_processes_than_planned_are_refused(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = small(tmp_path, small_base, "full")
    workbench("train", str(recipe), "--runs", "runs", "--dry-run", "--set", "target.devices=2")
    run = run_of(tmp_path / "runs", "small")
    done = subprocess.run(
        [sys.executable, "-m", "workbench.worker", str(run.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "2 on 1 node(s) make 2 processes, and 1 were started" in done.stderr
    assert not run.manifest.exists()


def test_a_dry_run_of_one_process_names_the_worker_alone(
    workbench: Workbench, small_base: Path, tmp_path: Path
) -> None:
    recipe = small(tmp_path, small_base, "full")
    said = workbench("train", str(recipe), "--runs", "runs", "--dry-run")
    run = run_of(tmp_path / "runs", "small")
    assert shlex.split(said.output) == [sys.executable, "-m", "workbench.worker", str(run.path)]


def test_several_nodes_are_shown_what_each_runs_and_not_started(
    workbench: Workbench, small_base: Path, tmp_path: Path
) -> None:
    recipe = small(tmp_path, small_base, "full")
    shape = ("--set", "target.devices=4", "--set", "target.nodes=2", "--set", "training.batch_size=8")
    line = workbench("train", str(recipe), "--runs", "runs", "--dry-run", *shape).output
    assert "--nnodes 2 --nproc-per-node 4 --node-rank $NODE_RANK --master-addr $MASTER_ADDR" in line
    refused = workbench("train", str(recipe), "--runs", "runs", *shape)
    assert refused.status == 2 and "2 nodes" in refused.output


def _environment() -> dict[str, str]:
    """As a shell has it: where the package lies, wherever it is called from."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
