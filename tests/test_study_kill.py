"""kill -9, Ctrl-C and a second process beside it: the same command brings a study to the verdict of an unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small_recipes import questions, write_recipe
from test_study import BASE, write_study, write_suite

from workbench import files
from workbench.runs import lock
from workbench.runs.run import Run, without_measured

STEPS, MANY_STEPS = 30, 200
LORA = {"recipe": "small.yaml", "set": {"method.dropout": 0.1}}
LONG = {"recipe": "small.yaml", "set": {"training.steps": MANY_STEPS}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A study (`weigh`), the same with more steps (`long`), and with two seeds (`both`)."""
    folder = tmp_path_factory.mktemp("killed")
    training = {"steps": STEPS, "checkpoint_every": 5, "learning_rate": 1e-3}
    write_recipe(folder, small_base, questions(), training=training)
    write_suite(folder)
    write_study(folder, "weigh.yaml", arms={"base": BASE, "lora": LORA}, seeds=[0])
    write_study(folder, "both.yaml", arms={"base": BASE, "lora": LORA}, seeds=[0, 1])
    write_study(folder, "long.yaml", arms={"lora": LONG, "base": BASE}, seeds=[0])
    return folder


def start(study: Path, root: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, beside its runs; what it and its workers say goes into `said`."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "workbench", "study", str(study), "--runs", root.name]
    with (root / "said").open("ab") as said:
        return subprocess.Popen(command, cwd=root.parent, start_new_session=True, stdout=said, stderr=said)


def said(root: Path) -> str:
    """All that was said so far."""
    return (root / "said").read_text()


def finish(study: Path, root: Path) -> Any:
    """Bring the study to its end, and return its verdict."""
    process = start(study, root)
    assert process.wait() == 0, said(root)
    assert "Traceback" not in said(root)
    return verdict(root, study.stem)


def verdict(root: Path, name: str) -> Any:
    """A study's verdict without what was measured."""
    return without_measured(files.read_json(root / "studies" / name / "verdict.json"))


def wait_for(process: subprocess.Popen[bytes], root: Path, reached: Callable[[Path], bool]) -> None:
    """Wait for a moment of a study that still runs."""
    deadline = time.monotonic() + 120
    while not reached(root):
        assert process.poll() is None, f"it ended before the moment came: {said(root)}"
        assert time.monotonic() < deadline, said(root)
        time.sleep(0.002)


def steps(root: Path, run: str) -> int:
    """How many steps a run (a pattern) has logged."""
    return sum(path.read_bytes().count(b"\n") for path in root.glob(f"{run}/metrics.jsonl"))


def has_steps(root: Path, more_than: int) -> bool:
    """The moment when a run that is trained has logged more steps than some."""
    return steps(root, "lora-*") > more_than


def there(pattern: str) -> Callable[[Path], bool]:
    """The moment when a file is there."""
    return lambda root: any(root.glob(pattern))


MOMENTS: list[tuple[str, Callable[[Path], bool]]] = [
    ("the base is being scored", there("base-*/manifest.json")),
    ("between two runs", there("base-*/status.json")),
    ("a run trains", lambda root: steps(root, "lora-*-s0") >= STEPS // 2),
    ("a run is proved and being scored", there("lora-*-s0/proof.json")),
    ("the verdict is being written", there("studies/weigh")),
]


@pytest.mark.slow
def test_a_study_that_is_killed_at_five_moments_comes_to_the_same_verdict(place: Path, tmp_path: Path) -> None:
    study, killed = place / "weigh.yaml", tmp_path / "killed" / "runs"
    whole = finish(study, tmp_path / "whole" / "runs")
    for moment, reached in MOMENTS:
        assert not reached(killed), moment
        process = start(study, killed)
        wait_for(process, killed, reached)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert finish(study, killed) == whole
    assert whole["complete"]
    assert (killed / "studies" / "weigh" / "report.html").exists()
    assert not list(killed.rglob("*.tmp-*"))
    assert {steps(killed, path.parent.name) for path in killed.glob("lora-*/metrics.jsonl")} == {STEPS}


@pytest.mark.slow
def test_a_worker_that_outlives_its_study_is_waited_for(place: Path, tmp_path: Path) -> None:
    process = start(place / "long.yaml", tmp_path)
    wait_for(process, tmp_path, partial(has_steps, more_than=0))
    process.kill()
    process.wait()
    run = Run(next(tmp_path.glob("lora-*")))
    assert lock.is_held(run)
    assert finish(place / "long.yaml", tmp_path)["complete"]
    assert [row["event"] for row in files.read_jsonl(run.attempts)] == ["start", "end"]
    assert steps(tmp_path, "lora-*") == MANY_STEPS


@pytest.mark.slow
def test_a_polite_stop_ends_in_words_and_keeps_every_step(place: Path, tmp_path: Path) -> None:
    """Ctrl-C as a terminal sends it, to all at once; then SIGTERM as a scheduler sends it, to the study alone."""
    kept = 0
    for stop, number, status in ((os.killpg, signal.SIGINT, 130), (os.kill, signal.SIGTERM, 75)):
        process = start(place / "long.yaml", tmp_path)
        wait_for(process, tmp_path, partial(has_steps, more_than=kept + 5))
        stop(process.pid, number)
        assert process.wait() == status, said(tmp_path)
        assert "Traceback" not in said(tmp_path)
        assert "the same command continues" in said(tmp_path).splitlines()[-1]
        assert kept == 0 or f"going on from step {kept}" in said(tmp_path)
        kept = steps(tmp_path, "lora-*")
    assert kept < MANY_STEPS


@pytest.mark.slow
def test_two_studies_at_once_end_well_and_train_no_run_twice(place: Path, tmp_path: Path) -> None:
    both = [start(place / "both.yaml", tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert verdict(tmp_path, "both")["complete"]
    runs = [Run(path) for path in sorted(tmp_path.glob("lora-*"))]
    assert [run.log.read_text().count("parameters trained") for run in runs] == [1, 1]
