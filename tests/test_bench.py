"""scripts/bench measures and prints ratios (no figure is asserted: machines are noisy)."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT


def bench(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """What scripts/bench measured in one round."""
    out = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench"), *arguments, "--rounds", "1", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(out.read_text())
    assert all(figure > 0 for cost in found["costs"].values() for figure in (cost["seconds"], cost["peak_bytes"]))
    return found


def make_ledger(folder: Path, *sizes: str) -> list[Path]:
    """The run directories of a synthetic ledger, by name."""
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make-ledger"), str(folder), *sizes], check=True)
    return sorted(folder.iterdir())


def test_startup_is_measured_as_ratios(tmp_path: Path) -> None:
    found = bench(tmp_path, "startup")
    assert {"--help / bare imports", "check / bare imports", "runs / bare imports"} <= found["ratios"].keys()
    assert found["costs"]["check"]["peak_bytes"] > found["costs"]["bare imports"]["peak_bytes"]


def test_listing_and_comparing_a_ledger_is_measured_beside_what_they_import_and_read(tmp_path: Path) -> None:
    found = bench(tmp_path, "ledger", "--runs", "9", "--seeds", "3", "--arms", "2", "--items", "40")
    peaks = {name: cost["peak_bytes"] for name, cost in found["costs"].items()}
    assert peaks["compare"] > peaks["the same, numpy, scipy, matplotlib"] > peaks["bare imports"]
    assert peaks["runs"] > peaks["bare imports"]
    assert {name.split(" / ")[0] for name in found["ratios"]} == {"runs", "compare"}
    assert all(ratio > 1 for name, ratio in found["ratios"].items() if "import" in name)


@pytest.mark.slow
def test_the_workbench_and_a_plain_script_train_on_the_same_tokens_to_the_same_loss(tmp_path: Path) -> None:
    found = bench(tmp_path, "throughput", "--rows", "16", "--batch-size", "8", "--threads", "1")
    plain, ours = found["work"]["plain TRL"], found["work"]["workbench"]
    assert plain["steps"] == ours["steps"] == 2 and plain["rows"] == ours["rows"] == 16
    assert plain["tokens"] == ours["tokens"] > plain["counted_tokens"] == ours["counted_tokens"] > 0
    assert plain["final_loss"] == pytest.approx(ours["final_loss"], rel=0.02)
    assert found["ratios"].keys() == {"plain TRL / workbench"}


def test_a_command_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):  # one arm is compared with nothing
        bench(tmp_path, "ledger", "--runs", "2", "--seeds", "1", "--arms", "0", "--items", "40")


def test_the_same_ledger_is_made_again(tmp_path: Path) -> None:
    one, other = (make_ledger(tmp_path / name, "--runs", "3", "--seeds", "2", "--items", "40") for name in "ab")
    assert [run.name for run in one] == [run.name for run in other]
    for ours, theirs in zip(one, other, strict=True):
        rows = (ours / "eval" / "world" / "items.jsonl").read_text()
        assert rows == (theirs / "eval" / "world" / "items.jsonl").read_text() and rows.count("\n") == 40
    names = [run.name.rsplit("-", 2)[0] for run in one]
    assert names == ["base-embedded", "recipe-0000", "recipe-0000", "recipe-0001"]


@pytest.mark.slow
def test_made_runs_hold_what_a_worker_leaves(workbench: Callable[..., Any], tmp_path: Path) -> None:
    assert workbench("train", "quickstart", "--set", "training.epochs=null", "--set", "training.steps=2").status == 0
    made = make_ledger(tmp_path / "made", "--runs", "1", "--items", "40")
    for mine, name in ((made[0], "base-embedded-*"), (made[1], "quickstart-*")):
        (real,) = (tmp_path / "runs").glob(name)
        for file in sorted(path.relative_to(mine) for path in mine.rglob("*.json*")):
            assert _keys(mine / file) == _keys(real / file), file
        expected = {path.relative_to(real) for path in real.rglob("*.json*") if not _is_result(path.relative_to(real))}
        assert expected <= {path.relative_to(mine) for path in mine.rglob("*.json*")}


def _is_result(path: Path) -> bool:
    return path.parts[0] in ("adapter", "checkpoints")


def _keys(path: Path) -> Any:
    """The keys of a JSON file, or of each kind of row of a JSONL file."""
    if path.suffix == ".json":
        return sorted(json.loads(path.read_text()))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row.get("task"), row.get("event"), *sorted(row)) for row in rows}
