"""A W&B library that goes wrong where BROKEN_AT says, as BROKEN_HOW says: put on the path of the process that shows a
run in place of the real one. What it is asked is noted in the file BROKEN_NOTES."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_NOTES = Path(os.environ["BROKEN_NOTES"])


class Error(Exception):
    """The library's own."""


def _asked(what: str) -> None:
    with _NOTES.open("a", encoding="utf-8") as notes:
        notes.write(f"{what}\n")
    if os.environ["BROKEN_AT"] != what:
        return
    match os.environ["BROKEN_HOW"]:
        case "raises":
            raise Error("the service died")
        case "is full":
            raise OSError(28, "No space left on device")
        case "hangs":
            time.sleep(30)
            with _NOTES.open("a", encoding="utf-8") as notes:
                notes.write("came back\n")
        case "is cut off":
            os._exit(9)


class _Record(dict[str, Any]):
    def update(self, *values: Any, **more: Any) -> None:  # type: ignore[override]
        _asked("update")


class Run:
    """A run that holds nothing."""

    starting_step = 0
    url = None

    def __init__(self, directory: str) -> None:
        self.dir = f"{directory}/wandb/offline/files"
        self.config, self.summary = _Record(), _Record()

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **more: _asked(name)


def init(**words: Any) -> Run:
    """Begin a run."""
    _asked("init")
    return Run(words["dir"])


class Settings:
    """Anything."""

    def __init__(self, **words: Any) -> None:
        pass


class Artifact:
    """Anything."""

    def __init__(self, *words: Any, **more: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **more: None


Table = Settings
