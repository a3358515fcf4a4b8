"""What is done to a run: kills of every kind, a full disk, damage to a checkpoint; and how it may end by that."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tortures.place import Place, newest_sealed
from tortures.started import Started, offspring

_LOOK_SECONDS = 0.002
_FILE_LIMITS = (0, 4096, 1 << 16, 1 << 20)
"""A disk that takes nothing, or nothing large."""
STOPPED, REFUSED = 75, 2


@dataclass(frozen=True)
class Kind:
    """One kind of kill."""

    name: str
    act: Callable[[Started, random.Random, Place], str]
    """Does it, and says to what; called at the moment."""
    statuses: frozenset[int]
    """That the command may end with by it. (Besides 0, where it came too late.)"""
    damage: Callable[[Path, random.Random], str] | None = None
    """Done to the newest sealed checkpoint after the end."""


def _kill(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _a_rank(started: Started, chance: random.Random) -> psutil.Process | None:
    """A random one of the run's processes, as soon as there is one; None where the command ended before."""
    while started.status() is None:
        if found := started.ranks():
            return chance.choice(found)
        time.sleep(_LOOK_SECONDS)
    return None


def signal_rank(number: int) -> Callable[[Started, random.Random, Place], str]:
    """Sends a signal to one of the run's processes."""

    def act(started: Started, chance: random.Random, _: Place) -> str:
        rank = _a_rank(started, chance)
        if rank is None:
            return "nobody"
        _kill(rank, number)
        return f"process {rank.pid}"

    return act


def kill_all(started: Started, chance: random.Random, _: Place) -> str:
    """SIGKILL to every process of the run, in random order."""
    killed = 0
    while found := offspring():  # some may start others meanwhile
        for process in chance.sample(found, len(found)):
            _kill(process, signal.SIGKILL)
            killed += 1
    return f"{killed} processes"


def signal_command(number: int) -> Callable[[Started, random.Random, Place], str]:
    """Sends a signal to the command alone."""

    def act(started: Started, _: random.Random, __: Place) -> str:
        if started.status() is None:
            started.process.send_signal(number)
        return "the command"

    return act


def interrupt(started: Started, _: random.Random, __: Place) -> str:
    """Ctrl-C: the terminal sends it to the process group. From the command's first words on: until it runs our code,
    the interpreter answers with a traceback, whatever we do."""
    while started.status() is None and not started.said():
        time.sleep(_LOOK_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.process.pid, signal.SIGINT)
    return "the process group"


def fill_disk(started: Started, _: random.Random, place: Place) -> str:
    """Not a byte is free from now on; what the run gives back is taken as well."""
    while started.status() is None:
        place.fill()
        time.sleep(_LOOK_SECONDS)
    return "the disk"


def limit_files(started: Started, chance: random.Random, _: Place) -> str:
    """Where no disk of our own can be mounted: no process of the run may write files beyond a length."""
    limit = chance.choice(_FILE_LIMITS)
    while started.status() is None:  # those that start inherit it, those that were just starting do not
        for process in offspring():
            with contextlib.suppress(psutil.Error):
                process.rlimit(resource.RLIMIT_FSIZE, (limit, limit))
        time.sleep(_LOOK_SECONDS)
    return f"files to {limit:,} bytes"


def cut_file(checkpoint: Path, chance: random.Random) -> str:
    """Cut a random file of a checkpoint at a random length; says which."""
    file = _a_file(checkpoint, chance)
    size = file.stat().st_size
    length = chance.randrange(size)
    os.truncate(file, length)
    return f"{file.name} of {checkpoint.name} cut from {size:,} to {length:,} bytes"


def flip_byte(checkpoint: Path, chance: random.Random) -> str:
    """Change a random byte of a random file of a checkpoint; says which."""
    file = _a_file(checkpoint, chance)
    offset = chance.randrange(file.stat().st_size)
    with file.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ chance.randrange(1, 256)]))
    return f"byte {offset:,} of {file.name} of {checkpoint.name} changed"


def _a_file(checkpoint: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size))


KILL_ALL = Kind("SIGKILL to all", kill_all, frozenset({137}))
KILL_COMMAND = Kind("SIGKILL to the command", signal_command(signal.SIGKILL), frozenset({137}))
CUT = Kind("SIGKILL, a file cut", kill_all, frozenset({137}), cut_file)
FLIPPED = Kind("SIGKILL, a byte flipped", kill_all, frozenset({137}), flip_byte)


def kinds(has_disk: bool) -> list[Kind]:
    """All of them, by how a disk can run full here."""
    full = Kind("full disk", fill_disk, frozenset({REFUSED})) if has_disk else (
        Kind("file size limit", limit_files, frozenset({REFUSED}))
    )  # fmt: skip
    return [
        Kind("SIGKILL to one process", signal_rank(signal.SIGKILL), frozenset({137})),
        KILL_ALL,
        KILL_COMMAND,
        Kind("SIGTERM to the command", signal_command(signal.SIGTERM), frozenset({STOPPED, 143})),
        Kind("SIGINT to the group", interrupt, frozenset({130})),
        Kind("SIGTERM to one process", signal_rank(signal.SIGTERM), frozenset({STOPPED, 143})),
        Kind("SIGUSR1 to one process", signal_rank(signal.SIGUSR1), frozenset({STOPPED, 138})),
        full,
        CUT,
        FLIPPED,
    ]


def damaged(kind: Kind, runs: Path, chance: random.Random) -> tuple[Path, str] | None:
    """The checkpoint that was damaged, with what was done to it; None where there was none, or nothing to do."""
    found = newest_sealed(runs)
    if kind.damage is None or found is None:
        return None
    return found, kind.damage(found, chance)
