"""Dataset cards: where rows come from and what their columns mean (`datasets/NAME.yaml`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Format = Literal["messages", "prompt_completion", "instruction", "sharegpt", "preference", "text"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "instruction": ("instruction", "input", "output"),
    "sharegpt": ("conversations",),
    "preference": ("prompt", "chosen", "rejected"),
    "text": ("text",),
}
"""The columns that each format needs (`input` may be absent)."""


class Row(BaseModel):
    """What cards share with recipes: unknown fields are errors, nothing is converted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Split(Row):
    """One split of a dataset: files, and, where one file serves several splits, a share of its rows."""

    files: str | list[str] = Field(default_factory=list)
    """Paths or globs relative to the card (or inside the hub repository): .jsonl .json .csv .parquet .txt"""
    share: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None, strict=False
    )
    """`[from, to)` of the unit interval: the rows whose seeded content hash lies in it. Appending rows moves no row
    from one split to another."""


class Source(Row):
    """Where the files lie. None of the fields: beside the card."""

    hub: str | None = None
    """A dataset repository on the hub."""
    revision: str | None = None
    """Its commit, tag or branch; resolved to a commit and recorded."""
    directory: str | None = None
    """A directory written by `datasets`' `save_to_disk` (its splits are then named there)."""


LengthBin = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]], Field(strict=False)]
"""`[tokens up to, rows]`."""


class Card(Row):
    """A dataset: source, licence, format, columns and splits."""

    description: str = ""
    """What the rows are, for a reader."""
    source: Source = Field(default_factory=Source)
    """Where the files lie."""
    format: Format
    """How a row is read: messages, prompt_completion, instruction, sharegpt, preference or text."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column -> theirs, or a pattern over theirs (`prompt: "Question: {question}\\n"`)."""
    id: str | None = None
    """Column with a stable name of a row. None: its content's hash."""
    cluster: str | None = None
    """Column that says which rows share a source (a passage, a person); intervals take such rows together."""
    splits: dict[str, Split]
    """Splits by name."""
    split_seed: int = 0
    """Seed of the shares."""
    lengths: list[LengthBin] = Field(default_factory=list)
    """`[tokens up to, rows]` of the training split, rising, as counted with some tokenizer: what a plan goes by before
    the rows were tokenised here (`workbench data show` prints them)."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """For .txt files: what stands between documents (`<|endoftext|>`)."""
    document_bytes: Annotated[int, Field(ge=64)] | None = None
    """For .txt files without a separator: cut at line ends into documents of about this many bytes."""
    licence: str = "unknown"
    """SPDX name of the licence, or `unknown`."""
    origin: str = ""
    """Address where the rows come from."""
    as_of: str = ""
    """Day on which licence and origin were looked up."""
