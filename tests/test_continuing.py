"""The resume contract: what a run goes on under is held against what it began under."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, write_rows
from gate_runs import Desk
from small_recipes import Workbench, call, questions, train, write_recipe
from test_training import assert_equal_runs

from workbench import files, seals
from workbench.compare import gate
from workbench.compare.facts import run_facts
from workbench.runs.run import Run
from workbench.training import checkpoints


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A recipe over a base and rows of its own, which tests may change."""
    folder = tmp_path_factory.mktemp("continuing")
    shutil.copytree(small_base, folder / "base")
    write_recipe(folder, folder / "base", questions(), training={"checkpoint_every": 2})
    return folder


@pytest.fixture
def whole(workbench: Workbench, room: Path) -> Run:
    return train(workbench, room / "small.yaml", room / "runs")


@pytest.fixture
def stopped(whole: Run, tmp_path: Path) -> Run:
    """The same run as it was after its sixth step of eight."""
    run = Run(tmp_path / "runs" / whole.name)
    shutil.copytree(whole.path, run.path)
    for path in (run.status, run.proof, run.cost, run.training, run.probe):
        path.unlink()
    for folder in (run.adapter, run.checkpoints / "checkpoint-8"):
        shutil.rmtree(folder)
    return run


def began_with(run: Run, **facts: Any) -> None:
    """Other conditions in its checkpoint, sealed again."""
    place = run.checkpoints / "checkpoint-6"
    fresh = checkpoints.aside(run.checkpoints) / place.name
    fresh.parent.mkdir()
    place.rename(fresh)
    (fresh / seals.SEAL).unlink()
    conditions = files.read_json(fresh / "conditions.json")
    named = {name.replace("__", "."): value for name, value in facts.items()}
    checkpoints.finish(run.checkpoints, 6, {"conditions.json": {**conditions, "facts": conditions["facts"] | named}})


def go_on(workbench: Workbench, run: Run, status: int = 0) -> Outcome:
    found = workbench("train", str(run.path))
    assert found.status == status, found.output
    return found


def test_a_checkpoint_holds_the_resolved_recipe_and_its_conditions(whole: Run) -> None:
    kept = whole.checkpoints / "checkpoint-8"
    assert files.read_json(kept / "resolved.json") == files.read_json(whole.resolved_file)
    conditions = files.read_json(kept / "conditions.json")
    assert conditions["continued"] == []
    for field in ("versions.torch", "versions.sources", "machine.threads", "target.devices", "prepared.fingerprint"):
        assert conditions["facts"][field] is not None
    sealed = files.read_json(kept / "sealed.json")["files"]
    assert {"resolved.json", "conditions.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= sealed.keys()
    assert [path.name for path in whole.checkpoints.iterdir()] != [], "and nothing lies aside"
    assert not checkpoints.aside(whole.checkpoints).exists()


def test_a_run_goes_on_by_its_directory_as_it_is(workbench: Workbench, whole: Run, stopped: Run) -> None:
    said = go_on(workbench, stopped).output
    assert "going on from step 6" in said and "other conditions" not in said
    assert_equal_runs(whole, stopped)
    assert "is finished already" in go_on(workbench, stopped).output
    assert files.read_json(stopped.manifest).get("continued", []) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "training.steps=9"], "a run is frozen"),
        ([], "is no run under"),
    ],
)
def test_a_directory_is_gone_on_with_as_it_is_or_not_at_all(
    workbench: Workbench, stopped: Run, words: Sequence[str], told: str
) -> None:
    folder = stopped.path if words else stopped.path.parent
    found = workbench("train", str(folder), *words)
    assert found.status == 2 and told in found.output, found.output


# --- allowed ---------------------------------------------------------------------------------------------------------


def test_what_changes_no_result_is_said_and_not_recorded(workbench: Workbench, whole: Run, stopped: Run) -> None:
    began_with(stopped, machine__cores=640, training__checkpoint_every=77)
    said = go_on(workbench, stopped).output
    assert "machine.cores was 640" in said and "training.checkpoint_every was 77, is 2: allowed" in said
    assert files.read_json(stopped.manifest).get("continued", []) == []
    assert_equal_runs(whole, stopped)


def test_other_micro_batches_are_allowed_on_a_cpu_in_fp32(workbench: Workbench, room: Path, stopped: Run) -> None:
    found = call(workbench, room / "small.yaml", stopped.path.parent, "target.micro_batch_tokens=100")
    assert found.status == 0, found.output
    assert "target.micro_batch_tokens was 8192, is 100: allowed" in found.output


# --- changes the result ----------------------------------------------------------------------------------------------


def test_what_changes_the_result_is_said_and_recorded(workbench: Workbench, stopped: Run) -> None:
    began_with(stopped, versions__torch="1.0", machine__device="a toaster")
    said = go_on(workbench, stopped).output
    assert "versions.torch was 1.0, is " in said and "changes the result, which is recorded" in said
    told = files.read_json(stopped.manifest)["continued"]
    assert [(one["step"], one["field"], one["was"]) for one in told] == [
        (6, "machine.device", "a toaster"),
        (6, "versions.torch", "1.0"),
    ]
    kept = files.read_json(stopped.checkpoints / "checkpoint-8" / "conditions.json")
    assert kept["continued"] == told, "what goes on from here knows it too"


def test_the_gate_shows_a_run_whose_conditions_changed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    one, two = desk.finished(name="one"), desk.finished("method.rank=8", name="two")
    change = {"step": 40, "field": "versions.torch", "was": "2.12", "is": "2.13"}
    manifest = files.read_json(two.manifest)
    files.write_json(two.manifest, manifest | {"continued": [change]})
    arms = {name: [run_facts(run, "sums")] for name, run in (("one", one), ("two", two))}
    (found,) = gate.check(arms, ["method.rank"]).confounds
    assert found.field == "continued.versions.torch"
    assert {arm for arms in found.values.values() for arm in arms} == {"one", "two"}
    assert any(value.startswith("2.12, 2.13 from") for value in found.values)


# --- refused ---------------------------------------------------------------------------------------------------------


def test_other_rows_under_a_checkpoint_are_refused(workbench: Workbench, stopped: Run) -> None:
    began_with(stopped, prepared__fingerprint="0" * 64)
    said = go_on(workbench, stopped, status=2).output
    assert "prepared.fingerprint: changed since the last checkpoint" in said
    assert (stopped.checkpoints / "checkpoint-6").exists()


def test_a_base_or_rows_that_changed_under_a_run_are_refused(workbench: Workbench, room: Path, stopped: Run) -> None:
    rows, config = room / "rows" / "train.jsonl", room / "base" / "config.json"
    before = rows.read_text(), config.read_text()
    try:
        write_rows(rows, questions(12))
        config.write_text(before[1] + "\n")
        said = go_on(workbench, stopped, status=2).output
    finally:
        rows.write_text(before[0])
        config.write_text(before[1])
    assert "changed since the run was made: the base's files, the rows' files" in said
    assert go_on(workbench, stopped).status == 0, "put back, it goes on"
