"""W&B as a window on a run: the same live and from the directory, and nothing that it does reaches the run."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import ROOT, Outcome, write_rows
from wandb_files import Offline, offline_run, offline_runs

from workbench.recipe import trackers
from workbench.recipe.tracking import Wandb
from workbench.runs.run import Run, without_measured
from workbench.tracking import vocabulary

STEPS = 5
KEYS = {"WANDB_API_KEY": "5ec4e7" * 6 + "beef", "HF_TOKEN": "hf_sEcReTsEcReTsEcReT", "OPENAI_API_KEY": "sk-sEcReT-42"}
OFFLINE = {"project": "tests", "tags": ["small"], "mode": "offline"}


@pytest.fixture
def recipe(tmp_path: Path, small_base: Path) -> Path:
    rows = [{"prompt": f"the {word} sat on the", "completion": " mat"} for word in ("cat", "dog", "hen", "owl")]
    write_rows(tmp_path / "rows.jsonl", rows)
    write_rows(tmp_path / "texts.jsonl", [{"text": "the cat ran to the park\n"}, {"text": "a red ball\n"}])
    for name, form in (("rows", "prompt_completion"), ("texts", "text")):
        splits = {split: {"files": f"{name}.jsonl"} for split in ("train", "test")}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"format": form, "splits": splits}))
    tasks = [{"name": "heldout", "id": "text", "data": "./texts.yaml"}]
    (tmp_path / "kept.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    words = {
        "base": str(small_base), "method": {"name": "lora", "rank": 4},
        "data": {"name": "./rows.yaml", "template": "plain"},
        "training": {"steps": STEPS, "batch_size": 2, "learning_rate": 0.01, "precision": "fp32"},
        "evaluation": {"suite": "./kept.yaml", "base": False}, "target": "cpu",
        "tracking": {"wandb": OFFLINE},
    }  # fmt: skip
    path = tmp_path / "shown.yaml"
    path.write_text(yaml.safe_dump(words))
    return path


def trained(workbench: Callable[..., Outcome], recipe: Path, *more: str) -> tuple[Run, str]:
    outcome = workbench("train", recipe.name, *more)
    assert outcome.status == 0, outcome.output
    runs = list((recipe.parent / "runs").glob("shown-*"))
    assert len(runs) == 1
    assert json.loads((runs[0] / "status.json").read_text())["status"] == "finished"
    return Run(runs[0]), outcome.output


def metrics(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def told(shown: Offline) -> dict[str, Any]:
    """What a W&B run holds, without the library's own clock and random names."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if key == "_step" or not (key == "items" or key[0] == "_")}

    return {
        "config": plain(shown.config),
        "history": [plain(row) for row in shown.history],
        "summary": plain(shown.summary),
        "axes": shown.axes,
        "artifacts": {name: one.digest for name, one in shown.artifacts.items()},
        "table": shown.table("items"),
        "names": (shown.started.project, shown.started.display_name, shown.started.run_id, shown.started.run_group,
                  shown.started.job_type, list(shown.started.tags)),
    }  # fmt: skip


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_an_offline_run_holds_every_step_the_recipe_and_the_final_numbers(
    workbench: Callable[..., Outcome], recipe: Path
) -> None:
    run, output = trained(workbench, recipe)
    assert f"workbench publish {run.path}" in output
    assert "W&B failed" not in output
    shown = offline_run(run.path)
    assert (shown.ended, shown.exit_code) == (True, 0)

    steps = metrics(run)
    assert [row["train/step"] for row in shown.history] == [*range(1, STEPS + 1), STEPS]
    for row, step in zip(shown.history, steps, strict=False):
        assert {
            key.name: step[key.field] for key in vocabulary.WALK if step[key.field] is not None
        }.items() <= row.items()
    assert all(row["train/flops"] > 0 for row in shown.history)

    assert (shown.started.project, shown.started.display_name, shown.started.run_id) == ("tests", run.name, run.name)
    assert (shown.started.run_group, shown.started.job_type) == ("shown", "train")
    assert list(shown.started.tags) == ["small", "small", "lora", "cpu", "kept"][1:]
    assert shown.config["training/steps"] == STEPS
    assert shown.config["method/rank"] == 4
    results = json.loads(run.results("kept").read_text())
    assert shown.config["suite/fingerprint"] == results["fingerprint"]
    assert shown.config["run/comparability"]
    assert shown.config["hardware/device"] == "cpu"
    assert shown.axes["train/loss"] == vocabulary.TOKENS
    assert shown.axes["heldout/*"] == vocabulary.FLOPS
    assert {shown.axes[key] for key in shown.axes} - {""} == set(vocabulary.AXES)

    task = results["tasks"]["text"]
    for key, value in zip(("", "/low", "/high"), (task["value"], task["low"], task["high"]), strict=True):
        assert shown.summary[f"heldout/text/bits_per_byte{key}"] == value
    assert shown.summary["train/loss"] == steps[-1]["loss"]
    assert shown.summary["cost/training_flops"] == json.loads(run.cost.read_text())["training_flops"]
    assert shown.summary["parameters/trained"] == json.loads(run.cost.read_text())["trainable_parameters"]
    assert (shown.summary["items/shown"], shown.summary["items/total"]) == (2, 2)
    assert [row[2] for row in shown.table("items")["data"]] == [
        json.loads(line)["id"] for line in run.items("kept").read_text().splitlines()
    ]


