"""What is shared among processes, and how they are told of each other: without starting any."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate.state
import pytest
import yaml
from accelerate import PartialState
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st
from small_recipes import preferences, questions, write_recipe
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from transformers import TrainingArguments

from workbench import place
from workbench.catalog.backends import backends
from workbench.data.batches import CausalCollator, PairCollator
from workbench.data.sharing import SharedCollator
from workbench.errors import ExitStatus
from workbench.launch.accelerate_config import configuration
from workbench.plan.cutting import deal
from workbench.recipe.load import load
from workbench.recipe.resolve import resolve
from workbench.runs.run import Run
from workbench.training import sharding
from workbench.worker import several

# --- a step's rows ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 9))
def test_every_row_goes_to_one_process_and_none_has_a_row_more_than_it_must(lengths: list[int], world: int) -> None:
    hands = deal(lengths, world)
    assert sorted(at for hand in hands for at in hand) == list(range(len(lengths)))
    held = [sum(lengths[at] for at in hand) for hand in hands]
    assert max(held) - min(held) <= max(lengths, default=0)
    assert all(hand == sorted(hand) for hand in hands) and len(hands) == world


def causal(count: int) -> list[dict[str, Any]]:
    return [
        {"input_ids": [5] * (3 + at), "labels": [-100, *[5] * (2 + at)], "text_bytes": at, "row": f"row {at}"}
        for at in range(count)
    ]


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt_ids": [1, 2], "chosen_ids": [3] * (1 + at), "rejected_ids": [4], "text_bytes": at, "row": f"row {at}"}
        for at in range(count)
    ]


@pytest.mark.parametrize(
    ("collator", "rows"),
    [
        (CausalCollator(0, 16, "padded"), causal(7)),
        (CausalCollator(0, 16, "flattened"), causal(7)),
        (PairCollator(0, 32), pairs(7)),
        (CausalCollator(0, 16, "padded"), causal(1)),
    ],
    ids=["padded", "flattened", "pairs", "fewer rows than processes"],
)
def test_shares_make_the_step_and_each_ends_with_a_batch_that_stands_for_no_row(collator: Any, rows: Any) -> None:
    shares = [SharedCollator(collator, rank, 3)(rows) for rank in range(3)]
    counted = [batch for share in shares for batch in share[:-1]]
    assert sorted(row for batch in counted for row in batch["rows"]) == [row["row"] for row in rows]
    assert sum(batch["text_bytes"] for batch in counted) == sum(row["text_bytes"] for row in rows)
    for share in shares:
        assert share[-1]["rows"] == [] and share[-1]["text_bytes"] == 0
        assert share[-1]["input_ids"].shape[-1] <= min(batch["input_ids"].shape[-1] for batch in counted)


# --- who is who ------------------------------------------------------------------------------------------------------


def test_srun_names_a_process_only_where_it_is_told_whom_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for ours, theirs in place._SLURM.items():
        monkeypatch.setenv(ours, "")  # so that what is written there goes again
        monkeypatch.delenv(ours)
        monkeypatch.setenv(theirs, {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}.get(theirs, "4"))
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert place.take() == place.Place()  # a shell inside of somebody's job
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    assert place.take() == place.Place()  # the batch script itself, beside its steps
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert place.take() == place.Place(rank=5, local_rank=1, world=8, local_world=4)
    assert not place.here().is_main


def test_one_alone_in_a_step_is_told_of_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else torch would open a port for it, which the next job on the machine may want."""
    for name, value in (("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0"), ("SLURM_NTASKS", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.delenv("RANK", raising=False)
    assert place.in_step()
    assert place.take() == place.Place()
    assert "RANK" not in os.environ


def test_accelerate_speaks_by_the_collectives_that_the_table_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of device in turn is the one that is there."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(accelerate.state, "is_xccl_available", lambda: True)
    probes = {
        name: f"is_{name}_available" for name in ("mlu", "musa", "npu", "hpu", "xpu")
    }  # asked in this order, before or after CUDA
    chosen = PartialState.__new__(PartialState)
    for row in backends().values():
        if row.collective is None:
            continue
        for name, probe in probes.items():
            monkeypatch.setattr(accelerate.state, probe, lambda *_, here=row.device == name, **__: here)
        monkeypatch.setattr("torch.cuda.is_available", lambda here=row.device == "cuda": here)
        backend, _ = chosen._prepare_backend(cpu=row.device == "cpu")
        assert backend == row.collective, row.name


def failure(exitcode: int, at: int) -> ProcessFailure:
    made = ProcessFailure(local_rank=0, pid=1, exitcode=exitcode, error_file="/none")
    made.timestamp = at
    return made


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ({0: ExitStatus.LOST, 1: -9}, 137),
        ({0: 2, 1: -15}, 2),
        ({0: ExitStatus.LOST, 1: ExitStatus.LOST}, ExitStatus.INTERNAL),
        ({1: 75, 0: 75}, 75),
    ],
    ids=str,
)
def test_a_run_ends_as_the_process_that_ended_first_by_itself(
    codes: dict[int, int], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert several._told({rank: failure(code, at) for at, (rank, code) in enumerate(codes.items())}) == status
    assert ("process 1 of the run was ended by SIGKILL" in capsys.readouterr().err) == (status == 137)


# --- accelerate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (["target=cpu"], "NO"),
        (["target={name: cpu, devices: 2}"], "MULTI_CPU"),
        (["target={name: cuda, devices: 8, nodes: 2}"], "MULTI_GPU"),
        (["target={name: ascend-910b, devices: 8}"], "MULTI_NPU"),
        (["target={name: cuda, devices: 8, sharding: fsdp}"], "FSDP"),
        (["target={name: ascend-910b, devices: 8, sharding: fsdp}"], "FSDP"),
    ],
    ids=str,
)
def test_accelerates_own_reader_takes_the_configuration(
    small_base: Path, tmp_path: Path, settings: list[str], kind: str
) -> None:
    resolved = resolve(load(write_recipe(tmp_path, small_base, questions()), [*settings, "training.batch_size=16"]))
    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(configuration(resolved)))
    found = load_config_from_file(str(path))
    target = resolved.recipe.target
    assert getattr(found.distributed_type, "value", found.distributed_type) == kind
    assert (found.num_processes, found.num_machines) == (target.devices * target.nodes, target.nodes)
    assert found.use_cpu == (resolved.target.device == "cpu")
    if kind == "FSDP":
        told = {name.removeprefix("fsdp_"): value for name, value in found.fsdp_config.items()}
        assert told == sharding.plugin(resolved.target.device)


def test_a_run_holds_the_configuration(workbench: Callable[..., Outcome], small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, preferences(), "preference", objective="dpo")
    workbench("train", str(recipe), "--runs", "runs", "--dry-run", "--set", "target.devices=2")
    (run,) = [Run(path) for path in (tmp_path / "runs").iterdir()]
    assert load_config_from_file(str(run.accelerate)).num_processes == 2


@pytest.mark.parametrize("device", ["cuda", "npu"])
def test_the_trainer_builds_accelerates_plugin_of_what_it_is_told(tmp_path: Path, device: str) -> None:
    """As far as it goes without an accelerator: its arguments are known, and mean FSDP2 with whole states at saves."""
    told = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **sharding.arguments("fsdp", device))
    plugin = FullyShardedDataParallelPlugin(**told.fsdp_plugin_args)
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert plugin.cpu_ram_efficient_loading is (device != "npu")
    assert sharding.arguments("ddp", device) == sharding.arguments("fsdp", "cpu") == {}
