"""Energy: counters are read and added up as they are, what has none says why, and a stopped run's joules are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_recipes import Workbench, call, questions, run_of, train, write_recipe
from test_training import Stop, stopped_after  # noqa: F401 (a fixture)

from workbench import files
from workbench.runs.run import Run
from workbench.training import energy
from workbench.training.energy import Counter, Meter, NotCountedError


def counter(*readings: float, wraps_at: float | None = None) -> Counter:
    """A counter that shows these numbers, one a reading, and fails after them."""
    shown = iter(readings)

    def read() -> float:
        for reading in shown:
            return reading
        raise NotCountedError("the counter is gone")

    return Counter(read, wraps_at)


def taken(meter: Meter, times: int) -> list[float | None]:
    return [meter.taken() for _ in range(times)]


def test_a_meter_gives_what_was_used_since_the_last_reading() -> None:
    assert taken(Meter([counter(100.0, 103.0, 103.0, 110.5)]), 4) == [0.0, 3.0, 0.0, 7.5]


def test_several_counters_are_added() -> None:
    assert taken(Meter([counter(0.0, 1.0), counter(50.0, 52.0)]), 2) == [0.0, 3.0]


def test_a_counter_that_wraps_around_goes_on() -> None:
    assert taken(Meter([counter(250.0, 260.0, 5.0, 6.0, wraps_at=262.0)]), 4) == [0.0, 10.0, 7.0, 1.0]


def test_a_counter_that_fails_is_no_zero_and_says_why() -> None:
    meter = Meter([counter(1.0, 2.0)])
    assert meter.note is None
    assert taken(meter, 4) == [0.0, 1.0, None, None]
    assert meter.note == "the counter is gone"


def test_nothing_that_counts_is_no_zero() -> None:
    assert taken(Meter((), note="why"), 2) == [None, None]


# --- the processor ---------------------------------------------------------------------------------------------------


def zone(powercap: Path, number: str, name: str, microjoules: int, most: int = 262_143_328_850) -> Path:
    """A zone as Linux shows it."""
    path = powercap / f"intel-rapl:{number}"
    path.mkdir(parents=True)
    for file, content in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (path / file).write_text(f"{content}\n")
    return path


def test_sockets_and_their_memory_are_counted_once(tmp_path: Path) -> None:
    zones = [
        zone(tmp_path, "0", "package-0", 5_000_000),
        zone(tmp_path, "0:0", "core", 4_000_000),
        zone(tmp_path, "0:1", "dram", 1_000_000),
        zone(tmp_path, "1", "package-1", 7_000_000),
        zone(tmp_path, "2", "psys", 90_000_000),
    ]
    meter = Meter(energy.rapl_counters(tmp_path))
    assert meter.taken() == 0.0
    for at, path in enumerate(zones):
        before = int((path / "energy_uj").read_text())
        (path / "energy_uj").write_text(f"{before + 10**at * 1_000_000}\n")
    assert meter.taken() == pytest.approx(1.0 + 100.0 + 1000.0)


def test_a_socket_that_wraps_around_goes_on(tmp_path: Path) -> None:
    path = zone(tmp_path, "0", "package-0", 9_000_000, most=10_000_000)
    meter = Meter(energy.rapl_counters(tmp_path))
    meter.taken()
    (path / "energy_uj").write_text("500000\n")
    assert meter.taken() == pytest.approx(1.5)


def test_no_counters_and_unreadable_ones_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotCountedError, match="shows no energy counters"):
        energy.rapl_counters(tmp_path / "absent")
    path = zone(tmp_path, "0", "package-0", 1)
    (path / "energy_uj").unlink()
    (path / "energy_uj").mkdir()  # readable by nobody, root included
    with pytest.raises(NotCountedError, match="cannot be read"):
        energy.rapl_counters(tmp_path)
    (path / "energy_uj").rmdir()
    (path / "energy_uj").write_text("soon\n")
    with pytest.raises(NotCountedError, match="cannot be read"):
        energy.rapl_counters(tmp_path)


# --- NVIDIA ----------------------------------------------------------------------------------------------------------


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "nvml", None)
    with pytest.raises(NotCountedError, match="nvidia-ml-py is not installed"):
        energy.nvml_counter("GPU-0")


class Nvml:
    """NVML as its Python package shows it, of a machine with one GPU."""

    class NVMLError(Exception):
        """What its functions raise."""

    def __init__(self, missing: str = "", millijoules: Sequence[int] = (0,)) -> None:
        self.missing, self.readings = missing, iter(millijoules)

    def nvmlInit(self) -> None:  # noqa: N802
        self._refuse("driver")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._refuse("GPU")
        return f"handle of {uuid}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        self._refuse("counter")
        assert handle == "handle of GPU-7"
        return next(self.readings)

    def _refuse(self, what: str) -> None:
        if self.missing == what:
            raise self.NVMLError("Not Supported")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("driver", "no NVIDIA driver to ask: Not Supported"),
        ("GPU", "does not know the GPU GPU-7"),
        ("counter", "the GPU's energy counter cannot be read"),
    ],
)
def test_a_missing_driver_gpu_and_counter_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, missing: str, words: str
) -> None:
    monkeypatch.setattr(energy, "nvml", Nvml(missing))
    with pytest.raises(NotCountedError, match=words):
        energy.nvml_counter("GPU-7")


def test_a_gpu_counts_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "nvml", Nvml(millijoules=[1, 5_000, 7_500]))
    assert taken(Meter([energy.nvml_counter("GPU-7")]), 2) == [0.0, 2.5]


def test_a_real_machine_without_a_gpu_says_so() -> None:
    pytest.importorskip("pynvml")
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(NotCountedError, match="no NVIDIA driver to ask"):
        energy.nvml_counter("GPU-0")


def test_a_real_gpu_counts_while_it_computes() -> None:
    pytest.importorskip("pynvml")
    if not Path("/dev/nvidia0").exists():
        pytest.skip("this machine has no NVIDIA GPU")
    program = """