def test_artifacts_tell_where_a_run_came_from_and_what_it_made(workbench: Callable[..., Outcome], recipe: Path) -> None:
    run, _ = trained(workbench, recipe)
    made = {
        one.type: one for one in offline_run(run.path).artifacts.values() if not one.name.startswith("run-shown-items")
    }
    assert {"base", "dataset", "model", "run"} <= made.keys()
    assert {kind for kind, one in made.items() if one.use_after_commit} == {"base", "dataset"}
    base = json.loads(made["base"].metadata)
    assert base["files"] == json.loads(run.manifest.read_text())["base"]["files"]
    assert [entry.path for entry in made["base"].manifest.contents] == ["reference"]
    held = {entry.path: entry.local_path for entry in made["model"].manifest.contents}
    assert held["adapter_model.safetensors"] == str(run.adapter / "adapter_model.safetensors")  # not a copy
    assert {"manifest.json", "resolved.json", "eval/kept/results.json"} <= {
        entry.path for entry in made["run"].manifest.contents
    }


def test_the_adapter_stays_at_home_where_that_is_asked_for(workbench: Callable[..., Outcome], recipe: Path) -> None:
    run, _ = trained(workbench, recipe, "--set", "tracking.wandb.upload_adapter=false")
    (model,) = [one for one in offline_run(run.path).artifacts.values() if one.type == "model"]
    assert [entry.path for entry in model.manifest.contents] == ["reference"]
    assert "adapter_model.safetensors" in json.loads(model.metadata)["sha256"]


def test_publishing_gives_what_live_tracking_gave_however_often(
    workbench: Callable[..., Outcome], recipe: Path
) -> None:
    run, _ = trained(workbench, recipe)
    live = told(offline_run(run.path))
    assert len(live["history"]) == STEPS + 1
    for _ in range(2):
        outcome = workbench("publish", "shown")
        assert outcome.status == 0, outcome.output
        assert "the same command sends all of it" in outcome.output
        assert told(offline_run(run.path)) == live


def test_a_run_that_was_killed_and_goes_on_is_one_history(recipe: Path, workbench: Callable[..., Outcome]) -> None:
    """Its attempts are joined by step; the last of them tells all of it, and so does the directory."""
    command = [sys.executable, "-m", "workbench", "train", recipe.name, "--set", "training.steps=400",
               "--set", "training.checkpoint_every=20"]  # fmt: skip
    process = subprocess.Popen(command, cwd=recipe.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    noted = None
    while process.poll() is None:
        noted = next(iter(recipe.parent.glob("runs/shown-*/tracking/wandb.json")), None)
        if noted is not None and json.loads(noted.read_text())["step"] > 40:
            os.kill(process.pid, signal.SIGKILL)  # the command; its worker is told by nobody
            for worker in _workers(recipe.parent):
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.02)
    assert noted is not None
    run = Run(noted.parent.parent)
    assert not run.is_finished(), "it was too quick to be killed"
    _until(lambda: json.loads(noted.read_text())["state"] == "interrupted")
    first = offline_run(run.path)
    assert first.exit_code == 75
    assert [row["train/step"] for row in first.history] == list(range(1, len(first.history) + 1))

    assert subprocess.run(command, cwd=recipe.parent, capture_output=True, check=False).returncode == 0
    shown = offline_run(run.path)
    assert [row["train/step"] for row in shown.history] == [*range(1, 401), 400]
    joined = {row["train/step"]: row["train/loss"] for row in (*shown.history[:-1], *first.history)}
    assert list(joined.values()) == [row["loss"] for row in metrics(run)]
    live = told(shown)
    assert workbench("publish", "shown").status == 0
    assert told(offline_run(run.path)) == live


