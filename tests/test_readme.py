"""Every command of the README, run as a new user would, and its table against what the quickstart gives."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from wandb_files import offline_run

from workbench import files
from workbench.runs.run import Run

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.strip().splitlines()]
ELSEWHERE = {
    "scripts/test": "runs this very test",
    "workbench submit recipes/studies/quickstart-study.yaml": "needs Slurm; tests/test_slurm_docs.py types it",
    "workbench train recipes/qwen-lora.yaml": "needs the hub; tests/test_hub.py runs it on a laid-out cache",
}
STUDY = "workbench study recipes/studies/quickstart-study.yaml"
POINTS = 3.0
"""How far the table may be from this machine's figures: threads and processors differ in the last bits."""


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that `scripts/quickstart` ran for, and what it printed. It reuses this environment."""
    place = tmp_path_factory.mktemp("new user")
    environment = os.environ | {"WORKBENCH_VENV": sys.prefix, "WORKBENCH_RUNS": str(place / "runs")}
    done = subprocess.run(
        [str(ROOT / "scripts" / "quickstart")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout


def test_the_commands_are_known() -> None:
    assert COMMANDS[0] == "scripts/quickstart"
    assert set(ELSEWHERE) <= set(COMMANDS)


def verdict_in(folder: Path) -> dict[str, Any]:
    """The one verdict somewhere under a folder."""
    (found,) = folder.glob("*/verdict.json")
    return dict(json.loads(found.read_text()))


def scores(verdict: dict[str, Any], task: str) -> dict[str, float]:
    """arm -> its score."""
    return {arm["name"]: arm["scores"][task]["value"] for arm in verdict["arms"]}


@pytest.mark.slow
def test_quickstart_shows_the_adapter_better_than_from_scratch(quickstart: tuple[Path, str]) -> None:
    place, printed = quickstart
    assert re.search(r"^quickstart +scratch-quickstart +better +\+\d\d\.\d", printed, re.M), printed
    verdict = verdict_in(place / "runs" / "comparisons")
    told = next(one for one in verdict["contrasts"] if one["arm"] == "quickstart" and one["family"] == "declared")
    assert told["low"] > 0.8, "far from zero"


@pytest.mark.slow
def test_the_table_shows_what_the_quickstart_gives(quickstart: tuple[Path, str]) -> None:
    verdict = verdict_in(quickstart[0] / "runs" / "comparisons")
    right, bits = scores(verdict, "facts"), scores(verdict, "biographies")
    for row, arm in (
        ("the base as it is", "base-embedded"),
        ("LoRA", "quickstart"),
        ("the same rows", "scratch-quickstart"),
    ):
        shown = re.search(rf"^\| {row}[^|]*\| ([\d.]+) % \|[^|]*\| ([\d.]+) \|", README, re.M)
        assert shown is not None, row
        assert abs(float(shown[1]) - 100 * right[arm]) <= POINTS, row
        # weights that never saw such text are sure of nonsense: how sure differs by processor and threads
        assert abs(float(shown[2]) - bits[arm]) <= (0.25 if arm == "scratch-quickstart" else 0.1) * bits[arm], row


@pytest.mark.slow
def test_the_table_of_arms_shows_what_the_study_gives(quickstart: tuple[Path, str]) -> None:
    """The study goes on from the quickstart's runs, and its own test below finds it finished."""
    place, _ = quickstart
    done = run(STUDY, place)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = verdict_in(place / "runs" / "studies")
    assert verdict["complete"]
    assert {one["word"] for one in verdict["contrasts"] if one["family"] == "declared" and one["arm"] == "lora"} == {
        "better"
    }
    for row, arm in (("base as it is", "base"), ("lora", "lora"), ("full", "full"), ("from scratch", "scratch")):
        shown = re.search(rf"^\| {row} \| ([\d.]+) % \|", README, re.M)
        assert shown is not None, row
        assert abs(float(shown[1]) - 100 * scores(verdict, "facts")[arm]) <= POINTS, row


@pytest.mark.slow
def test_the_study_stands_whole_in_the_records_that_wandb_keeps(quickstart: tuple[Path, str]) -> None:
    """Read back from the `.wandb` files: every step once, axes, config, summary, items and artifacts of every run."""
    place, _ = quickstart
    done = run("workbench publish recipes/studies/quickstart-study.yaml --set tracking.wandb.mode=offline", place)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = verdict_in(place / "runs" / "studies")
    for arm in verdict["arms"]:
        for name in arm["runs"]:
            one, directory = offline_run(place / "runs" / name), Run(place / "runs" / name)
            steps = [row["step"] for row in files.read_jsonl(directory.metrics)]
            walked = [row["train/step"] for row in one.history if "train/loss" in row]
            assert walked == steps == [*range(1, len(steps) + 1)], name
            assert one.history[-1]["task/facts/exact_match"] == one.summary["task/facts/exact_match"]
            assert {"heldout/biographies/bits_per_byte", "train/flops"} <= one.history[-1].keys()
            assert one.axes["heldout/*"] == "train/flops" and one.axes["train/loss"] == "train/tokens"
            assert (one.started.run_group, one.config["run/study"]) == (arm["name"], "quickstart-study")
            assert len(one.table("items")["data"]) == one.summary["items/shown"] == 950
            kinds = {artifact.type for artifact in one.artifacts.values()} - {"run_table"}  # the library's own
            assert kinds == ({"base", "dataset", "model", "run"} if steps else {"base", "run"}), name
    study = offline_run(place / "runs" / "studies" / "quickstart-study")
    assert study.summary["study/sentence"] == verdict["sentence"]
    assert [row[0] for row in study.table("arms")["data"]] == [arm["name"] for arm in verdict["arms"]]


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A command of the README, typed in a folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    return subprocess.run(shlex.split(command), cwd=place, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE and c != "scripts/quickstart"])
def test_the_other_commands_work_on_what_it_left(command: str, quickstart: tuple[Path, str]) -> None:
    place, _ = quickstart
    done = run(command, place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr
