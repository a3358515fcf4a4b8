"""TensorBoard event files, without torch or TensorFlow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from workbench.recipe.tracking import Tensorboard
from workbench.tracking.record import Closing, Opening, Point

_VERSION = "brain.Event:2"
"""How an event file says what it is."""
_PREFIX = "events.out.tfevents"
"""What TensorBoard knows one by."""


class TensorboardTracker:
    """A folder a run, written anew whenever the run is shown: its history is that of the run. Numbers have single
    precision there, and there are no tables.

    Two runs are compared under HPARAMS: the recipe's fields, and the last value under every key.
    """

    def __init__(self, settings: Tensorboard, root: Path) -> None:
        self._directory = Path(settings.directory or root / "tensorboard")
        self._events: Any = None
        self._before: list[Path] = []
        """Earlier records of the run."""

    @property
    def address(self) -> str:
        """What `tensorboard` is to be told."""
        return f"tensorboard --logdir {self._directory}"

    def start(self, opening: Opening) -> int:
        """Say what the run is. An earlier record of it stays until this one is whole."""
        folder = self._directory / opening.id
        folder.mkdir(parents=True, exist_ok=True)
        self._before = sorted(folder.glob(f"{_PREFIX}.*"))
        # TensorFlow's own writer, where that is installed, is not asked: importing it takes longer than most runs
        self._events = RecordWriter((folder / f"{_PREFIX}.{time.time():.6f}").open("wb"))
        self._write(Event(file_version=_VERSION))
        told = {key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
                for key, value in opening.config.items() if value is not None}  # fmt: skip
        self._summary(0, hparams_pb(told, trial_id=opening.id))
        self._text("config", {"group": opening.group, "tags": ", ".join(opening.tags), **opening.config})
        self._events.flush()
        return 0

    def log(self, point: Point) -> None:
        """Its numbers, at its step."""
        for key, value in point.values.items():
            self._summary(point.step, scalar_pb(key, value))
        self._events.flush()

    def finish(self, closing: Closing | None) -> None:
        """What was found on the way, the summary, and that the run is over; without that it counts as running."""
        if closing is not None:
            self._text("found", closing.config)
            self._text("summary", closing.summary)
            ended = HParamsPluginData(session_end_info=SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time()))
            self._summary(0, _ending(ended))
        self._events.close()
        for earlier in self._before:
            earlier.unlink()

    def _text(self, name: str, values: Mapping[str, Any]) -> None:
        lines = ["| key | value |", "| --- | --- |", *_rows(values)]
        self._summary(0, text_pb(name, "\n".join(lines)))

    def _summary(self, step: int, summary: Summary) -> None:
        self._write(Event(step=step, wall_time=time.time(), summary=summary))

    def _write(self, event: Event) -> None:
        self._events.write(event.SerializeToString())


def _rows(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        shown = "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
        yield f"| {key} | {shown} |"


def _ending(data: HParamsPluginData) -> Summary:
    """As `hparams_pb` makes the beginning of a session; what makes its end asks for TensorFlow."""
    about = metadata.create_summary_metadata(data)
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
