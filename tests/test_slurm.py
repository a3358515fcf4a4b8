"""Runs and studies on a real Slurm: submitted, stopped in every way, continued, equal to those that were not."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mini_slurm
import pytest
import yaml
from conftest import ROOT
from mini_slurm import MiniSlurm
from test_distributed import assert_same_scores, assert_same_walk, distance
from test_kill import digests

from workbench import files
from workbench.runs.run import Run, without_measured

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

STEPS = 40
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
SUITE = f"""tasks:
  - {{name: generate, id: facts, data: {ROOT}/datasets/world-questions.yaml, max_items: 12, max_new_tokens: 4}}
  - {{name: heldout, id: biographies, data: {ROOT}/datasets/world-biographies.yaml, max_items: 6}}
"""
PROFILE: dict[str, Any] = {
    "target": "cpu", "gres": None, "partition": "debug", "cpus_per_device": 1, "time": "20", "grace_seconds": 30,
    "environment": {"GLOO_SOCKET_IFNAME": "lo"},
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniSlurm]:
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "few.yaml").write_text(SUITE)  # one for all: where a suite lies is a part of what its scores say of it
    with mini_slurm.running(folder / "mini") as made:
        yield made


class Desk:
    """A user's folder with a profile and a small suite, and what is typed in it."""

    def __init__(self, folder: Path, cluster: MiniSlurm, **profile: Any) -> None:
        self.folder, self.cluster = folder, cluster
        (folder / "slurm").mkdir(parents=True)
        (folder / "slurm" / "mini.yaml").write_text(yaml.safe_dump({**PROFILE, **profile}))

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *words], cwd=self.folder, env=self.environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        return {**self.cluster.environment, "PYTHONPATH": str(ROOT), "WORKBENCH_CACHE": str(self.folder / "cache")}

    def submit(self, *settings: str, status: int = 0) -> str:
        """Submit the quickstart cut short."""
        return self("submit", str(QUICKSTART), *self.short(*settings), status=status)

    def job(self, *settings: str) -> str:
        """The same, and the job's number."""
        said = self.submit(*settings)
        assert said.startswith("job "), said
        return said.split()[1].rstrip(":")

    @property
    def suite(self) -> Path:
        return self.cluster.folder.parent / "few.yaml"

    def short(self, *settings: str) -> list[str]:
        """The quickstart's options cut short, and more."""
        every = (
            f"training={{steps: {STEPS}, batch_size: 8, learning_rate: 2e-3, checkpoint_every: 5}}",
            "target.threads=1", "method.dropout=0.1", f"evaluation.suite={self.suite}", *settings,
        )  # fmt: skip
        return [word for setting in every for word in ("--set", setting)]

    @property
    def run(self) -> Run:
        (found,) = (self.folder / "runs").glob("quickstart-*")
        return Run(found)

    def steps(self) -> int:
        """Logged so far."""
        found = list((self.folder / "runs").glob("quickstart-*/metrics.jsonl"))
        return found[0].read_bytes().count(b"\n") if found else 0

    def wait_for_steps(self, count: int) -> None:
        self.cluster.wait(lambda: self.steps() >= count, 180)

    def said(self) -> str:
        """All that the run's jobs printed."""
        return "".join(path.read_text() for path in sorted(self.run.path.glob("job-*.log")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cluster: MiniSlurm) -> Run:
    """The run that nothing interrupts, trained without Slurm."""
    desk = Desk(tmp_path_factory.mktemp("whole"), cluster)
    desk("train", str(QUICKSTART), *desk.short())
    return desk.run


@pytest.fixture
def desk(tmp_path: Path, cluster: MiniSlurm) -> Desk:
    return Desk(tmp_path / "my desk, 100%", cluster)


def assert_equal_runs(one: Run, other: Run) -> None:
    """Bit for bit, apart from measured resources."""
    assert one.name == other.name
    assert digests(one.adapter) == digests(other.adapter)
    for name in ("metrics.jsonl", "eval/few/items.jsonl"):
        rows = [[without_measured(row) for row in files.read_jsonl(run.path / name)] for run in (one, other)]
        assert rows[0] == rows[1] != [], name
    for name in ("proof.json", "data.json", "status.json", "eval/few/results.json", "identity.json"):
        assert without_measured(files.read_json(one.path / name)) == without_measured(
            files.read_json(other.path / name)
        )
    assert files.read_json(other.manifest).get("continued", []) == []
    assert not list(other.path.rglob(".*tmp*"))


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_a_submitted_recipe_is_the_run_that_train_makes(desk: Desk, whole: Run) -> None:
    job = desk.job()
    assert f"quickstart-{whole.name.split('-')[1]}-s0 is job {job} already" in desk.submit()
    said = desk("runs", "--watch")
    assert "running" in said or "queued" in said
    assert f"{STEPS}/{STEPS}" in said
    desk.cluster.wait_for(job, "COMPLETED")
    assert_equal_runs(whole, desk.run)
    assert "is finished already" in desk.submit()
    assert list(desk.cluster.states()).count(job) == 1
    assert "proved: all" in desk("logs", "quickstart")
    (noted,) = files.read_jsonl(desk.run.jobs)
    assert noted["job"] == job and Path(noted["output"]).exists() and Path(noted["script"]).exists()


def test_two_nodes_train_the_adapter_of_one_process(desk: Desk, cluster: MiniSlurm, tmp_path: Path) -> None:
    """Over gloo, one task a node. (Dropout would draw other masks in each process.)"""
    alone = Desk(tmp_path / "alone", cluster)
    alone("train", str(QUICKSTART), *alone.short("method.dropout=0"))
    desk.cluster.wait_for(desk.job("method.dropout=0", "target.nodes=2"), "COMPLETED")
    assert distance(alone.run, desk.run) < 1e-5
    assert_same_walk(alone.run, desk.run)
    assert_same_scores(alone.run, desk.run)
    assert files.read_json(desk.run.cost)["devices"] == 2


# --- stopped and gone on with ----------------------------------------------------------------------------------------


def test_a_time_limit_is_met_by_a_checkpoint_and_the_queue(tmp_path: Path, cluster: MiniSlurm) -> None:
    """Slurm's own clock: the shortest limit that it takes, a minute, and a run that needs more than the time before its
    grace."""
    longer = ("training.steps=1200", "training.checkpoint_every=1000", "evaluation.base=false")
    whole = Desk(tmp_path / "whole", cluster)
    whole("train", str(QUICKSTART), *whole.short(*longer))
    desk = Desk(tmp_path / "limited", cluster, time="1", grace_seconds=15)
    job = desk.job(*longer)
    desk.cluster.wait_for(job, "COMPLETED", seconds=900)
    kept = re.findall(r"stopped by SIGUSR1 at step (\d+)", desk.said())
    assert kept, desk.said()
    assert all(f"going on from step {step}" in desk.said() for step in kept)
    assert_equal_runs(whole.run, desk.run)


Stop = Callable[[Desk, str], Any]


def scontrol_requeue(desk: Desk, job: str) -> None:
    """What an administrator does; the job comes back by itself."""
    desk.cluster.ask("scontrol", "requeue", job)


def the_signal_before_the_limit(desk: Desk, job: str) -> None:
    """What Slurm sends at the time that `--signal` says, at once."""
    desk.cluster.ask("scancel", "--batch", "--signal=USR1", job)


def a_killed_node(desk: Desk, job: str) -> None:
    """Its daemon and all that it runs are gone at once; Slurm notices, and puts the job back."""
    node = desk.cluster.ask("squeue", "-h", "-j", job, "-o", "%N").strip()
    desk.cluster.lose(node)
    desk.cluster.wait(lambda: desk.cluster.states().get(job) == "PENDING", 90)
    desk.cluster.start(node)


def a_controller_that_starts_again(desk: Desk, job: str) -> None:
    """Jobs go on without it; it finds them again."""
    desk.cluster.kill("slurmctld")
    time.sleep(1)
    desk.cluster.start("slurmctld")


@pytest.mark.parametrize(
    "stop", [the_signal_before_the_limit, scontrol_requeue, a_killed_node, a_controller_that_starts_again],
    ids=lambda stop: stop.__name__,
)  # fmt: skip
def test_a_job_that_is_stopped_comes_back_and_ends_bit_for_bit(desk: Desk, whole: Run, stop: Stop) -> None:
    job = desk.job()
    desk.wait_for_steps(8)
    stop(desk, job)
    assert desk.steps() < STEPS or stop is a_controller_that_starts_again, "stopped too late to show anything"
    desk.cluster.wait_for(job, "COMPLETED", seconds=240)
    assert_equal_runs(whole, desk.run)
    restarts = [row for row in files.read_jsonl(desk.run.attempts) if row["event"] == "start"]
    assert len(restarts) == (1 if stop is a_controller_that_starts_again else 2)
    if stop is the_signal_before_the_limit:
        ends = [row for row in files.read_jsonl(desk.run.attempts) if row["event"] == "end"]
        assert [row["status"] for row in ends] == [75, 0]


def test_a_cancelled_job_is_stopped_and_the_same_command_finishes_it(desk: Desk, whole: Run) -> None:
    job = desk.job()
    desk.wait_for_steps(8)
    assert f"job {job} is cancelled" in desk("cancel", "quickstart")
    desk.cluster.wait_for(job, "CANCELLED")
    desk.cluster.wait(lambda: "stopped by SIGTERM" in desk.said(), 30)
    assert "stopped" in desk("runs", "--watch")
    assert desk.steps() < STEPS
    again = desk.job()
    assert again != job
    desk.cluster.wait_for(again, "COMPLETED")
    assert_equal_runs(whole, desk.run)
    assert "neither runs nor waits" in desk("cancel", "quickstart", status=2)


def test_a_second_job_on_the_same_run_refuses(desk: Desk, whole: Run) -> None:
    job = desk.job()
    desk.wait_for_steps(1)
    script = desk.run.path / "job.sh"
    second = desk.cluster.ask("sbatch", "--parsable", f"--output={desk.folder}/second.log", str(script)).strip()
    desk.cluster.wait_for(second, "FAILED")
    said = (desk.folder / "second.log").read_text()
    assert "is being worked on by process" in said and f"job {job}, since" in said
    desk.cluster.wait_for(job, "COMPLETED")
    assert_equal_runs(whole, desk.run)


# --- a study ---------------------------------------------------------------------------------------------------------

STUDY = {
    "question": "Does the rank matter?",
    "seeds": [0, 1],
    "vary": ["method", "training.learning_rate"],
    "arms": {
        "low": {"recipe": str(QUICKSTART), "set": {"method.rank": 2}},
        "high": {"recipe": str(QUICKSTART), "set": {"method.rank": 8}},
        "fast": {"recipe": str(QUICKSTART), "set": {"training.learning_rate": 4e-3}},
        "base": {"recipe": str(QUICKSTART), "set": {"method": "none"}},
    },
}


def test_a_study_goes_through_an_array_and_ends_in_its_verdict(tmp_path: Path, cluster: MiniSlurm) -> None:
    desk = Desk(tmp_path / "study", cluster, most_at_once=2)
    (desk.folder / "ranks.yaml").write_text(yaml.safe_dump({**STUDY, "suite": str(desk.suite)}))
    settings = [word for setting in ("training.steps=6", "target.threads=1") for word in ("--set", setting)]
    said = desk("submit", "ranks.yaml", *settings)
    assert "7 runs: 0 finished or worked on, 0 in the queue, 7 to hand in" in said
    assert "6 runs, each on 1 node with 1 task" in said
    again = desk("submit", "ranks.yaml", *settings)
    assert "7 in the queue, 0 to hand in" in again
    most = 0
    verdict = desk.folder / "runs" / "studies" / "ranks" / "verdict.json"

    def is_judged() -> bool:
        nonlocal most
        states = [state for job, state in cluster.states().items() if "_" in job]
        most = max(most, states.count("RUNNING"))
        return verdict.exists()

    cluster.wait(is_judged, 400)
    assert most <= 2
    found = files.read_json(verdict)
    assert found["complete"]
    assert {arm["name"] for arm in found["arms"]} == {"low", "high", "fast", "base"}
    assert "nothing to hand in" in desk("submit", "ranks.yaml", *settings)
    assert desk("runs").count("finished") == 7
