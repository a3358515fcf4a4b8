"""Weights & Biases as a window on a run: complete when it works, said once and left out when it does not."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from conftest import Outcome, write_rows

from workbench.tracking import wandb as tracking

STEPS = 5
KEYS = {"WANDB_API_KEY": "5ec4e7" * 6 + "beef", "HF_TOKEN": "hf_sEcReTsEcReTsEcReT", "OPENAI_API_KEY": "sk-sEcReT-42"}


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a LevelDB log (blocks of 32 KiB, chunks of a 7-byte header and a part of a record)
    after 7 bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(content):
        left = 32_768 - at % 32_768
        if left < 7:  # no header fits: the block is filled up
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if kind == 0:
            at += left
            continue
        part = content[at + 7 : at + 7 + length]
        whole = part if kind in (1, 2) else whole + part
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield record


def values(items: Any) -> dict[str, Any]:
    """Key -> value of a record's items (nested keys joined by dots)."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def offline_run(run: Path) -> list[Any]:
    """All records of the only offline run in a run directory."""
    found = list(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(found) == 1, found
    return list(records(found[0]))


def history(found: list[Any]) -> list[dict[str, Any]]:
    return [values(record.history.item) for record in found if record.WhichOneof("record_type") == "history"]


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
        "tracking": {"wandb": {"project": "tests", "tags": ["small"], "mode": "offline"}},
    }  # fmt: skip
    path = tmp_path / "shown.yaml"
    path.write_text(yaml.safe_dump(words))
    return path


def trained(workbench: Callable[..., Outcome], recipe: Path, *more: str) -> tuple[Path, str]:
    outcome = workbench("train", recipe.name, *more)
    assert outcome.status == 0, outcome.output
    runs = list((recipe.parent / "runs").glob("shown-*"))
    assert len(runs) == 1
    assert json.loads((runs[0] / "status.json").read_text())["status"] == "finished"
    return runs[0], outcome.output


def test_an_offline_run_holds_every_step_the_recipe_and_the_final_numbers(
    workbench: Callable[..., Outcome], recipe: Path
) -> None:
    run, output = trained(workbench, recipe)
    assert "wandb sync" in output
    assert "W&B failed" not in output
    found = offline_run(run)
    assert found[-1].WhichOneof("record_type") == "exit", [record.WhichOneof("record_type") for record in found]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = history(found)
    assert [row["train/step"] for row in shown] == [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    for row, metric in zip(shown, metrics, strict=True):
        assert {f"train/{key}": value for key, value in metric.items()}.items() <= row.items()

    started = next(record.run for record in found if record.WhichOneof("record_type") == "run")
    assert (started.project, started.display_name, started.run_id) == ("tests", run.name, run.name)
    assert (started.run_group, started.job_type, list(started.tags)) == ("shown", "train", ["small"])
    config = values(started.config.update)
    assert config["training"]["steps"] == STEPS
    assert config["method"]["rank"] == 4
    axes = {record.metric.glob_name: record.metric.step_metric for record in found if record.HasField("metric")}
    assert axes["train/*"] == "train/tokens"

    summary: dict[str, Any] = {}
    for record in found:
        if record.WhichOneof("record_type") == "summary":
            summary |= values(record.summary.update)
    status = json.loads((run / "status.json").read_text())
    assert summary["last_loss"] == status["last_loss"] == metrics[-1]["loss"]
    assert summary["steps"] == STEPS
    score = json.loads((run / "eval" / "kept" / "results.json").read_text())["tasks"]["text"]["value"]
    assert summary["scores"]["kept/text"]["value"] == score


def test_no_key_of_the_environment_is_in_any_file_of_the_run(
    workbench: Callable[..., Outcome], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    run, output = trained(workbench, recipe)
    offline_run(run)
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 15
    for key in KEYS.values():
        assert [path for path in files if key.encode() in path.read_bytes()] == []
        assert key not in output


def test_nothing_is_tracked_unasked(workbench: Callable[..., Outcome], recipe: Path) -> None:
    words = yaml.safe_load(recipe.read_text())
    del words["tracking"]
    recipe.write_text(yaml.safe_dump(words))
    run, output = trained(workbench, recipe)
    assert not (run / "wandb").exists()
    assert "W&B" not in output


def test_a_refusal_by_wandb_itself_is_said_once_and_the_run_goes_on(
    workbench: Callable[..., Outcome], recipe: Path
) -> None:
    """W&B takes no such project name; nothing is faked here."""
    run, output = trained(workbench, recipe, "--set", "tracking.wandb.project=no/such:name")
    assert output.count("W&B failed") == 1
    assert "left out from here on" in output
    assert len((run / "metrics.jsonl").read_text().splitlines()) == STEPS
    assert (run / "log").read_text().count("W&B failed") == 1


class Breaking:
    """A W&B run that works until it is asked for one thing."""

    def __init__(self, real: Any, where: str, error: Exception) -> None:
        self._real, self._where, self._error = real, where, error
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        if name == self._where:
            self.asked += 1
            raise self._error
        return getattr(self._real, name)


@pytest.mark.parametrize("where", ["define_metric", "log", "summary", "finish"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), wandb.Error("the service died")])
def test_a_tracker_that_breaks_never_ends_a_run(
    workbench: Callable[..., Outcome], recipe: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    made: list[Breaking] = []
    start = wandb.init

    def init(**words: Any) -> Breaking:
        made.append(Breaking(start(**words), where, error))
        return made[-1]

    monkeypatch.setattr(wandb, "init", init)
    try:
        run, output = trained(workbench, recipe)
    finally:
        for one in made:
            one._real.finish()
    assert output.count("W&B failed") == 1
    assert type(error).__name__ in output
    assert made[0].asked == 1  # it is not asked again
    assert len((run / "metrics.jsonl").read_text().splitlines()) == STEPS


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
    for name in ("NETRC", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        (tmp_path / ".netrc").write_text(netrc)
        (tmp_path / ".netrc").chmod(0o600)
    assert tracking._has_key() is expected
