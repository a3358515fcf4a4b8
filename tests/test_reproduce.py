"""`workbench reproduce`: a finished run is trained again from its directory alone, or refused with all that is missing;
equal bytes on a CPU, the same numbers, and status 3 where they lie elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome
from gate_runs import edit
from small_recipes import Workbench, questions, train, write_recipe
from test_study import write_suite

from workbench import files, fingerprint
from workbench.runs import ledger, lock
from workbench.runs.run import Run, without_measured


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A recipe with a suite, on a base of its own, a template of its own, and no threads said."""
    folder = tmp_path_factory.mktemp("reproduce")
    shutil.copytree(small_base, folder / "base")
    shutil.copy(folder / "base" / "chat_template.jinja", folder / "brief.jinja")
    more: dict[str, Any] = {"evaluation": {"suite": "words"}, "target": {"name": "cpu"}}
    data = {"name": "rows", "template": "./brief.jinja"}
    write_recipe(folder, Path("./base"), questions(), training={"steps": 3}, data=data, **more)
    recipe = yaml.safe_load((folder / "small.yaml").read_text())
    recipe["base"]["name"] = "./base"
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe))
    write_suite(folder)
    return folder


@pytest.fixture
def place(room: Path, tmp_path: Path, workbench: Workbench) -> Path:
    """A folder of its own with the recipe and its finished run, which every test may change."""
    if not (room / "runs").exists():
        train(workbench, room / "small.yaml", room / "runs", "target.threads=1")
    shutil.copytree(room, tmp_path, dirs_exist_ok=True)
    return tmp_path


def original(place: Path) -> Run:
    """The run as it would have been trained here."""
    (path,) = (place / "runs").glob("small-*-s0")
    run = Run(path)
    old = str(files.read_json(run.resolved_file)["base"]["location"]).removesuffix("/base")
    for path in (place / "runs").glob("*/resolved.json"):
        path.write_text(path.read_text().replace(old, str(place)))
    return run


def again(place: Path) -> Run:
    """Its reproduction."""
    (path,) = (place / "runs").glob("small-*-s0-r1")
    return Run(path)


def go(workbench: Workbench, run: Run, expected: int = 0, *more: str) -> Outcome:
    outcome = workbench("reproduce", str(run.path), *more)
    assert outcome.status == expected, outcome.output
    assert "Traceback" not in outcome.output
    return outcome


def starts(run: Run) -> int:
    return sum(row["event"] == "start" for row in files.read_jsonl(run.attempts))


def test_a_run_comes_out_the_same_and_all_of_it_is_written_down(place: Path, workbench: Workbench) -> None:
    run = original(place)
    said = go(workbench, run).output
    copy = again(place)
    found = files.read_json(copy.reproduction)
    assert found["inside"] and [task["id"] for task in found["tasks"]] == ["answers", "texts"]
    for task in found["tasks"]:
        assert task["inside"] and task["reproduced"] == task["original"]["value"]
        assert task["difference"]["value"] == 0.0
        assert task["difference"]["low"] <= 0 <= task["difference"]["high"]
    assert found["adapters"]["equal"] and found["adapters"]["expected"] and found["adapters"]["because"] == []
    weights = fingerprint.of_file(run.adapter / "adapter_model.safetensors")
    assert found["adapters"]["sha256"] == {"adapter_model.safetensors": weights}
    assert found["last_loss"]["original"] == found["last_loss"]["reproduction"]
    assert found["cost"]["device_seconds"]["original"] != found["cost"]["device_seconds"]["reproduction"]
    assert found["original"]["run"] == run.name and found["reproduction"]["run"] == copy.name
    for words in ("bit-equal, as expected", "inside", "reproduced", "device seconds"):
        assert words in said
    assert str(place) not in copy.reproduction.read_text()


def test_the_run_itself_is_not_touched_and_threads_are_those_it_had(place: Path, workbench: Workbench) -> None:
    run = original(place)
    edit(run.resolved_file, "recipe", "tracking", to={"wandb": {"project": "somebody's"}})
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    go(workbench, run)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    recipe = again(place).resolved().recipe
    assert recipe.target.threads == files.read_json(run.manifest)["hardware"]["threads"]
    assert recipe.tracking.wandb is None and recipe.repeat == 1


def test_the_same_command_again_gives_the_verdict_and_trains_nothing(place: Path, workbench: Workbench) -> None:
    run = original(place)
    go(workbench, run)
    copy = again(place)
    before = starts(copy), copy.reproduction.read_bytes()
    go(workbench, run)
    assert (starts(copy), copy.reproduction.read_bytes()) == before
    assert len(list((place / "runs").glob("small-*"))) == 2


