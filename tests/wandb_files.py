"""A .wandb file read back: what a W&B server would be sent."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a LevelDB log (blocks of 32 KiB, chunks of a 7-byte header and a part of a record)
    after 7 bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(content):
        left = 32_768 - at % 32_768
        if left < 7:  # no header fits: the block is filled up
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if kind == 0:
            at += left
            continue
        part = content[at + 7 : at + 7 + length]
        whole = part if kind in (1, 2) else whole + part
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield record


def values(items: Any) -> dict[str, Any]:
    """Key -> value of a record's items (nested keys joined by dots)."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


@dataclass(frozen=True)
class Offline:
    """One offline run."""

    folder: Path
    started: Any
    """What the run is called, and stands under."""
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    axes: dict[str, str]
    """Key or pattern -> its axis."""
    artifacts: dict[str, Any]
    """Name -> record."""
    ended: bool
    exit_code: int | None

    def table(self, name: str) -> dict[str, Any]:
        """A table's columns and data."""
        return dict(json.loads((self.folder / "files" / self.summary[name]["path"]).read_text(encoding="utf-8")))


def offline_runs(directory: Path) -> list[Offline]:
    """The offline runs in a directory, oldest first."""
    found = sorted(directory.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [_read(path) for path in found]


def offline_run(directory: Path) -> Offline:
    """The only one."""
    (found,) = offline_runs(directory)
    return found


def _read(path: Path) -> Offline:
    started, config, history, summary, axes, artifacts, code = None, {}, [], {}, {}, {}, None
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                started, config = record.run, values(record.run.config.update)
            case "config":
                config |= values(record.config.update)
            case "history":
                history.append(values(record.history.item))
            case "summary":
                summary |= values(record.summary.update)
            case "metric":
                axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
            case "artifact":
                artifacts[record.artifact.name] = record.artifact
            case "exit":
                code = record.exit.exit_code
    return Offline(path.parent, started, config, history, summary, axes, artifacts, code is not None, code)
