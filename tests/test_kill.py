"""kill -9 at ten moments of a quickstart run: the same command finishes it, bit for bit as if it had not been."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from workbench import files
from workbench.runs.run import Run, without_measured

STEPS = 24
SUITE = """tasks:
  - {name: generate, id: facts, data: world-questions, max_items: 40, max_new_tokens: 8}
  - {name: heldout, id: biographies, data: world-biographies, max_items: 20}
"""


def command(runs: Path, suite: Path) -> list[str]:
    settings = [
        f"training={{steps: {STEPS}, batch_size: 8, learning_rate: 2e-3, checkpoint_every: 3}}",
        "target.threads=1",
        "method.dropout=0.1",
        f"evaluation.suite={suite}",
    ]
    chosen = [part for setting in settings for part in ("--set", setting)]
    return [
        sys.executable,
        "-m",
        "workbench",
        "train",
        str(ROOT / "recipes" / "quickstart.yaml"),
        "--runs",
        str(runs),
        *chosen,
    ]


def steps(run: Run) -> int:
    return run.metrics.read_bytes().count(b"\n") if run.metrics.exists() else 0


def the_run(runs: Path) -> Run | None:
    found = [path for path in runs.glob("quickstart-*") if path.is_dir()]
    return Run(found[0]) if found else None


def moment(what: Callable[[Run], bool]) -> Callable[[Path], bool]:
    def reached(runs: Path) -> bool:
        run = the_run(runs)
        return run is not None and what(run)

    return reached


MOMENTS: list[tuple[str, Callable[[Path], bool]]] = [
    ("the run directory is there", moment(lambda run: run.path.is_dir())),
    ("the worker holds the lock", moment(lambda run: run.lock.exists())),
    ("the base is being scored", lambda runs: any(runs.glob("base-*/manifest.json"))),
    ("the rows are tokenised", moment(lambda run: run.data.exists())),
    ("the first step is logged", moment(lambda run: steps(run) >= 1)),
    ("a checkpoint is being written", moment(lambda run: any(run.checkpoints.glob("checkpoint-3*/*")))),
    ("between checkpoints", moment(lambda run: steps(run) >= 8)),
    ("past another checkpoint", moment(lambda run: steps(run) >= 16)),
    ("training ended, nothing saved", moment(lambda run: run.probe.exists())),
    ("saved, not proved", moment(lambda run: run.adapter.exists())),
    ("proved, not scored", moment(lambda run: run.proof.exists())),
]


def kill_at(runs: Path, suite: Path, reached: Callable[[Path], bool]) -> bool:
    """Start the command, kill its whole process group at a moment; False where it ended before."""
    process = subprocess.Popen(
        command(runs, suite), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if reached(runs):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    assert process.poll() == 0, "it neither reached the moment nor ended well"
    return False


def follow(start: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, with what it says in a pipe. (A shell that starts something in the
    background lets it ignore Ctrl-C, and that is inherited.)"""
    return subprocess.Popen(
        start, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    suite = tmp_path / "few.yaml"
    suite.write_text(SUITE.replace("data: world", f"data: {ROOT}/datasets/world").replace(
        "-questions,", "-questions.yaml,").replace("-biographies,", "-biographies.yaml,"))  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, suite), check=True, capture_output=True)
    kills = [name for name, reached in MOMENTS if kill_at(killed, suite, reached)]
    assert len(kills) >= 10, kills
    ended = subprocess.run(command(killed, suite), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    one, other = the_run(whole), the_run(killed)
    assert one is not None and other is not None
    assert one.name == other.name
    assert digests(one.adapter) == digests(other.adapter)
    for name in ("metrics.jsonl", "eval/few/items.jsonl"):
        rows = [[without_measured(row) for row in files.read_jsonl(run.path / name)] for run in (one, other)]
        assert rows[0] == rows[1], name
    assert len(list(files.read_jsonl(one.metrics))) == STEPS
    for name in ("proof.json", "data.json", "status.json", "cost.json", "eval/few/results.json", "identity.json"):
        values = [without_measured(files.read_json(run.path / name)) for run in (one, other)]
        assert values[0] == values[1], name
    assert not list(killed.rglob(".*tmp*"))
    again = subprocess.run(command(killed, suite), capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "finished already" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)], ids=["Ctrl-C", "SIGTERM"])
def test_a_polite_stop_keeps_every_step(tmp_path: Path, number: int, status: int) -> None:
    """The step in hand is finished and kept, between checkpoints too; the same command goes on from there."""
    suite = tmp_path / "few.yaml"
    suite.write_text(f"tasks: [{{name: heldout, id: b, data: {ROOT}/datasets/world-biographies.yaml, max_items: 2}}]")
    start = [*command(tmp_path, suite), "--set", "training.checkpoint_every=1000", "--set", "training.steps=400"]
    process = follow(start)
    reached = moment(lambda run: steps(run) >= 5)
    while process.poll() is None and not reached(tmp_path):
        time.sleep(0.01)
    os.killpg(process.pid, number)
    said, _ = process.communicate()
    assert process.returncode == status, said
    assert "the same command continues it" in said
    run = the_run(tmp_path)
    assert run is not None
    kept = steps(run)
    assert (run.checkpoints / f"checkpoint-{kept}" / "sealed.json").exists()
    again = follow(start)
    while again.poll() is None and steps(run) <= kept:
        time.sleep(0.01)
    os.killpg(again.pid, signal.SIGKILL)
    said, _ = again.communicate()
    assert f"going on from step {kept}" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
@pytest.mark.parametrize("moment_", ["as it starts", "while it imports", "while it scores"])
def test_a_stop_outside_of_training_ends_in_words(tmp_path: Path, number: signal.Signals, moment_: str) -> None:
    """To the command and its worker, as a terminal and Slurm send it."""
    suite = tmp_path / "few.yaml"
    suite.write_text(f"tasks: [{{name: heldout, id: b, data: {ROOT}/datasets/world-biographies.yaml}}]")
    process = follow([*command(tmp_path, suite), "--set", "training.steps=2"])
    assert process.stdout is not None
    while "loading the libraries" not in process.stdout.readline():
        assert process.poll() is None
    if moment_ == "while it imports":
        time.sleep(2.0)
    reached = moment(lambda run: run.proof.exists())
    while moment_ == "while it scores" and not reached(tmp_path):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 75), said
    assert "the same command continues it" in said and "Traceback" not in said, said
    run = the_run(tmp_path)
    assert run is not None and not run.is_finished()
    if run.attempts.exists():
        assert list(files.read_jsonl(run.attempts))[-1]["status"] == process.returncode