@pytest.mark.slow
def test_a_stopped_one_goes_on_and_other_repeats_are_left_alone(place: Path, workbench: Workbench) -> None:
    run = original(place)
    arm = train(workbench, place / "small.yaml", place / "runs", "target.threads=1", "repeat=1")
    go(workbench, run)
    (path,) = (place / "runs").glob("small-*-s0-r2")
    copy = Run(path)
    before = {path.name: path.read_bytes() for path in copy.adapter.iterdir()}
    shutil.rmtree(copy.adapter)
    for file in (copy.proof, copy.status, copy.reproduction):
        file.unlink()
    go(workbench, run)
    assert starts(copy) == 2 and starts(arm) == 1 and not arm.reproduction.exists()
    assert {path.name: path.read_bytes() for path in copy.adapter.iterdir()} == before


def test_a_task_outside_its_interval_is_told_with_status_3(place: Path, workbench: Workbench) -> None:
    run = original(place)
    for key, value in (("value", 9.0), ("low", 8.5), ("high", 9.5)):
        edit(run.results("words"), "tasks", "texts", key, to=value)
        edit(run.status, "scores", "words/texts", key, to=value)
    said = go(workbench, run, 3).output
    found = files.read_json(again(place).reproduction)
    assert not found["inside"] and [task["inside"] for task in found["tasks"]] == [True, False]
    assert "outside" in said and "not reproduced" in said


def test_other_versions_and_machines_are_said_and_not_refused(place: Path, workbench: Workbench) -> None:
    run = original(place)
    edit(run.manifest, "versions", "torch", to="1.0")
    edit(run.manifest, "hardware", "machine", to="sparc")
    said = go(workbench, run).output
    found = files.read_json(again(place).reproduction)
    assert set(found["differing"]) == {"torch", "machine"} and found["differing"]["torch"][0] == "1.0"
    assert found["adapters"]["equal"] and not found["adapters"]["expected"]
    assert "torch: the run was made with 1.0" in said and "more than was expected" in said


def test_all_that_is_missing_or_changed_is_told_at_once_and_nothing_starts(place: Path, workbench: Workbench) -> None:
    run = original(place)
    (place / "base" / "config.json").write_text((place / "base" / "config.json").read_text() + "\n")
    (place / "rows" / "train.jsonl").unlink()
    (place / "brief.jinja").write_text("{{ messages }}")
    (place / "rows" / "texts.jsonl").write_text('{"text": "another one"}\n')
    said = go(workbench, run, 2).output
    for words in ("the base's files", "no file matches '../rows/train.jsonl'", "the template's file", "other items"):
        assert words in said, words
    assert not list((place / "runs").glob("*-r1"))


def test_a_run_that_is_not_finished_is_refused(place: Path, workbench: Workbench) -> None:
    run = original(place)
    run.status.unlink()
    assert "is not finished" in go(workbench, run, 2).output


def test_a_base_as_it_is_is_scored_again_and_stays_the_base_of_others(place: Path, workbench: Workbench) -> None:
    (path,) = (place / "runs").glob("base-*")
    run = original(place)
    said = go(workbench, Run(path)).output
    (copy,) = (place / "runs").glob("base-*-r1")
    found = files.read_json(Run(copy).reproduction)
    assert found["inside"] and found["adapters"] is None and "adapters" not in said
    base = ledger.base_of(run)
    assert base is not None and base.path == path


@pytest.mark.slow
def test_without_a_suite_the_bytes_decide(place: Path, workbench: Workbench) -> None:
    original(place)
    run = train(workbench, place / "small.yaml", place / "runs", "target.threads=1", "seed=4", "evaluation.suite=")
    go(workbench, run)
    (copy,) = (place / "runs").glob("small-*-s4-r1")
    weights = Run(copy).adapter / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "is not what was proved" in go(workbench, run, 2).output
    edit(Run(copy).proof, "files", weights.name, to=fingerprint.of_file(weights))  # as if it had come out so
    said = go(workbench, run, 3).output
    assert not files.read_json(Run(copy).reproduction)["inside"]
    assert "no interval" in said and "although nothing that is recorded differs" in said


def test_a_run_from_elsewhere_is_copied_beside_the_others_here(place: Path, workbench: Workbench) -> None:
    run = original(place)
    elsewhere = shutil.copytree(run.path, place / "elsewhere" / run.name)
    shutil.rmtree(place / "runs")
    go(workbench, Run(elsewhere), 0, "--runs", "mine")
    names = sorted(path.name for path in (place / "mine").iterdir())
    assert [name.split("-")[0] for name in names] == ["base", "small"] and names[1].endswith("-s0-r1")
    made, was = (files.read_json(Run(path).status) for path in (place / "mine" / names[1], elsewhere))
    assert without_measured(made) == without_measured(was)


def test_one_that_is_being_worked_on_is_left_to_its_process(place: Path, workbench: Workbench) -> None:
    run = original(place)
    go(workbench, run)
    copy = again(place)
    copy.status.unlink()
    with lock.held(copy):
        assert "is being worked on by" in go(workbench, run, 2).output
