"""`python -m workbench.worker.doctor [--json] [--thorough]`: what this machine can train with.

Nothing heavy is imported here: torch is asked in processes of its own (`workbench.worker.probes`), for importing it may
fail, and what it cannot do may end the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbench import bench
from workbench.catalog.backends import CAPABILITIES, BackendRow, backends
from workbench.errors import ExitStatus
from workbench.launch import local
from workbench.worker import findings, machine

_PROBE_SECONDS = 300
_AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
_BITSANDBYTES = ("bitsandbytes", "pip install bitsandbytes")
_PACKAGES = {
    "nf4": _BITSANDBYTES,
    "double_quantization": _BITSANDBYTES,
    "int8": _BITSANDBYTES,
    "eight_bit_optimizers": _BITSANDBYTES,
    "paged_optimizers": _BITSANDBYTES,
    "liger": ("liger-kernel", "pip install liger-kernel"),
    "flash_attention": ("flash-attn", "pip install flash-attn --no-build-isolation"),
}
"""Capability -> the package that brings it, and how it is had."""
_FLASH_BY_PACKAGE = ("cuda", "rocm")
"""Backends whose flash attention is that package; elsewhere it is a part of the vendor's own."""
_UNPROVED = {"npu": ("flash_attention",), "xpu": ("flash_attention",)}
"""What there is no tiny operation for."""
_PROVED_ANYWAY = {"cpu": ("fsdp",)}
"""What the table denies of a backend's usual way, and the workbench does in another."""


@dataclass(frozen=True)
class Capability:
    """One thing that a backend may be able to do."""

    name: str
    answer: Literal["yes", "no", "not here", "experimental", "unknown"]
    """`not here`: the backend has it, this machine lacks something for it."""
    known: Literal["proved", "table", "looked"]
    """A real operation was done, or it stands in the table of backends, or what it needs was looked for."""
    reason: str


@dataclass(frozen=True)
class Missing:
    """Something that is not here, and the command that mends it."""

    what: str
    do: str


def main() -> int:
    """Look, prove, show. Ends with a user's status where torch cannot be imported: nothing trains then."""
    parser = argparse.ArgumentParser(prog="workbench.worker.doctor")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--thorough", action="store_true")
    chosen = parser.parse_args()
    report: dict[str, Any] = {}

    def work() -> None:
        report.update(examine(chosen.thorough))
        print(json.dumps(report, indent=2)) if chosen.json else findings.show(report)

    return bench.ended(work) or (ExitStatus.USER if report["torch_problem"] else ExitStatus.DONE)


