"""What the processes of one run tell each other. In a run of one process each of these is nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.tensor import DTensor

from workbench import place
from workbench.errors import Problem, RunError

_Value = TypeVar("_Value")
_PATIENCE = timedelta(days=1)
"""How long a process waits for another one, which may be tokenising or scoring. (One that dies is not waited for: its
connections break, and the launcher ends the others.)"""
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused", "gloo")


def start(device: str) -> None:
    """Join the other processes, by the collectives of the device kind (accelerate knows them), on a device of our own.

    Args:
        device: torch's name of the device kind.

    Raises:
        RunError: the port that they are to meet at is taken.
    """
    found = place.here()
    if found.world == 1:
        return
    if found.world == found.local_world and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: neither its name nor its network is needed
    try:
        PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        meeting = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        advice = "start it again, with another MASTER_PORT if that one stays taken"
        raise RunError(Problem(meeting, "the processes cannot meet: that port is taken", advice)) from error


def backend() -> str | None:
    """torch's name of the collectives that are in use; None for one process."""
    return str(dist.get_backend_config()) if _together() else None


def device(kind: str) -> str:
    """This process's device of a kind, such as `cuda:1`; the kind itself in a run of one process and on a CPU."""
    return str(PartialState().device) if _together() and kind != "cpu" else kind


def stop() -> None:
    """Leave the others, after all of them came here."""
    if _together():
        dist.barrier()
        dist.destroy_process_group()


def gather(value: _Value) -> list[_Value]:
    """Every process's value, by rank."""
    if not _together():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def from_main(act: Callable[[], _Value]) -> _Value:
    """What the main process gets from an act that it alone does."""
    if not _together():
        return act()
    box = [act() if place.here().is_main else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def wait() -> None:
    """Until every process is here."""
    if _together():
        dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does it first, the others find it done."""
    if not place.here().is_main:
        wait()
    yield
    if place.here().is_main:
        wait()


def share(items: Sequence[_Value]) -> Sequence[_Value]:
    """The part of the items that is this process's work: every one of so many as there are processes."""
    return items[place.here().rank :: place.here().world] if _together() else items


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that is spread over the processes, put together in each of them (all must ask)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone, rather than something of ours."""
    if isinstance(error, dist.DistError):
        return True
    return _together() and isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
