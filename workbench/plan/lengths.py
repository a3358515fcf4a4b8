"""How long the rows are, and what the largest and the usual micro-batch of a step is made of."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from workbench.plan.cutting import FEWEST, cut_by_tokens, cut_end_to_end, deal

Source = Literal["rows", "card", "maximum"]
_STEPS_LOOKED_AT, _ROWS_LOOKED_AT = 100, 8192
_SEED = 0
_Known = tuple[tuple[tuple[int, int], ...], int, Source, float | None]
"""A `Lengths` as values that can be looked up."""


@dataclass(frozen=True)
class Lengths:
    """The lengths of a recipe's examples, in tokens."""

    up_to: Mapping[int, int]
    """Upper edge of a bin -> examples in it."""
    longest: int
    source: Source
    """rows: of the very rows, when they were tokenised; card: as the dataset card states them (another tokenizer may
    give others); maximum: nothing is known, every row counts as the longest one allowed."""
    mean: float | None = None
    """Tokens of an example on average, where it is known exactly."""

    @property
    def examples(self) -> int:
        """How many there are; 0: not known."""
        return sum(self.up_to.values())

    def mean_tokens(self) -> float:
        """Tokens of an example on average: exact, or by the middles of the bins."""
        if self.mean is not None:
            return self.mean
        if not self.examples:
            return float(self.longest)
        return sum((low + high) / 2 * count for low, high, count in self._bins()) / self.examples

    def _bins(self) -> list[tuple[int, int, int]]:
        edges = sorted(self.up_to)
        lows = [1, *(edge + 1 for edge in edges)]
        return [(min(low, self.longest), min(edge, self.longest), self.up_to[edge])
                for low, edge in zip(lows, edges, strict=False)]  # fmt: skip

    def draw(self, count: int, chance: random.Random) -> list[int]:
        """So many lengths as the rows may have them: a bin by its share, evenly inside it; moved within their bins so
        that the mean is kept where it is known."""
        bins = self._bins()
        if not bins:
            return [self.longest] * count
        chosen = chance.choices(bins, weights=[number for *_, number in bins], k=count)
        high_side = self._high_side()
        return [low + round((high - low) * chance.random() ** high_side) for low, high, _ in chosen]

    def _high_side(self) -> float:
        """The power p that draws the known mean: u^p is 1 / (p + 1) of a bin's width on average."""
        if self.mean is None or not self.examples:
            return 1.0
        bins = self._bins()
        lows = sum(low * count for low, _, count in bins) / self.examples
        highs = sum(high * count for _, high, count in bins) / self.examples
        share = (self.mean - lows) / (highs - lows) if highs > lows else 0.5
        return 1.0 / min(max(share, 0.05), 0.95) - 1.0


def capped(lengths: Lengths, most: int, cuts_documents: bool) -> Lengths:
    """The lengths where no example may be longer than `most`.

    Args:
        cuts_documents: whether longer rows become several examples (raw text) or are cut or dropped.
    """
    if lengths.longest <= most:
        return lengths
    kept: dict[int, int] = {}
    before = 0
    for edge in sorted(lengths.up_to):
        count = lengths.up_to[edge]
        if edge > most and cuts_documents:
            middle = (before + min(edge, lengths.longest)) / 2
            whole, rest = divmod(middle, most)
            kept[most] = kept.get(most, 0) + round(count * whole)
            if rest >= 1:
                kept[min(edge, most)] = kept.get(min(edge, most), 0) + count
        else:
            kept[min(edge, most)] = kept.get(min(edge, most), 0) + count
        before = edge
    return Lengths(kept, most, lengths.source)


@dataclass(frozen=True)
class MicroBatch:
    """Rows side by side, padding included."""

    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Entries."""
        return self.rows * self.length


@dataclass(frozen=True)
class Steps:
    """What the steps of a run are made of."""

    usual: MicroBatch
    """The median step's largest micro-batch."""
    expected: MicroBatch
    """The largest of a run's micro-batches, as far as drawing lengths can tell."""
    worst: MicroBatch
    """The largest that the recipe allows."""
    tokens: float
    """Of a step over all devices, padding left out."""
    padded_tokens: float
    """Of a step over all devices, padding included."""
    squared_lengths: float
    """Sum of squared lengths of a step."""


@dataclass(frozen=True)
class Cutting:
    """How a run cuts its steps into micro-batches."""

    batch_size: int
    """Examples of a step over all devices."""
    devices: int
    most_tokens: int
    """Of a micro-batch, padding included."""
    start_tokens: int = FEWEST
    flattened: bool = False
    pairs: bool = False
    """Whether an example is two rows of like length (dpo)."""


def steps(lengths: Lengths, cutting: Cutting, num_steps: int) -> Steps:
    """The micro-batches of a run, from drawn lengths, dealt and cut as training does."""
    bins = tuple(sorted(lengths.up_to.items()))
    known = (bins, lengths.longest, lengths.source, lengths.mean)
    looked_at = max(1, min(num_steps, _STEPS_LOOKED_AT, max(4, _ROWS_LOOKED_AT // cutting.batch_size)))
    return _steps(known, cutting, looked_at)


@lru_cache(maxsize=256)
def _steps(known: _Known, cutting: Cutting, looked_at: int) -> Steps:
    """A plan asks for the same steps many times, with this and that changed around them."""
    bins, longest, source, mean = known
    lengths = Lengths(dict(bins), longest, source, mean)
    chance = random.Random(_SEED)
    double = 2 if cutting.pairs else 1
    largest: list[MicroBatch] = []
    tokens = padded = squares = 0.0
    for _ in range(looked_at):
        drawn = lengths.draw(cutting.batch_size, chance)
        batches = [
            batch
            for hand in deal(drawn, cutting.devices)
            for batch in _cut([drawn[at] for at in hand], cutting, double)
        ]
        largest.append(max(batches, key=lambda batch: batch.tokens))
        tokens += double * sum(drawn)
        padded += sum(batch.tokens for batch in batches)
        squares += double * sum(length**2 for length in drawn)
    share = max(1, -(-cutting.batch_size // cutting.devices))
    rows = max(1, min(share, cutting.most_tokens // max(1, double * longest)))
    worst = MicroBatch(double * rows, longest)
    expected = max(largest, key=lambda batch: batch.tokens)
    return Steps(
        usual=_median(largest),
        expected=expected,
        worst=max(worst, expected, key=lambda batch: batch.tokens),
        tokens=tokens / looked_at,
        padded_tokens=padded / looked_at,
        squared_lengths=squares / looked_at,
    )


def _cut(lengths: list[int], cutting: Cutting, double: int) -> list[MicroBatch]:
    """One device's share of a step."""
    if cutting.flattened:
        groups = cut_end_to_end(lengths, cutting.most_tokens)
        return [MicroBatch(1, sum(lengths[at] for at in group)) for group in groups]
    groups = cut_by_tokens([double * length for length in lengths], cutting.most_tokens, cutting.start_tokens)
    return [MicroBatch(double * len(group), max(lengths[at] for at in group)) for group in groups]


def _median(batches: Iterable[MicroBatch]) -> MicroBatch:
    ordered = sorted(batches, key=lambda batch: batch.tokens)
    return ordered[(len(ordered) - 1) // 2]