def _workers(folder: Path) -> list[int]:
    """Processes that work on a run in a folder."""
    every = psutil.process_iter(["pid", "cwd", "cmdline"])
    at_work = (one.info for one in every if "workbench.worker" in (one.info["cmdline"] or ()))
    return [info["pid"] for info in at_work if info["cwd"] == str(folder)]


def _until(what: Callable[[], bool]) -> None:
    for _ in range(300):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def test_nothing_is_tracked_unasked(workbench: Callable[..., Outcome], recipe: Path) -> None:
    words = yaml.safe_load(recipe.read_text())
    del words["tracking"]
    recipe.write_text(yaml.safe_dump(words))
    run, output = trained(workbench, recipe)
    assert not (run.path / "wandb").exists()
    assert not (run.path / "tracking").exists()
    assert "W&B" not in output
    outcome = workbench("publish", "shown", "--set", "tracking.wandb.mode=offline")
    assert outcome.status == 0, outcome.output
    assert offline_run(run.path).started.project == "workbench"


def test_disabled_is_as_if_nothing_was_asked(workbench: Callable[..., Outcome], recipe: Path) -> None:
    run, output = trained(workbench, recipe, "--set", "tracking.wandb.mode=disabled")
    assert not (run.path / "wandb").exists()
    assert "W&B" not in output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nothing-here",), "is no run"),
        (("shown", "--set", "method.rank=8"), "method"),
        (("shown", "--set", "tracking.wandb.projekt=x"), "project"),
        (("shown", "--set", "tracking.wandb.mode=onlin"), "online"),
        (("shown", "--set", "tracking.wandb.mode=disabled"), "no other tracker is named"),
        (("shown", "--set", "tracking.wandb.project=a/b"), "tracking.wandb.project"),
        (("shown", "--set", "tracking.wandb.tags=[a, '']"), "tracking.wandb.tags"),
        (("shown", "--set", "tracking.mlflow.uri=gopher://x"), "MLflow"),
    ],
)
def test_what_cannot_be_published_is_said(
    workbench: Callable[..., Outcome], recipe: Path, words: tuple[str, ...], says: str
) -> None:
    trained(workbench, recipe, "--set", "tracking.wandb.mode=disabled")
    outcome = workbench("publish", *words)
    assert outcome.status == 2
    assert says in outcome.output
    assert "Traceback" not in outcome.output


def test_an_unfinished_run_is_not_published(workbench: Callable[..., Outcome], recipe: Path) -> None:
    run, _ = trained(workbench, recipe, "--set", "tracking.wandb.mode=disabled")
    run.status.unlink()
    outcome = workbench("publish", "shown")
    assert outcome.status == 2
    assert "only a finished run" in outcome.output


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_no_key_is_in_any_file_of_the_run(
    workbench: Callable[..., Outcome], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, or from where `wandb login` puts it."""
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password n3trc5ecretn3trc5ecret\n")
    run, output = trained(workbench, recipe)
    assert workbench("publish", "shown").status == 0
    offline_run(run.path)
    found = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(found) > 15
    for key in (*KEYS.values(), "n3trc5ecretn3trc5ecret"):
        assert [path for path in found if key.encode() in path.read_bytes()] == []
        assert key not in output


# --- a tracker that goes wrong ---------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Put a W&B library in the real one's place that goes wrong (where, how); what it is asked is in the file."""
    notes = tmp_path / "asked.txt"

    def put(where: str, how: str) -> Path:
        (tmp_path / "instead").mkdir()
        (tmp_path / "instead" / "wandb.py").write_text((ROOT / "tests" / "broken_wandb.py").read_text())
        for name, value in (("AT", where), ("HOW", how), ("NOTES", str(notes))):
            monkeypatch.setenv(f"BROKEN_{name}", value)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'instead'}:{ROOT}")
        return notes

    yield put
    subprocess.run(["pkill", "-f", f"workbench.tracking .*{tmp_path.name}"], check=False)


