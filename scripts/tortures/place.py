"""Where a tortured run lives: a folder that can run full, with the run's root and its cache in it."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from workbench.runs.run import Run

DISK_BYTES = 48 << 20
"""Room for three checkpoints, the result and the cache several times over; little enough to be filled at once."""
RECIPE = "quickstart"
_NEW_MOUNTS, _APART, _DETACH = 0x00020000, (1 << 14) | (1 << 18), 2
"""CLONE_NEWNS; MS_REC | MS_PRIVATE; MNT_DETACH."""
_BLOCK = bytes(1 << 16)


class Place:
    """The folder, on a small disk of its own where that may be mounted. Others do not see the mount, and it goes with
    the last process that does, however that ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.has_disk = _mount(folder)
        self._filler = folder / "filler"
        self.clear()

    @property
    def runs(self) -> Path:
        """The runs' root."""
        return self.folder / "runs"

    @property
    def cache(self) -> Path:
        """The workbench's."""
        return self.folder / "cache"

    def clear(self) -> None:
        """Begin a new round."""
        for path in (self.runs, self.cache):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()

    def fill(self) -> None:
        """Leave no byte free; may be called again, as others give bytes back."""
        with self._filler.open("ab", buffering=0) as stream:
            size = len(_BLOCK)
            while size:
                try:
                    stream.write(_BLOCK[:size])
                except OSError:
                    size //= 2

    def free(self) -> None:
        """What an administrator does."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Take the mount away."""
        if self.has_disk:
            ctypes.CDLL(None).umount2(os.fsencode(self.folder), _DETACH)


def _mount(folder: Path) -> bool:
    """Whether a small disk could be mounted at a folder, for this process and its children."""
    system = ctypes.CDLL(None)
    try:
        if system.unshare(_NEW_MOUNTS) or system.mount(None, b"/", None, ctypes.c_ulong(_APART), None):
            return False
        size = f"size={DISK_BYTES}".encode()
        return not system.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), size)
    except AttributeError:  # not Linux
        return False


def run_in(runs: Path) -> Run | None:
    """The recipe's run under a root, if it was begun."""
    found = [path for path in runs.glob(f"{RECIPE}-*") if path.is_dir()]
    return Run(found[0]) if found else None


def steps_in(runs: Path) -> int:
    """The whole lines of the run's metrics."""
    run = run_in(runs)
    try:
        return run.metrics.read_bytes().count(b"\n") if run else 0
    except FileNotFoundError:
        return 0


def newest_sealed(runs: Path) -> Path | None:
    """The newest checkpoint that has a seal."""
    run = run_in(runs)
    found = list(run.checkpoints.glob("checkpoint-*/sealed.json")) if run else []
    return max((seal.parent for seal in found), key=lambda path: int(path.name.rpartition("-")[2]), default=None)
