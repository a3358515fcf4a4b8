"""Before the first step the worst batch is taken: the result does not change, and what does not fit is said at once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_recipes import Workbench, call, preferences, questions, train, write_recipe

from workbench import files
from workbench.data.batches import heaviest
from workbench.plan.cutting import cut_by_tokens
from workbench.runs.run import Run, without_measured

SUITE = {
    "tasks": [
        {"name": "generate", "id": "says", "data": "rows", "split": "train", "max_new_tokens": 4},
        {"name": "choice", "id": "chooses", "data": "rows", "split": "train", "max_items": 5},
    ]
}


def with_method(recipe: Path, method: dict[str, Any]) -> Path:
    """The recipe with another method, nothing of the first one left."""
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"method": method}))
    return recipe


def suite_in(folder: Path) -> None:
    (folder / "suites").mkdir()
    (folder / "suites" / "asked.yaml").write_text(yaml.safe_dump(SUITE))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- nothing of the result changes -----------------------------------------------------------------------------------

METHODS = {
    "lora": {"name": "lora", "rank": 4, "dropout": 0.2},
    "full": {"name": "full"},
    "dpo": {"name": "lora", "rank": 4, "dropout": 0.2},
    "8-bit": {"name": "lora", "rank": 128, "dropout": 0.2},
}


@pytest.mark.parametrize("label", METHODS)
def test_a_run_is_bit_for_bit_the_same_with_and_without(
    workbench: Workbench, tmp_path: Path, small_base: Path, label: str
) -> None:
    pairs = label == "dpo"
    suite_in(tmp_path)
    recipe = write_recipe(
        tmp_path,
        small_base,
        preferences() if pairs else questions(),
        "preference" if pairs else "prompt_completion",
        objective={"name": "dpo" if pairs else "sft"},
        data={"contamination": "allow"},
        training={"checkpoint_every": 4, "weight_decay": 0.1}
        | ({"optimizer": "adamw_8bit"} if label == "8-bit" else {}),
        evaluation={} if pairs else {"suite": "asked"},
    )
    with_method(recipe, METHODS[label])
    with_it = train(workbench, recipe, tmp_path / "with")
    without = train(workbench, recipe, tmp_path / "without", "training.preflight=false")
    assert with_it.name == without.name
    assert with_it.preflight.exists() and not without.preflight.exists()
    for one in ("adapter", "checkpoints"):
        ours, theirs = digests(with_it.path / one), digests(without.path / one)
        # they name the folder that they lie in, or say whether there was a pre-flight
        telling = ("training_args.bin", "sealed.json", "resolved.json", "conditions.json")
        assert {n: d for n, d in ours.items() if not n.endswith(telling)} == {
            n: d for n, d in theirs.items() if not n.endswith(telling)
        }
    assert with_it.probe.read_bytes() == without.probe.read_bytes()
    for path in ("metrics.jsonl", *([] if pairs else ["eval/asked/items.jsonl"])):
        rows = [[without_measured(row) for row in files.read_jsonl(run.path / path)] for run in (with_it, without)]
        assert rows[0] == rows[1] and rows[0]


def test_it_is_taken_before_the_first_step_only(workbench: Workbench, tmp_path: Path, small_base: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(), training={"checkpoint_every": 4})
    run = train(workbench, recipe, tmp_path / "runs")
    assert "pre-flight" in run.log.read_text()
    for path in (run.preflight, run.status, run.training, run.proof):
        path.unlink()
    for path in run.adapter.iterdir():
        path.unlink()
    run.adapter.rmdir()
    train(workbench, recipe, tmp_path / "runs")
    assert not run.preflight.exists(), "a run that goes on has met its batches already"


# --- the heaviest batches --------------------------------------------------------------------------------------------


def test_the_heaviest_batches_are_those_that_the_cutting_can_give() -> None:
    lengths = [5000, 3000, 2000, 2000, 2000, 2000, 10]
    longest, fullest = heaviest(lengths, 8192, 16)
    assert longest == [0]
    assert [lengths[at] for at in fullest] == [2000] * 4
    for group in (longest, fullest):
        assert len(cut_by_tokens([lengths[at] for at in group], 8192)) == 1
    assert heaviest([7, 7, 7], 100, 2) == [[0, 1]]
    assert heaviest([9000], 8192, 2) == [[0]], "a longer row stands alone"


def test_what_was_tried_is_recorded(workbench: Workbench, tmp_path: Path, small_base: Path) -> None:
    run = train(workbench, write_recipe(tmp_path, small_base, questions()), tmp_path / "runs")
    longest = files.read_json(run.data)["longest_tokens"]
    found = files.read_json(run.preflight)
    assert found["longest_tokens"] == longest
    assert longest <= found["padded_tokens"] <= 4 * longest
    assert found["preflight_peak_memory_bytes"] > 0


# --- memory ----------------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
import workbench.worker.stages
from workbench.worker.__main__ import main
size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
limit = size * 1024 + int(sys.argv.pop()) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rows_too_long_for_the_memory_are_refused_before_the_first_step(
    workbench: Workbench, tmp_path: Path, small_base: Path
) -> None:
    """64 short rows, 64 long ones: the order puts most long ones late, and the pre-flight meets them side by side."""
    rows = questions(64) + [
        {"prompt": "the cat and the dog " * 80 + f"number {at}", "completion": "on the mat"} for at in range(64)
    ]
    recipe = write_recipe(
        tmp_path,
        small_base,
        rows,
        training={"batch_size": 64},
        target={"attention": "eager", "micro_batch_tokens": 65536},
    )
    # the run is opened by the command, and stopped by a worker that may not begin
    assert call(workbench, recipe, tmp_path / "runs", "data.max_length=16").status == 2
    run = Run(next((tmp_path / "runs").glob("small-*")))
    values = files.read_json(run.resolved_file)
    values["recipe"]["data"]["max_length"] = None
    files.write_json(run.resolved_file, values)
    known = files.read_json(run.identity_file)
    del known["data"]["max_length"]
    files.write_json(run.identity_file, known)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(run.path), "600"], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert "pre-flight: memory ran out in the forward pass" in said
    assert "were asked for" in said and "GiB of this machine are free" in said
    assert "target.micro_batch_tokens (it is 65536" in said
    assert not run.metrics.exists() and not run.preflight.exists()
    resumed = subprocess.run(
        [sys.executable, "-c", LIMITED, str(run.path), "6000"], capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """A base that runs out of memory above so many tokens, in the pass that is asked for."""
    from workbench import bases

    limits = {"forward": 10**9, "backward": 10**9, "after_steps": 0, "seen": 0}
    load = bases.load_model

    def ran_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1")

    def look(module: Any, inputs: Any, output: torch.Tensor) -> None:
        limits["seen"] += module.training
        if module.training and limits["seen"] <= limits["after_steps"]:
            return
        if output[..., 0].numel() > limits["forward"]:
            ran_out()
        if output[..., 0].numel() > limits["backward"] and output.requires_grad:
            output.register_hook(ran_out)

    def loaded(loading: Any) -> Any:
        model = load(loading)
        model.model.layers[-1].mlp.register_forward_hook(look)
        return model

    monkeypatch.setattr(bases, "load_model", loaded)
    yield limits


def one_message(workbench: Workbench, recipe: Path, root: Path, *words: str) -> Run:
    outcome = call(workbench, recipe, root)
    said = " ".join(outcome.output.split())
    assert outcome.status == 2 and "Traceback" not in said, outcome.output
    for word in words:
        assert word in said, outcome.output
    return Run(next(path for path in root.glob("small-*")))


def test_the_backward_pass_is_named(
    workbench: Workbench, tmp_path: Path, small_base: Path, small_memory: dict[str, int]
) -> None:
    small_memory["backward"] = 60
    recipe = write_recipe(tmp_path, small_base, questions())
    words = ("pre-flight: memory ran out in the backward pass: 2.00 GiB were asked for", "gradient_checkpointing")
    run = one_message(workbench, recipe, tmp_path / "runs", *words)
    assert not run.metrics.exists()


def test_the_evaluation_is_named(
    workbench: Workbench, tmp_path: Path, small_base: Path, small_memory: dict[str, int]
) -> None:
    suite_in(tmp_path)
    recipe = write_recipe(
        tmp_path, small_base, questions(), data={"contamination": "allow"},
        evaluation={"suite": "asked", "base": False, "batch_size": 16},
    )  # fmt: skip
    small_memory["forward"] = 200
    words = ("pre-flight: memory ran out in the evaluation", "lower evaluation.batch_size (it is 16)")
    run = one_message(workbench, recipe, tmp_path / "runs", *words)
    assert not run.metrics.exists()


def test_running_out_in_a_later_step_is_told_the_same_way_and_goes_on(
    workbench: Workbench, tmp_path: Path, small_base: Path, small_memory: dict[str, int]
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(), training={"checkpoint_every": 1})
    small_memory |= {"forward": 30, "after_steps": 4}
    run = one_message(workbench, recipe, tmp_path / "runs", "step 4: memory ran out in the forward pass")
    assert len(list(files.read_jsonl(run.metrics))) == 3
    small_memory["forward"] = 10**9
    assert call(workbench, recipe, tmp_path / "runs").status == 0
    assert run.is_finished()


# --- disk ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_too_small_for_the_save_is_refused_before_the_first_step(
    tmp_path: Path, small_base: Path, small_disk: Path, workbench: Workbench
) -> None:
    recipe = with_method(
        write_recipe(tmp_path, small_base, questions(), training={"checkpoint_every": 2}), {"name": "full"}
    )
    run = one_message(workbench, recipe, small_disk, "disk of", "free, the run needs", "3 checkpoints of", "--runs")
    assert not run.metrics.exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert call(workbench, recipe, small_disk).status == 0


@pytest.mark.parametrize("method", [{"name": "lora", "rank": 4}, {"name": "lora", "rank": 4, "variant": "pissa"},
                                    {"name": "full"}, {"name": "vera", "rank": 8}])  # fmt: skip
def test_the_estimate_covers_what_a_run_leaves_and_not_much_more(
    workbench: Workbench, tmp_path: Path, small_base: Path, method: dict[str, Any]
) -> None:
    recipe = with_method(write_recipe(tmp_path, small_base, questions(), training={"checkpoint_every": 4}), method)
    run = train(workbench, recipe, tmp_path / "runs")
    needed = files.read_json(run.preflight)["needed_disk_bytes"]
    left = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    assert left < needed < 3 * left, json.dumps({"left": left, "needed": needed})