def examine(thorough: bool) -> dict[str, Any]:
    """Everything that is shown, as JSON has it."""
    versions = machine.versions()
    missing: list[Missing] = []
    environment = dict(os.environ)
    seen, problem = _asked("see", environment)
    if seen is None and versions["torch_npu"]:
        missing.append(_mend_torch_npu(problem))
        environment[_AUTOLOAD] = "0"  # torch without its extension: what is left of the machine can still be told
        seen, _ = _asked("see", environment)
    if problem and not missing:
        missing.append(Missing(f"torch cannot be imported: {problem}", "pip install --force-reinstall torch"))
    kind = seen["kind"] if seen else "cpu"
    own = "rocm" if seen and seen["is_rocm"] and kind == "cuda" else kind
    missing += _undriven(own, versions)
    here = [name for name in dict.fromkeys((own, "cpu")) if seen]
    shown = []
    for row in backends().values():
        found = _capabilities(row, versions, environment, thorough, missing) if row.name in here else []
        reason = "" if row.name in here else _absent(row, problem)
        shown.append({"name": row.name, "title": row.title, "here": bool(found), "reason": reason,
                      "capabilities": [asdict(one) for one in found]})  # fmt: skip
    return {
        "machine": machine.facts(),
        "torch": seen,
        "torch_problem": problem,
        "versions": versions,
        "backends": shown,
        "missing": [asdict(one) for one in dict.fromkeys(missing)],
        "hub": "not asked" + (" (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""),
    }


def _probe(environment: dict[str, str], *arguments: str) -> tuple[str, str, int]:
    """What a probing process wrote, what it complained of last, and its status."""
    command = local.command("workbench.worker.probes", *arguments)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired as stopped:
        written = stopped.stdout.decode() if isinstance(stopped.stdout, bytes) else stopped.stdout or ""
        return written, f"no answer after {_PROBE_SECONDS} s", 1
    complaints = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    died = f"the process was ended by signal {-done.returncode}"
    return done.stdout, died if done.returncode < 0 else (complaints or ["nothing was said"])[-1], done.returncode


def _asked(what: str, environment: dict[str, str]) -> tuple[dict[str, Any] | None, str | None]:
    """A probe's answer, or why there is none."""
    written, complaint, status = _probe(environment, what)
    return (json.loads(written), None) if status == 0 else (None, complaint)


def _proofs(row: BackendRow, names: Sequence[str], environment: dict[str, str]) -> dict[str, tuple[bool, str]]:
    """name -> whether it works, and what was done or went wrong. A proof that ends its process is one that fails."""
    found: dict[str, tuple[bool, str]] = {}
    left = list(names)
    while left:
        written, complaint, status = _probe(environment, "prove", row.device, row.collective or "gloo", *left)
        for line in written.splitlines():
            one = json.loads(line)
            found[one["name"]] = (one["holds"], one["said"])
        left = [name for name in left if name not in found]
        if left:
            found[left.pop(0)] = (False, complaint if status else "nothing was answered")
    return found


def _capabilities(
    row: BackendRow,
    versions: dict[str, str | None],
    environment: dict[str, str],
    thorough: bool,
    missing: list[Missing],
) -> list[Capability]:
    """Every capability of a backend that is here; what is missing for one is added to `missing`."""
    known: dict[str, Capability] = {}
    for name in CAPABILITIES:
        lacking = _lacking(row, name, versions)
        if getattr(row, name) == "no" and name not in _PROVED_ANYWAY.get(row.name, ()):
            known[name] = Capability(name, "no", "table", row.source)
        elif lacking is not None:
            known[name] = Capability(name, "not here", "looked", lacking.what)
            missing.append(lacking)
        elif name == "compile" and not thorough:
            known[name] = Capability(
                name, getattr(row, name), "looked", f"{_compiler()} is there (--thorough compiles)"
            )
        elif name in _UNPROVED.get(row.name, ()):
            known[name] = Capability(name, getattr(row, name), "table", row.source)
    for name, (holds, said) in _proofs(row, [name for name in CAPABILITIES if name not in known], environment).items():
        known[name] = Capability(name, "yes" if holds else "no", "proved", said)
    return [known[name] for name in CAPABILITIES]


def _lacking(row: BackendRow, name: str, versions: dict[str, str | None]) -> Missing | None:
    """What this machine lacks for a capability that its backend has."""
    package = None if name == "flash_attention" and row.name not in _FLASH_BY_PACKAGE else _PACKAGES.get(name)
    if package is not None and versions[package[0]] is None:
        return Missing(f"{package[0]} is not installed", package[1])
    if name == "compile" and _compiler() is None:
        return Missing("there is no C++ compiler", "apt-get install g++")
    return None


def _compiler() -> str | None:
    """What torch.compile would build its kernels with."""
    return next((name for name in (os.environ.get("CXX"), "g++", "clang++") if name and shutil.which(name)), None)


def _mend_torch_npu(problem: str | None) -> Missing:
    """torch_npu is loaded by `import torch` itself, and fails there where Ascend's libraries are not found."""
    if machine.CANN_SETTINGS.is_file():
        do = f"source {machine.CANN_SETTINGS}"
    else:
        do = f"install CANN, then: source {machine.CANN_SETTINGS}   (no NPU here? pip uninstall torch_npu)"
    return Missing(f"torch cannot be imported, because torch_npu cannot: {problem}", do)


def _undriven(own: str, versions: dict[str, str | None]) -> list[Missing]:
    """Devices whose driver is here and that torch does not see; and a torch_npu made for another torch."""
    found = []
    for backend, owner in machine.drivers_seen().items():
        if backend != own:
            do = {
                "cuda": "pip install torch --index-url https://download.pytorch.org/whl/cu130",
                "rocm": "pip install torch --index-url https://download.pytorch.org/whl/rocm7.1",
                "npu": f"pip install torch_npu=={(versions['torch'] or '').partition('+')[0]}",
            }[backend]
            found.append(Missing(f"{owner} is here, and torch {versions['torch']} does not see it", do))
    torch, torch_npu = ((versions[name] or "").partition("+")[0] for name in ("torch", "torch_npu"))
    if torch_npu and torch_npu.split(".")[:2] != torch.split(".")[:2]:
        found.append(Missing(f"torch_npu {torch_npu} is made for another torch than {torch}",
                             f"pip install torch_npu=={torch}"))  # fmt: skip
    return found


def _absent(row: BackendRow, problem: str | None) -> str:
    if row.name in machine.drivers_seen():
        return "its driver is here, torch does not see it"
    return "torch cannot be imported" if row.name == "cpu" and problem else "torch sees no such device"


if __name__ == "__main__":
    sys.exit(main())
