"""Suites: the frozen lists of what a run is scored on (`recipes/suites/NAME.yaml`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from workbench.catalog.cards import Row

LOWER_IS_BETTER = frozenset(
    {"bits_per_byte", "answer_bits_per_byte", "perplexity", "word_perplexity", "byte_perplexity"}
)
"""Metrics where less is better; for all others more is."""

Role = Literal["target", "retention"]


class _Items(Row):
    id: str
    """What the task is called in results."""
    role: Role = "target"
    """target: what is trained for; retention: what the base could do before and should not lose."""
    data: str
    """A dataset card: its name, or a path relative to the suite."""
    split: str = "test"
    """Which split of the card the items come from."""
    max_items: Annotated[int, Field(ge=1)] | None = None
    """A frozen subset: the items whose seeded content hash is lowest. None: all."""

    def splits(self) -> dict[str, str]:
        """The splits that the task reads, by the field that names each."""
        return {"split": self.split}


class _Prompted(_Items):
    template: Literal["as_trained", "base", "plain"] = "as_trained"
    """as_trained: the recipe's `data.template` (and system message), so that training and scoring see one prompt."""
    fewshot: Annotated[int, Field(ge=0)] = 0
    """How many solved examples of `fewshot_split` stand before each item."""
    fewshot_split: str = "train"
    """Where they are drawn from (by content hash, the same for every item)."""

    def splits(self) -> dict[str, str]:
        """As above; solved examples are read only where there are to be some."""
        return super().splits() | ({"fewshot_split": self.fewshot_split} if self.fewshot else {})


class Heldout(_Items):
    """Bits per byte of raw text: comparable across tokenizers. Every byte is scored once, after BOS (else EOS)."""

    name: Literal["heldout"] = "heldout"
    max_bytes: Annotated[int, Field(ge=64)] = 2048
    """Longest item; a document is cut at line ends, and its pieces are one cluster."""
    primary: Literal["bits_per_byte"] = "bits_per_byte"
    """The metric that a comparison is decided on."""


class Generate(_Prompted):
    """Greedy generation, an extraction, and exact match with the expected answer."""

    name: Literal["generate"] = "generate"
    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Longest answer; one that does not end within it is `truncated`."""
    extract: str | None = None
    """Regex whose first group (last match) is the answer, in the output and the expected text alike; or `json:KEY`.
    None: the whole text, stripped."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end an answer (besides the end-of-turn token)."""
    refusal: str | None = None
    """Regex of an answer that declines; such items are `refused`, apart from wrong."""
    primary: Literal["exact_match"] = "exact_match"
    """The metric that a comparison is decided on."""


class Choice(_Prompted):
    """Log-likelihood over given options; the likeliest is the answer."""

    name: Literal["choice"] = "choice"
    options: list[str] | str = "answers"
    """The options, the column that lists an item's own, or `answers`: all distinct expected answers of the split."""
    primary: Literal["accuracy", "accuracy_per_byte", "answer_bits_per_byte"] = "accuracy"
    """The metric that a comparison is decided on. `accuracy_per_byte` divides an option's log-likelihood by its bytes;
    `answer_bits_per_byte` is the expected answer's own surprise."""


class LmEval(Row):
    """A task of lm-evaluation-harness (the `lm-eval` extra), by name or by a local task YAML."""

    name: Literal["lm_eval"] = "lm_eval"
    id: str
    """What the task is called in results."""
    role: Role = "target"
    """As in the other tasks."""
    task: str
    """Name of one of its tasks, or a path to a task YAML relative to the suite."""
    fewshot: Annotated[int, Field(ge=0)] | None = None
    """Number of examples; None: the task's own."""
    max_items: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many documents. None: all."""
    primary: str = "acc"
    """The metric that a comparison is decided on, of those that every document has by itself (`acc`, `exact_match`;
    where a task filters answers in several ways `metric,filter`). Perplexities and set-wide metrics are refused."""

    @property
    def is_file(self) -> bool:
        """Whether `task` is the path of a task file rather than a name that the library knows."""
        return self.task.endswith((".yaml", ".yml"))


Task = Annotated[Heldout | Generate | Choice | LmEval, Field(discriminator="name")]
Prompted = Generate | Choice
OwnTask = Heldout | Generate | Choice


class Suite(Row):
    """A frozen list of tasks. Its fingerprint covers the exact items."""

    description: str = ""
    """What it measures, for a reader."""
    tasks: Annotated[list[Task], Field(min_length=1)]
    """The tasks, each with its own `id`."""
    fingerprint: str | None = None
    """Where given, the items must have this fingerprint (shown by a first run): the suite is frozen for good."""

    def as_words(self) -> dict[str, Any]:
        """The suite as plain values."""
        return self.model_dump(mode="json")
