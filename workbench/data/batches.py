"""The examples of every optimizer step, fixed by recipe and seed; and how a step is cut into micro-batches.

The order depends on the number of rows and the seed alone. An epoch's last step is short: no row is repeated to fill
it, and no step reaches across epochs. How a step is cut (tokens a micro-batch, padded or flattened) never changes which
rows it holds, and the loss is divided by the step's own count, so it does not change the result either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from workbench.data.rendering import IGNORED
from workbench.plan.cutting import FEWEST, cut_by_tokens, cut_end_to_end


class StepSampler:
    """Yields, for every optimizer step of an epoch, the row numbers of that step."""

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next (the trainer calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.num_rows / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        # A generator of our own: the order must not depend on what else draws random numbers in the process.
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.num_rows)
        for at in range(0, self.num_rows, self.batch_size):
            yield [int(row) for row in order[at : at + self.batch_size]]


_STARTS = 64
"""Places in the order of length that are looked at for the fullest micro-batch."""


def heaviest(
    lengths: Sequence[int], most_tokens: int, most_rows: int, start_tokens: int = FEWEST, flattened: bool = False
) -> list[list[int]]:
    """The micro-batches that a cut could at worst give of any steps over these rows: the one with the longest rows, and
    the one with the most tokens, padding included, where that is another (row positions).

    Args:
        most_rows: of a step.
        start_tokens: as `cut_by_tokens` takes it.
        flattened: whether rows lie end to end.
    """
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    if flattened:
        filled = [order[0]]
        while (
            len(filled) < min(most_rows, len(order))
            and sum(lengths[at] for at in (*filled, order[len(filled)])) <= most_tokens
        ):
            filled.append(order[len(filled)])
        return [filled]

    def whole(first: int) -> list[int]:
        """The most rows from there on that the cut leaves together."""
        count = max(1, min(most_tokens // lengths[order[first]], most_rows, len(order) - first))
        while count > 1:
            group = order[first : first + count]
            if len(cut_by_tokens([lengths[at] for at in group], most_tokens, start_tokens)) == 1:
                break
            count = min(count - 1, math.floor(0.9 * count))
        return order[first : first + count]

    firsts = sorted({len(order) * at // _STARTS for at in range(_STARTS)})
    groups = [whole(first) for first in firsts]
    fullest = max(groups, key=lambda group: len(group) * lengths[group[0]])
    return [groups[0]] if fullest is groups[0] else [groups[0], fullest]


class CausalCollator:
    """Rows of one step -> micro-batches of tensors for next-token training."""

    def __init__(self, pad_id: int, most_tokens: int, layout: str, start_tokens: int = FEWEST) -> None:
        """`start_tokens`: see `cut_by_tokens`."""
        self.pad_id, self.most_tokens, self.layout, self.start_tokens = pad_id, most_tokens, layout, start_tokens

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        lengths = [len(row["input_ids"]) for row in rows]
        if self.layout == "flattened":
            groups, make = cut_end_to_end(lengths, self.most_tokens), self._flattened
        else:
            groups, make = cut_by_tokens(lengths, self.most_tokens, self.start_tokens), self._padded
        batches = []
        for group in groups:
            members = [rows[at] for at in group]
            batches.append(make(members) | _origin(members))
        return batches

    def _padded(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """input_ids, labels, attention_mask, each [rows, longest]."""
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for at, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[at, :length] = torch.tensor(row["input_ids"])
            labels[at, :length] = torch.tensor(row["labels"])
            mask[at, :length] = 1
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    def _flattened(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """input_ids, labels, position_ids, each [1, tokens]; a row's first token is predicted by nothing."""
        ids = torch.cat([torch.tensor(row["input_ids"]) for row in rows])
        labels = torch.cat([torch.tensor([IGNORED, *row["labels"][1:]]) for row in rows])
        positions = torch.cat([torch.arange(len(row["input_ids"])) for row in rows])
        return {"input_ids": ids[None], "labels": labels[None], "position_ids": positions[None]}


class PairCollator:
    """Pairs of one step -> micro-batches for DPO: chosen rows first, rejected rows second."""

    def __init__(self, pad_id: int, most_tokens: int, start_tokens: int = FEWEST) -> None:
        """`start_tokens`: see `cut_by_tokens`."""
        self.pad_id, self.most_tokens, self.start_tokens = pad_id, most_tokens, start_tokens

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        lengths = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
        groups = cut_by_tokens([2 * length for length in lengths], self.most_tokens, self.start_tokens)
        return [self._batch([rows[at] for at in group]) for group in groups]

    def _batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        sequences = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
        width = max(len(prompt) + len(answer) for prompt, answer in sequences)
        shape = (len(sequences), width)
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        attention, completion = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for at, (prompt, answer) in enumerate(sequences):
            length = len(prompt) + len(answer)
            ids[at, :length] = torch.tensor([*prompt, *answer])
            attention[at, :length] = 1
            completion[at, len(prompt) : length] = 1
        batch = {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}
        if "ref_chosen_logps" in rows[0]:
            for key in ("ref_chosen_logps", "ref_rejected_logps"):
                batch[key] = torch.tensor([row[key] for row in rows], dtype=torch.float32)
        return batch | _origin(rows)


def _origin(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where a micro-batch came from, beside its tensors: the rows' places in their files, and their text's bytes."""
    return {"rows": [row["row"] for row in rows], "text_bytes": sum(row["text_bytes"] for row in rows)}
