"""Files of a finished run that are not as it left them: said by every verb that shows it or passes it on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from small_recipes import Workbench, questions, train, write_recipe
from test_study import write_suite

from workbench import files
from workbench.runs import soundness
from workbench.runs.run import Run

DOCUMENTS = ("resolved", "identity", "manifest", "cost", "status", "training", "proof", "data", "recipe")
DAMAGES = {
    "empty": b"", "no text": b"\xff\xfe\x00garbage{\n", "cut": b'{"base": {', "a list": b"[1]\n", "nothing": b"null\n",
    "another object": b"{}\n", "deep": b"[" * 3000 + b"]" * 3000,
}  # fmt: skip


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    folder = tmp_path_factory.mktemp("soundness")
    evaluation = {"evaluation": {"suite": "words", "base": False}}
    write_recipe(folder, small_base, questions(), training={"steps": 3}, **evaluation)
    write_suite(folder)
    return folder


@pytest.fixture
def run(room: Path, tmp_path: Path, workbench: Workbench) -> Run:
    """A finished run that a test may damage."""
    if not (room / "runs").exists():
        train(workbench, room / "small.yaml", room / "runs")
    (path,) = (room / "runs").glob("small-*")
    shutil.copytree(path, tmp_path / "runs" / path.name)
    return Run(tmp_path / "runs" / path.name)


def document(run: Run, name: str) -> Path:
    return run.path / f"{name}.{'yaml' if name == 'recipe' else 'json'}"


def test_a_run_as_it_ended_is_sound(run: Run) -> None:
    assert soundness.problems(run) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_damaged_document_is_named(name: str, damage: str, run: Run) -> None:
    path = document(run, name)
    path.write_bytes(DAMAGES[damage])
    found = soundness.problems(run)
    assert any(path.name in problem.where for problem in found) and all(problem.do for problem in found)


@pytest.mark.parametrize("gone", [*DOCUMENTS, "probe", "metrics", "adapter", "weights", "items", "results"])
def test_what_is_not_there_is_named(gone: str, run: Run) -> None:
    others = {
        "probe": run.probe, "metrics": run.metrics, "adapter": run.adapter, "items": run.items("words"),
        "weights": run.adapter / "adapter_model.safetensors", "results": run.results("words"),
    }  # fmt: skip
    path = others.get(gone) or document(run, gone)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert any(path.name in problem.where for problem in soundness.problems(run))


def test_a_history_that_lost_its_end_is_named(run: Run) -> None:
    run.metrics.write_bytes(run.metrics.read_bytes().splitlines(keepends=True)[0])
    (problem,) = soundness.problems(run)
    assert problem.where == str(run.metrics) and "1 of 3 steps" in problem.found


def test_items_that_lost_their_end_are_named(run: Run) -> None:
    path = run.items("words")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (problem,) = soundness.problems(run)
    assert problem.where == str(path) and "is damaged: it holds" in problem.found


def test_a_score_that_somebody_wrote_is_named(run: Run) -> None:
    results = files.read_json(run.results("words"))
    next(iter(results["tasks"].values()))["value"] = 0.123
    files.write_json(run.results("words"), results)
    (problem,) = soundness.problems(run)
    assert problem.where == str(run.results("words")) and "0.123" in problem.found


def test_weights_that_were_touched_are_named(run: Run) -> None:
    path = run.adapter / "adapter_model.safetensors"
    weights = {name: values * 1.000001 for name, values in load_file(path).items()}
    save_file(weights, path)
    (problem,) = soundness.problems(run)
    assert problem.where == str(path) and "is not what was proved" in problem.found


def test_another_identity_is_named(run: Run) -> None:
    identity = files.read_json(run.identity_file)
    files.write_json(run.identity_file, identity | {"seed": 77})
    (problem,) = soundness.problems(run)
    assert problem.where == str(run.identity_file)


@pytest.mark.parametrize("verb", ["publish", "pack", "reproduce", "export"])
def test_every_verb_says_all_of_it_and_starts_nothing(verb: str, run: Run, workbench: Workbench) -> None:
    run.cost.write_text("[1]")
    run.metrics.write_text(json.dumps({"step": 1}) + "\n")
    (run.adapter / "adapter_model.safetensors").write_bytes(b"")
    before = sorted(run.path.parent.rglob("*"))
    outcome = workbench(verb, run.name, "--runs", str(run.path.parent))
    assert outcome.status == 2 and "Traceback" not in outcome.output
    for name in ("cost.json", "metrics.jsonl", "adapter_model.safetensors"):
        assert name in outcome.output, outcome.output
    assert sorted(run.path.parent.rglob("*")) == before
