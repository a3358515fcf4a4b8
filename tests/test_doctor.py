"""workbench doctor: what it says of this machine is so, and a broken torch is told in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.catalog.backends import CAPABILITIES, backends
from workbench.worker import doctor, machine


def call(*flags: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """`workbench doctor` as a person would call it; modules at `path` go before the real ones."""
    environment = os.environ | variables
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "workbench", "doctor", *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What it found on this machine."""
    done = call("--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def of(report: dict[str, Any], backend: str) -> dict[str, Any]:
    """A backend's part of the report."""
    (found,) = [one for one in report["backends"] if one["name"] == backend]
    return dict(found)


@pytest.mark.slow
def test_what_works_on_this_cpu_is_proved_by_doing_it(report: dict[str, Any]) -> None:
    cpu = of(report, "cpu")
    found = {one["name"]: one for one in cpu["capabilities"]}
    assert cpu["here"] and found.keys() == set(CAPABILITIES)
    for name in (
        "bf16",
        "nf4",
        "double_quantization",
        "int8",
        "eight_bit_optimizers",
        "fused_adamw",
        "sdpa",
        "ddp",
        "fsdp",
    ):
        assert (found[name]["answer"], found[name]["known"]) == ("yes", "proved"), found[name]
    assert "gloo" in found["ddp"]["reason"] and "8 bits" in found["eight_bit_optimizers"]["reason"]
    for name in ("fp16", "paged_optimizers", "liger"):
        assert (found[name]["answer"], found[name]["known"]) == ("no", "table")
        assert found[name]["reason"] == backends()["cpu"].source
    assert found["compile"]["known"] == "looked"


@pytest.mark.slow
def test_the_other_backends_are_said_not_to_be_here(report: dict[str, Any]) -> None:
    assert [one["name"] for one in report["backends"]] == list(backends())
    for name in ("cuda", "npu", "mps"):
        assert not of(report, name)["here"] and of(report, name)["reason"] == "torch sees no such device"
    assert report["torch"]["kind"] == "cpu" and report["torch"]["devices"] == [] and report["torch_problem"] is None
    assert report["hub"] == "not asked (HF_HUB_OFFLINE is set)"


@pytest.mark.slow
def test_the_machine_and_its_versions_are_those_that_it_has(report: dict[str, Any]) -> None:
    import torch

    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["torch_npu"] is None and report["versions"]["CANN"] is None
    facts = report["machine"]
    assert facts["threads"] == os.cpu_count() and 0 < facts["free_memory_bytes"] < facts["memory_bytes"]


@pytest.mark.slow
def test_in_a_pipe_it_is_plain_text() -> None:
    done = call()
    assert done.returncode == 0, done.stderr
    assert "what works on CPU" in done.stdout and "proved" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert f"table: {backends()['cpu'].source}" in " ".join(done.stdout.split())


def plant_torch_npu(folder: Path) -> Path:
    """A torch_npu that torch loads by itself, as the real one is, and whose CANN is not there."""
    (folder / "torch_npu").mkdir(parents=True)
    error = "libhccl.so: cannot open shared object file: No such file or directory"
    (folder / "torch_npu" / "__init__.py").write_text(f"raise ImportError({error!r})\n")
    facts = folder / "torch_npu-2.13.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.13.0\n")
    (facts / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    return folder


@pytest.mark.slow
def test_a_torch_npu_without_its_toolkit_is_told_with_its_cure(tmp_path: Path) -> None:
    done = call("--json", path=plant_torch_npu(tmp_path), TORCH_DEVICE_BACKEND_AUTOLOAD="1")
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert "torch_npu" in report["torch_problem"]
    (missing,) = report["missing"]
    assert missing["what"].startswith("torch cannot be imported, because torch_npu cannot")
    assert "source /usr/local/Ascend/ascend-toolkit/set_env.sh" in missing["do"]
    assert report["versions"]["torch_npu"] == "2.13.0"
    assert of(report, "cpu")["here"]  # torch without the extension still trains here


def test_a_torch_that_cannot_be_imported_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libtorch_cpu.so: undefined symbol: odd')\n")
    done = call(path=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert "torch cannot be imported: OSError: libtorch_cpu.so: undefined symbol: odd" in said
    assert "pip install --force-reinstall torch" in said


def test_a_proof_that_ends_its_process_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in place of bitsandbytes kills the process that imports it; what stands behind it is still proved."""
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").write_text("import os\nos.abort()\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    found = doctor._proofs(backends()["cpu"], ["sdpa", "nf4", "bf16"], dict(os.environ) | {"PYTHONPATH": path})
    assert found["sdpa"][0] and found["bf16"][0]
    assert found["nf4"] == (False, "the process was ended by signal 6")


def test_what_a_backend_has_and_this_machine_lacks_is_said_with_the_command() -> None:
    nothing: dict[str, str | None] = dict.fromkeys(machine.PACKAGES)
    cuda, npu = backends()["cuda"], backends()["npu"]
    liger = doctor._lacking(cuda, "liger", nothing)
    assert liger is not None and (liger.what, liger.do) == ("liger-kernel is not installed", "pip install liger-kernel")
    assert doctor._lacking(cuda, "flash_attention", nothing) is not None
    assert doctor._lacking(npu, "flash_attention", nothing) is None  # the vendor's own operation
    assert doctor._lacking(cuda, "liger", nothing | {"liger-kernel": "0.8.0"}) is None


def test_a_torch_npu_for_another_torch_is_noticed() -> None:
    versions: dict[str, str | None] = dict.fromkeys(machine.PACKAGES) | {"torch": "2.13.0+cpu", "torch_npu": "2.10.0"}
    (found,) = doctor._undriven("npu", versions)
    assert found.do == "pip install torch_npu==2.13.0"
    assert doctor._undriven("npu", versions | {"torch_npu": "2.13.0.post1"}) == []
