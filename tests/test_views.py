"""A study in W&B: its runs under their arms, its verdict as tables, and views that refer to keys which are there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, write_rows
from small_recipes import questions, write_recipe
from test_study import write_suite
from wandb_files import Offline, offline_run

pytestmark = pytest.mark.slow
workspaces = pytest.importorskip("wandb_workspaces.workspaces", reason="the extra `views` is not installed")

ARMS: dict[str, Any] = {
    "base": {"recipe": "small.yaml", "set": {"method": "none"}},
    "lora": "small.yaml",
    "scratch-1": {"recipe": "small.yaml", "set": {"method": "full", "base.init": "random", "data.fraction": 0.5}},
    "scratch-2": {"recipe": "small.yaml", "set": {"method": "full", "base.init": "random"}},
}


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process and a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A folder with a study of four arms that has its verdict, and has been published."""
    folder = tmp_path_factory.mktemp("weighing")
    write_recipe(folder, small_base, questions(24), training={"steps": 4})
    write_suite(folder)
    write_rows(folder / "rows" / "texts.jsonl", [{"text": f"the cat sat on the mat number {at}"} for at in range(6)])
    study = {
        "question": "Is an adapter better than <the base> & than starting from scratch?",
        "suite": "words", "seeds": [0, 1], "reference": "base", "ladder": ["scratch-1", "scratch-2"],
        "vary": ["method", "base.init", "data.fraction", "training.learning_rate"], "arms": ARMS,
    }  # fmt: skip
    (folder / "weigh.yaml").write_text(yaml.safe_dump(study))
    done = call(folder, "study", "weigh.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = call(folder, "publish", "weigh.yaml", "--set", "tracking.wandb.mode=offline")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "7 runs and the verdict" in shown.stdout
    return folder


def verdict(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "runs" / "studies" / "weigh" / "verdict.json").read_text()))


def shown(folder: Path) -> dict[str, Offline]:
    """Run -> what W&B would be sent of it."""
    runs = [run for arm in verdict(folder)["arms"] for run in arm["runs"]]
    return {run: offline_run(folder / "runs" / run) for run in runs}


@pytest.fixture(scope="module")
def specification(judged: Path) -> dict[str, Any]:
    """What `publish --dry-run` writes down."""
    (judged / "runs" / "studies" / "weigh" / "wandb-views.json").unlink()
    done = call(judged, "publish", "weigh.yaml", "--dry-run", "--set", "tracking.wandb.project=ours")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wandb-views.json" in done.stdout
    return dict(json.loads((judged / "runs" / "studies" / "weigh" / "wandb-views.json").read_text()))


def test_every_run_stands_under_its_arm_and_study(judged: Path) -> None:
    arms = {run: arm["name"] for arm in verdict(judged)["arms"] for run in arm["runs"]}
    found = shown(judged)
    assert len(found) == 7
    for run, one in found.items():
        assert (one.config["run/arm"], one.started.run_group, one.config["run/study"]) == (
            arms[run],
            arms[run],
            "weigh",
        )
        assert {"weigh", "words"} <= set(one.started.tags)
    assert {one.started.job_type for one in found.values()} == {"train", "evaluate"}
    assert len({one.config["run/comparability"] for one in found.values()}) == 1
    scratch = [one for run, one in found.items() if arms[run].startswith("scratch")]
    assert all("from-scratch" in one.started.tags for one in scratch)


def test_any_two_runs_have_the_same_scores_and_axes_under_the_same_keys(judged: Path) -> None:
    found = list(shown(judged).values())
    scores = [{key for key in one.summary if key.startswith(("task/", "heldout/"))} for one in found]
    assert scores[0]
    assert all(keys == scores[0] for keys in scores)
    last = [one.history[-1] for one in found]
    assert all({"train/examples", "train/tokens", "train/flops", "train/seconds"} <= row.keys() for row in last)
    base = next(one for one in found if one.started.job_type == "evaluate")
    assert base.history[-1]["train/flops"] == 0


def test_the_study_is_a_run_with_its_verdict_as_tables_and_its_report_as_files(judged: Path) -> None:
    one = offline_run(judged / "runs" / "studies" / "weigh")
    told = verdict(judged)
    assert (one.started.job_type, one.started.run_id) == ("compare", "study-weigh")
    assert one.summary["study/sentence"] == told["sentence"]
    assert [row[0] for row in one.table("arms")["data"]] == list(ARMS)
    contrasts = one.table("contrasts")
    words = {(row[0], row[1], row[2]): row[3] for row in contrasts["data"]}
    assert words == {(each["task"], each["arm"], each["against"]): each["word"] for each in told["contrasts"]}
    assert one.table("ladder")["data"][0][:2] == ["scratch-1", "from scratch"]
    assert one.table("disagreements")["data"]
    (report,) = [each for each in one.artifacts.values() if each.type == "report"]
    assert {entry.path for entry in report.manifest.contents} == {"report.html", "verdict.json", "evidence.json"}


def test_a_study_published_twice_is_the_same(judged: Path, tmp_path: Path) -> None:
    def told(folder: Path) -> Any:
        both = [*shown(folder).values(), offline_run(folder / "runs" / "studies" / "weigh")]
        return [[{k: v for k, v in row.items() if k[0] != "_"} for row in one.history] for one in both]

    before = told(judged)
    shutil.copytree(judged, tmp_path / "again")
    done = call(tmp_path / "again", "publish", "weigh.yaml", "--set", "tracking.wandb.mode=offline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(tmp_path / "again") == before


# --- the views -------------------------------------------------------------------------------------------------------


def strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def panels(specification: dict[str, Any]) -> list[dict[str, Any]]:
    """The workspace's panels."""
    sections = specification["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def test_the_view_is_what_the_library_itself_reads(specification: dict[str, Any]) -> None:
    from wandb_workspaces.workspaces import internal

    text = json.dumps(specification["workspace"])
    view = internal.View.model_validate_json(text)
    assert json.loads(view.model_dump_json(by_alias=True)) == specification["workspace"]
    back = workspaces.Workspace._from_model(view)
    assert (back.project, back.name) == ("ours", "workbench: weigh")
    assert [section.name for section in back.sections] == [
        "Verdict", "Scores", "Quality against cost", "Learning curves", "What was varied", "Training from scratch",
        "Items the arms disagree on",
    ]  # fmt: skip


def test_the_views_refer_only_to_keys_that_the_runs_have(judged: Path, specification: dict[str, Any]) -> None:
    found = shown(judged).values()
    history = {key for one in found for row in one.history for key in row}
    summary = {key for one in found for key in one.summary}
    config = {key for one in found for key in one.config}
    tables = {key for key in offline_run(judged / "runs" / "studies" / "weigh").summary if "/" not in key}
    seen: set[str] = set()
    for panel in panels(specification):
        settings = panel["config"]
        match panel["viewType"]:
            case "Run History Line Plot":
                named = {settings["xAxis"], *settings["metrics"]}
                assert named <= history, named - history
                seen |= named
            case "Bar Chart":
                assert set(settings["metrics"]) <= summary
                seen |= set(settings["metrics"])
            case "Scatter Plot":
                named = {settings[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis")}
                assert named <= summary, named - summary
                seen |= named
            case "Parallel Coordinates Plot":
                for column in settings["columns"]:
                    section, _, name = column["accessor"].partition(":")
                    assert name.removesuffix(".value") in (config if section == "c" or section == "config" else summary)
                    seen.add(name)
            case "Markdown Panel":
                assert verdict(judged)["sentence"] in settings["value"]
            case "Weave":
                assert tables & set(strings(settings)), settings
            case other:
                raise AssertionError(other)
    assert {"train/loss", "train/examples", "train/flops", "cost/training_flops", "train/text_bytes"} <= seen
    assert {key for key in seen if key.startswith("task/")}
    assert {key for key in seen if key.startswith("heldout/")}


def test_the_runs_of_the_view_are_the_studys_grouped_by_arm(specification: dict[str, Any]) -> None:
    (run_set,) = specification["workspace"]["spec"]["section"]["runSets"]
    assert "weigh" in set(strings(run_set["filters"]))
    assert any("run/study" in text for text in strings(run_set["filters"]))
    assert any("run/arm" in text for text in strings(run_set["grouping"]))


def test_the_report_holds_the_same_questions(judged: Path, specification: dict[str, Any]) -> None:
    report = specification["report"]
    assert report["run_sets"] == {arm["name"]: arm["runs"] for arm in verdict(judged)["arms"]}
    assert [len(block["panels"]) for block in report["blocks"]] == [
        len(section["panels"])
        for section in specification["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    ]


def test_a_study_without_a_verdict_is_not_published(judged: Path, tmp_path: Path) -> None:
    shutil.copytree(judged, tmp_path / "unjudged")
    (tmp_path / "unjudged" / "runs" / "studies" / "weigh" / "verdict.json").unlink()
    done = call(tmp_path / "unjudged", "publish", "weigh.yaml")
    assert done.returncode == 2
    assert "has no verdict yet" in done.stderr
    assert "workbench study weigh.yaml" in done.stderr