import torch
from workbench.training import energy
meter = energy.meter("cuda")
meter.taken()
for _ in range(200):
    torch.ones(4096, 4096, device="cuda") @ torch.ones(4096, 4096, device="cuda")
torch.cuda.synchronize()
print(meter.taken(), meter.note)
"""
    visible = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    said = subprocess.run([sys.executable, "-c", program], env=visible, capture_output=True, text=True, check=True)
    joules, note = said.stdout.split(maxsplit=1)
    assert note.strip() == "None" and float(joules) > 0.0


def test_other_devices_are_not_measured_and_a_cpu_never_asks_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert energy.meter("npu").note == "no energy counter of npu devices is known"
    monkeypatch.setattr(energy, "nvml_counter", pytest.fail)
    energy.meter("cpu")


# --- what a run records ----------------------------------------------------------------------------------------------


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's processor counts: 2 J between every two readings."""
    place = tmp_path / "powercap"
    zone(place, "0", "package-0", 0)
    monkeypatch.setattr(energy, "_POWERCAP", place)
    read = energy._joules
    growing = iter(range(0, 1_000_000, 2))

    def grow(file: Path) -> float:
        file.write_text(f"{next(growing) * 1_000_000}\n")
        return read(file)

    monkeypatch.setattr(energy, "_joules", grow)
    return place


@pytest.fixture
def uncounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's processor does not count."""
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path / "absent")


def joules(run: Run) -> list[Any]:
    return [row["joules"] for row in files.read_jsonl(run.metrics)]


def energy_of(run: Run) -> Iterator[Any]:
    cost = files.read_json(run.cost)
    return (cost[key] for key in ("joules", "energy_source", "energy_note"))


def test_measured_joules_are_recorded_step_by_step(
    workbench: Workbench, small_base: Path, tmp_path: Path, powercap: Path
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    run = train(workbench, recipe, tmp_path / "runs", "target.power_watts=50")
    assert joules(run) == [2.0 * step for step in range(1, 9)]
    assert [*energy_of(run)] == [16.0, "rapl", None]  # what is measured goes before what could be estimated


def test_a_stopped_runs_joules_are_kept_and_added_to(
    workbench: Workbench,
    small_base: Path,
    tmp_path: Path,
    powercap: Path,
    stopped_after: Stop,  # noqa: F811
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(), training={"checkpoint_every": 4})
    run = run_of(stopped_after(6, recipe, tmp_path / "runs"), tmp_path / "runs")
    assert joules(run) == [2.0 * step for step in range(1, 7)]
    assert "going on from step 4" in call(workbench, recipe, tmp_path / "runs").output
    assert joules(run) == [2.0 * step for step in range(1, 9)]
    assert [*energy_of(run)] == [16.0, "rapl", None]


def test_a_run_continued_where_nothing_counts_is_not_half_measured(
    workbench: Workbench,
    small_base: Path,
    tmp_path: Path,
    powercap: Path,
    stopped_after: Stop,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(), training={"checkpoint_every": 4})
    run = run_of(stopped_after(6, recipe, tmp_path / "runs"), tmp_path / "runs")
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path / "absent")
    call(workbench, recipe, tmp_path / "runs")
    assert joules(run) == [2.0, 4.0, 6.0, 8.0, None, None, None, None]
    found, source, note = energy_of(run)
    assert (found, source) == (None, "none") and "no energy counters" in note


def test_a_run_begun_where_nothing_counted_stays_unmeasured(
    workbench: Workbench,
    small_base: Path,
    tmp_path: Path,
    powercap: Path,
    stopped_after: Stop,  # noqa: F811
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(), training={"checkpoint_every": 4})
    run = run_of(stopped_after(6, recipe, tmp_path / "runs"), tmp_path / "runs")
    rows = [{key: value for key, value in row.items() if key != "joules"} for row in files.read_jsonl(run.metrics)]
    files.write_jsonl(run.metrics, rows)  # as a version that did not measure wrote it
    call(workbench, recipe, tmp_path / "runs")
    assert [*energy_of(run)] == [None, "none", "some steps were walked where nothing counted"]


def test_an_estimate_is_called_one(workbench: Workbench, small_base: Path, tmp_path: Path, uncounted: None) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    run = train(workbench, recipe, tmp_path / "runs", "target.power_watts=50")
    found, source, note = energy_of(run)
    assert found == pytest.approx(50.0 * files.read_json(run.cost)["device_seconds"]) and found > 0
    assert source == "target_estimate" and "no energy counters" in note


def test_without_counter_and_power_energy_is_not_known(
    workbench: Workbench, small_base: Path, tmp_path: Path, uncounted: None
) -> None:
    run = train(workbench, write_recipe(tmp_path, small_base, questions()), tmp_path / "runs")
    found, source, _ = energy_of(run)
    assert (found, source) == (None, "none")
    assert joules(run) == [None] * 8