@pytest.mark.parametrize(
    ("where", "how"),
    [
        *itertools.product(("init", "log", "finish"), ("raises", "is full", "is cut off")),
        ("define_metric", "raises"),
        ("update", "is full"),
        ("log_artifact", "is cut off"),
    ],
)
def test_a_tracker_that_breaks_neither_ends_a_run_nor_changes_it(
    workbench: Callable[..., Outcome], recipe: Path, broken: Callable[[str, str], Path], where: str, how: str
) -> None:
    asked = broken(where, how)
    run, output = trained(workbench, recipe)
    assert output.count("W&B failed") == 1, output
    assert f"workbench publish {run.path}" in output
    assert asked.read_text().split("\n").count(where) == 1  # it is not asked again
    assert len(metrics(run)) == STEPS
    if how != "is cut off":
        assert json.loads(run.tracked("wandb").read_text())["state"] == "failed"


def test_what_a_broken_tracker_did_not_take_is_sent_later(
    workbench: Callable[..., Outcome], recipe: Path, broken: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken("log", "is cut off")
    run, _ = trained(workbench, recipe)
    monkeypatch.delenv("PYTHONPATH")
    assert workbench("publish", "shown").status == 0
    late = told(offline_run(run.path))
    whole = run.path.parent.parent / "elsewhere"
    assert workbench("train", recipe.name, "--runs", str(whole)).status == 0
    live = told(offline_run(next(whole.glob("shown-*"))))
    cost = {key.name for key in vocabulary.WALK if key.field in {"seconds", "device_seconds", "peak_memory_bytes"}}
    unlike = cost | {"cost/evaluation_seconds", "cost/device_seconds"}
    same = [[{k: v for k, v in row.items() if k not in unlike} for row in one["history"]] for one in (late, live)]
    assert same[0] == same[1]
    assert late["table"] == live["table"]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_nobody_waits_for_a_tracker_that_hangs(
    workbench: Callable[..., Outcome], recipe: Path, broken: Callable[[str, str], Path], where: str
) -> None:
    """Each call of it takes 30 seconds; when the run has ended, the first of them has not come back."""
    asked = broken(where, "hangs")
    run, output = trained(workbench, recipe)
    assert "came back" not in asked.read_text()
    assert "W&B" in output
    assert f"workbench publish {run.path}" in output
    assert [row["step"] for row in metrics(run)] == list(range(1, STEPS + 1))


def test_a_run_is_the_same_with_a_tracker_and_without(
    workbench: Callable[..., Outcome], recipe: Path, broken: Callable[[str, str], Path]
) -> None:
    broken("log", "raises")
    run, _ = trained(workbench, recipe)
    outcome = workbench("train", recipe.name, "--set", "tracking.wandb.mode=disabled", "--runs", "plain")
    assert outcome.status == 0, outcome.output
    (other,) = (Run(path) for path in (recipe.parent / "plain").glob("shown-*"))
    assert other.name == run.name
    for one in (run, other):
        assert one.adapter.is_dir()
    weights = [(one.adapter / "adapter_model.safetensors").read_bytes() for one in (run, other)]
    assert weights[0] == weights[1]
    assert without_measured(metrics(run)) == without_measured(metrics(other))
    assert run.items("kept").read_bytes() == other.items("kept").read_bytes()


def test_two_processes_do_not_show_one_run_at_once(workbench: Callable[..., Outcome], recipe: Path) -> None:
    import fcntl

    run, _ = trained(workbench, recipe)
    with run.tracked("wandb").with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = workbench("publish", "shown")
    assert outcome.status == 2
    assert "another process shows it" in outcome.output
    assert len(offline_runs(run.path)) == 1


# --- where W&B is reached --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("netrc", "environment", "expected"),
    [
        (None, {}, False),
        (None, {"WANDB_API_KEY": "k"}, True),
        ("machine github.com login me password p\n", {}, False),
        ("machine api.wandb.ai login user password p\n", {}, True),
        ("machine api.wandb.ai login user password p\n", {"WANDB_BASE_URL": "https://wandb.example.org"}, False),
        ("machine wandb.example.org login user password p\n", {"WANDB_BASE_URL": "https://wandb.example.org"}, True),
        ("this is no netrc\n", {}, False),
    ],
)
def test_auto_is_online_only_where_a_key_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, netrc: str | None, environment: dict[str, str], expected: bool
) -> None:
    """A netrc of other sites is no key: W&B would stop and ask a person for one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NETRC", "WANDB_API_KEY", "WANDB_BASE_URL", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        (tmp_path / ".netrc").write_text(netrc)
        (tmp_path / ".netrc").chmod(0o600)
    assert trackers.has_key() is expected
    assert trackers.mode(Wandb()) == ("online" if expected else "offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert trackers.mode(Wandb()) == "offline"
