"""The one vocabulary of keys that every run is shown under, whatever shows it: any two runs overlay.

Keys of the walk stand under `train/`, what it takes under `cost/`, held-out text under `heldout/TASK/`, other tasks
under `task/TASK/`. A score has its 95 % interval in the summary as `.../low` and `.../high`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Values = dict[str, float]
"""Key -> number."""


@dataclass(frozen=True)
class Key:
    """One key of the walk: the field of metrics.jsonl that it shows, and the axis that it is drawn over by default."""

    field: str
    name: str
    axis: str | None
    """None: it is an axis itself."""
    unit: str


STEP, EXAMPLES, TOKENS = "train/step", "train/examples", "train/tokens"
FLOPS, SECONDS = "train/flops", "train/seconds"

WALK = (
    Key("step", STEP, None, "optimizer steps"),
    Key("examples", EXAMPLES, None, "training examples seen"),
    Key("tokens", TOKENS, None, "tokens that passed through the model"),
    Key("training_flops", FLOPS, None, "floating-point operations, in closed form"),
    Key("seconds", SECONDS, None, "seconds of walking"),
    Key("epoch", "train/epoch", STEP, "passes over the rows"),
    Key("loss", "train/loss", TOKENS, "nats a counted token"),
    Key("learning_rate", "train/learning_rate", STEP, "of the first group of weights"),
    Key("gradient_norm", "train/gradient_norm", STEP, "before clipping"),
    Key("counted_tokens", "train/counted_tokens", EXAMPLES, "tokens that the loss counts"),
    Key("text_bytes", "train/text_bytes", EXAMPLES, "UTF-8 bytes of training text"),
    Key("device_seconds", "cost/device_seconds", SECONDS, "seconds of walking, times devices"),
    Key("joules", "cost/joules", SECONDS, "energy so far, where it was measured"),
    Key("peak_memory_bytes", "cost/peak_memory_bytes", SECONDS, "the most so far, of all processes"),
)
"""What a step shows, in this order; the axes first."""

AXES = tuple(key.name for key in WALK if key.axis is None)
"""What any key can be drawn over."""

PATTERNS = {"heldout/*": FLOPS, "task/*": FLOPS}
"""Keys that depend on the suite -> the axis that they are drawn over by default."""

_COSTS = ("device_seconds", "joules", "usd", "peak_memory_bytes", "training_flops", "evaluation_seconds",
          "adapter_bytes")  # fmt: skip
_COUNTS = {"total_parameters": "parameters/total", "trainable_parameters": "parameters/trained"}


def of_step(row: Mapping[str, Any]) -> Values:
    """A line of metrics.jsonl under the vocabulary; what was not measured is left out."""
    return {key.name: row[key.field] for key in WALK if row.get(key.field) is not None}


def at_the_end(row: Mapping[str, Any] | None) -> Values:
    """The place on every axis where the last step ended; the start of all of them where there was none."""
    return (
        dict.fromkeys(AXES, 0) if row is None else {name: of_step(row)[name] for name in AXES if name in of_step(row)}
    )


def of_cost(cost: Mapping[str, Any]) -> Values:
    """cost.json under the vocabulary; what is not known is left out."""
    named = {f"cost/{name}": cost.get(name) for name in _COSTS} | {key: cost.get(name) for name, key in _COUNTS.items()}
    return {key: value for key, value in named.items() if value is not None}


def score_key(task: str, metric: str) -> str:
    """The key of a task's score."""
    return f"{'heldout' if metric == 'bits_per_byte' else 'task'}/{task}/{metric}"


def ends(key: str) -> tuple[str, str]:
    """The keys of the ends of a score's 95 % interval."""
    return f"{key}/low", f"{key}/high"
