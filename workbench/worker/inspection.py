"""What can be found out about a run without a step: its places, its base's files, its method on the real widths."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import safe_open

from workbench import bases, documents, files
from workbench.bases import Loading
from workbench.errors import MethodError, Problem, RunError
from workbench.methods.apply import apply, same_shape
from workbench.methods.targets import plan_targets
from workbench.recipe import pin
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import Full, Lora, Qlora

_GIB = 2**30


def writable(root: Path) -> None:
    """Write a file where the runs go, and take away what was made for it.

    Raises:
        RunError: it cannot be written to.
    """
    made = [path for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as probe:
            probe.write(b"x")
    except OSError as error:
        raise RunError(files.unwritable(root, error)) from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # what was not made, or was filled meanwhile, stays
                path.rmdir()


def existing(root: Path) -> Path:
    """The folder itself, or the nearest one above it that is there: its disk is the one that will be written to."""
    return next(path for path in (root, *root.parents) if path.is_dir())


def free_note(root: Path) -> str:
    """How much room a folder's disk has."""
    return f"{shutil.disk_usage(existing(root)).free / _GIB:.1f} GiB free"


def has_weights(loading: Loading) -> bool:
    """Whether a base's weights are on this machine (a hub repository's may not be fetched yet)."""
    return any(loading.directory.glob("*.safetensors"))


def shape_of(loading: Loading, resolved: Resolved) -> Any:
    """The base on the meta device: its architecture at its real widths, without memory for its weights. Where they are
    on this machine their files are read as a load does it: names, shapes, whole files.

    Raises:
        BaseError: the files are damaged, incomplete, or of another architecture than the configuration says.
    """
    dtype = "fp32" if isinstance(resolved.recipe.method, Full) else loading.dtype
    plain = replace(loading, device="meta", quantization="none", dtype=dtype)
    if loading.init == "pretrained" and resolved.base.kind == "directory":
        pin.check_directory(loading.directory, weights=True)
    if not has_weights(loading):
        plain = replace(plain, init="random")
    with torch.device("meta"):
        return bases.load_model(plain)


def layers(model: Any, resolved: Resolved) -> list[str]:
    """Last name parts of the linear layers that the recipe's adapter sits on; none where every weight is trained.

    Raises:
        MethodError: a target matches nothing.
    """
    if not hasattr(resolved.recipe.method, "targets"):
        return []
    plan = plan_targets(model, resolved.recipe.method)
    names = [*plan.modules, *(name.removesuffix(".weight") for name in plan.parameters if ".experts." not in name)]
    return sorted({name.rpartition(".")[2] for name in names})


def applied(model: Any, resolved: Resolved) -> Any:
    """The recipe's method on a base without weights: targets, block sizes, ranks against the real widths.

    Raises:
        MethodError: as a training would.
    """
    method = resolved.recipe.method
    with torch.device("meta"):
        trained = apply(model, method, resolved.recipe.seed)
    start = getattr(method, "init_from", None)
    if start is not None:
        assert isinstance(method, Lora | Qlora), "only they have init_from"
        _start_fits(trained, pin.adapter_directory(start), method)
    return trained


def _start_fits(trained: Any, start: Path, method: Lora | Qlora) -> None:
    """An adapter to start from has the weights that the method needs on this base, by name and shape."""
    same_shape(peft.PeftConfig.from_pretrained(str(start)), method)
    wanted = {name: list(weight.shape) for name, weight in peft.get_peft_model_state_dict(trained).items()}
    with safe_open(str(start / "adapter_model.safetensors"), framework="pt") as stored:
        found = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118 - no mapping
    odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if odd:
        raise MethodError(
            Problem(
                "method.init_from",
                f"its adapter does not fit this base: {odd[0]} is {found.get(odd[0], 'not there')}, "
                f"{wanted.get(odd[0], 'nothing')} is needed",
                f"name a run on this base ({documents.display(start)} is of another one)",
            )
        )
