"""scripts/gpu_check: the whole of it at small shapes on a CPU, and what it does where something is missing or fails."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import ROOT
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from workbench.catalog.bases import bases
from workbench.plan.prediction import GIB, predict

FAILING = "small-qwen3/lora/4x1"
"""A row of one token has no next one to predict."""
HUGE = "small-qwen3/lora/1x1000000000000000"
"""Eight petabytes of token ids."""


def check(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script.

    Args:
        path: a folder that Python looks into first.
    """
    paths = [str(one) for one in (path, os.environ.get("PYTHONPATH")) if one]
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gpu_check"), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The small walk with two combinations that cannot be done."""
    out = tmp_path_factory.mktemp("check") / "found.json"
    done = check("--device", "cpu", "--small", "--json", str(out), "--add", FAILING, "--add", HUGE)
    assert out.exists(), done.stderr
    return done, json.loads(out.read_text())


@pytest.fixture(scope="module")
def combinations() -> ModuleType:
    """The script's list of what it trains."""
    sys.path.insert(0, str(ROOT / "scripts"))
    return importlib.import_module("gpu_checks.combinations")


@pytest.mark.slow
def test_the_planner_is_held_against_real_steps(walked: Any, combinations: ModuleType) -> None:
    done, found = walked
    taken = {one["name"]: one for one in found["combinations"] if one["state"] == "measured"}
    assert taken.keys() == set(combinations.names(combinations.SMALL)), done.stdout
    for one in taken.values():
        planned, seen = one["predicted"]["allocated_bytes"], one["measured"]["allocated_bytes"]
        assert one["memory_error"] == pytest.approx(planned / seen - 1)
        assert one["memory_holds"] and one["trained_parameters_agree"] and one["verdict_agrees"]
        assert one["tokens_per_second"] == pytest.approx(sum(one["row_lengths"]) / one["measured"]["seconds"])
        first, second = one["measured"]["first_losses"]
        assert second < first
        rate = one["model_flops"] / one["measured"]["seconds"]
        assert one["utilisation"]["of_measured_product"] == pytest.approx(rate / found["ceilings_flops"]["bf16"])
    assert {one["head"] for one in taken.values()} == {"fused", "logits"}
    summary = found["summary"]
    assert summary["memory_within_10_percent"] == len(taken)
    assert summary["memory_median_error"] < 0.05
    assert found["machine"]["versions"]["torch"] == torch.__version__


@pytest.mark.slow
def test_losses_are_those_of_two_real_trainings(walked: Any) -> None:
    _, found = walked
    losses = {(one["base"], one["precision"]): one for one in found["losses"]}
    assert losses.keys() == {(base, precision) for base in ("qwen3", "llama") for precision in ("fp32", "bf16")}
    for one in losses.values():
        apart = [abs(ours - theirs) for ours, theirs in zip(one["losses"], one["cpu_losses"], strict=True)]
        assert one["largest_difference"] == max(apart) <= one["limit"]
        assert one["losses"] == sorted(one["losses"], reverse=True) and one["losses"][0] - one["losses"][-1] > 1
    for base in ("qwen3", "llama"):  # neither is a copy of the other
        assert losses[base, "bf16"]["losses"] != losses[base, "fp32"]["losses"]
        assert losses[base, "bf16"]["largest_difference"] > 0
    assert found["nf4"]["holds"] and 0.05 < found["nf4"]["relative_error"] < 0.15


@pytest.mark.slow
def test_a_combination_that_fails_is_recorded_and_the_others_are_taken(walked: Any) -> None:
    done, found = walked
    by_name = {one["name"]: one for one in found["combinations"]}
    assert by_name[FAILING]["state"] == "failed" and "FloatingPointError: the losses are" in by_name[FAILING]["reason"]
    assert by_name[HUGE]["state"] == "out of memory"
    assert by_name[HUGE]["predicted"]["verdict"] == "does not fit" and by_name[HUGE]["verdict_agrees"]
    assert done.returncode == 1 and "does not hold: nothing_failed" in done.stdout
    assert [name for name, holds in found["summary"]["checks"].items() if not holds] == ["nothing_failed"]


@pytest.mark.slow
def test_what_is_missing_and_what_there_is_no_time_for_is_skipped_with_its_reason(tmp_path: Path) -> None:
    hidden = "import sys\nfor name in ('trl', 'bitsandbytes', 'datasets'):\n    sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    out = tmp_path / "found.json"
    done = check("--device", "cpu", "--small", "--minutes", "0", "--json", str(out), path=tmp_path)
    found = json.loads(out.read_text())
    assert found["missing"].keys() == {"trl", "bitsandbytes"}
    assert found["nf4"]["state"] == "skipped" and "bitsandbytes" in found["nf4"]["reason"]
    assert all(one["holds"] for one in found["losses"])
    assert {one["state"] for one in found["combinations"]} == {"skipped"}
    for one in found["combinations"]:
        expected = "bitsandbytes" if one["method"] == "qlora" else "trl" if "+logits" in one["name"] else "time: "
        assert expected in one["reason"]
        assert one["head"] == "logits"
    assert done.returncode == 1 and "does not hold: something_measured" in done.stdout


@pytest.mark.slow
def test_without_a_gpu_it_says_so() -> None:
    done = check()
    assert done.returncode == 2
    assert "torch sees no GPU here" in done.stderr


def test_names_are_read_as_they_are_written(combinations: ModuleType) -> None:
    every = combinations.names(combinations.TELLING) + combinations.names(combinations.SMALL)
    assert len(set(every)) == len(every)
    assert [combinations.parse(name).name for name in every] == every
    for wrong in ("qwen3-0.6b/lora", "qwen3-0.6b/lora/0x5", "no-such/lora/1x5", "qwen3-0.6b/pissa/1x5"):
        with pytest.raises(ValueError, match=wrong):
            combinations.parse(wrong)


def test_bases_are_built_at_their_true_shapes(combinations: ModuleType) -> None:
    for name in {combinations.parse(name).base for name in combinations.names(combinations.TELLING)}:
        fields = combinations.config_fields(bases()[name])
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[fields["model_type"]](**fields))
        assert model.num_parameters() == bases()[name].parameters, name


@pytest.mark.parametrize(
    ("device", "gib", "row", "tflops"),
    [
        ("NVIDIA H200", 139.8, "h200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-80gb", 312.0),
        ("NVIDIA A100-PCIE-40GB", 39.4, "a100-40gb", 312.0),
        ("NVIDIA GeForce RTX 4060 Ti", 15.6, "rtx-4060-ti-16gb", 44.1),
        ("NVIDIA GeForce RTX 4060", 7.6, "rtx-4060-8gb", 30.2),
        ("Some Other Card", 16.0, "Some Other Card", 5.0),
    ],
)
def test_a_device_is_found_in_the_catalog(
    combinations: ModuleType, device: str, gib: float, row: str, tflops: float
) -> None:
    target = combinations.target_of(device, "cuda", gib * GIB, 5.0)
    assert (target.name, target.device.peak_tflops) == (row, tflops)


def test_the_whole_list_fits_one_h200_in_the_default_time_but_for_the_last(combinations: ModuleType) -> None:
    target = combinations.target_of("NVIDIA H200", "cuda", 139.8 * GIB, 790.0)
    jobs = [
        combinations.job_of(combinations.parse(name), "logits", on_cpu=False)
        for name in combinations.names(combinations.TELLING)
    ]
    *others, last = [predict(job, target) for job in jobs]
    assert {one.verdict for one in others} == {"fits"} and last.verdict == "does not fit"
    assert sum(8 * one.seconds.high for one in others if one.seconds) < 8 * 60
