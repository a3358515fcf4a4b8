"""How a step is cut into micro-batches: the one rule, used by training and by the plan alike."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.plan.cost import Work, training_flops

FEWEST = 2**32
"""As `start_tokens`: there are as few micro-batches as fit, and then the least padding."""


def cut_by_tokens(lengths: Sequence[int], most_tokens: int, start_tokens: int = FEWEST) -> list[list[int]]:
    """Positions grouped into micro-batches of at most `most_tokens`, padding included (a longer row stands alone), such
    that all take the least time: sum of rows x widest, and `start_tokens` for every micro-batch (what starting one
    costs, in tokens). Rows of like length come together; longest first, so that memory peaks at once.

    In the order of length every group is a stretch, so the best cut of the first k rows is the best cut of some first j
    and one group of the rest (dynamic programming over k).
    """
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    least, begins = [0], [0]
    """Of the first k rows: what they cost, and where their last group begins."""
    for end in range(1, len(order) + 1):
        best, begin = least[end - 1] + lengths[order[end - 1]], end - 1
        for first in range(end - 2, -1, -1):
            padded = lengths[order[first]] * (end - first)
            if padded > most_tokens:
                break  # more rows, and longer ones, only pad more
            if least[first] + padded + start_tokens <= best + start_tokens:  # of equals the fewest groups
                best, begin = least[first] + padded, first
        least.append(best + start_tokens)
        begins.append(begin)
    groups = []
    end = len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]


def cut_end_to_end(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Positions grouped into as few micro-batches as fit end to end in `most_tokens` (a longer row stands alone): each
    row, longest first, goes where room is left (first fit decreasing: at most 11/9 of the fewest, Johnson 1973)."""
    groups: list[list[int]] = []
    room: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        place = next((place for place, left in enumerate(room) if lengths[at] <= left), None)
        if place is None:
            groups.append([at])
            room.append(most_tokens - lengths[at])
        else:
            groups[place].append(at)
            room[place] -= lengths[at]
    return groups


def deal(lengths: Sequence[int], world: int) -> list[list[int]]:
    """Positions by process: the longest first, each to the process with the fewest tokens so far. Every position goes
    to one process; with fewer positions than processes, some get none."""
    hands: list[list[int]] = [[] for _ in range(world)]
    held = [0] * world
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        fewest = min(range(world), key=lambda rank: (held[rank], rank))
        hands[fewest].append(at)
        held[fewest] += lengths[at]
    return [sorted(hand) for hand in hands]


_CPU_START_FLOPS = 1.5e8
"""Operations that a thread of a CPU could do while one layer's calls of a micro-batch are only started: 2.5 to 3 ms at
50 GFLOP/s (fitted to micro-batches of 8 to 512 tokens, Qwen3 with 4 and 6 layers under LoRA)."""
_START_SECONDS = 1e-3
"""What starting one layer's kernels takes on an accelerator: about 200, forward and backward, at 5 microseconds."""
_SHARE_OF_PEAK, _USUAL_PEAK = 0.4, 1e14
"""Part of its peak that an accelerator reaches in training; operations a second of one whose peak is not known."""


def start_cost_tokens(work: Work, threads: int | None, peak_tflops: float | None) -> int:
    """What starting a micro-batch costs, in tokens that could be trained on meanwhile.

    Args:
        work: what one token passes through.
        threads: of a CPU; None: an accelerator.
        peak_tflops: of the accelerator, where it is known.
    """
    if threads is not None:
        flops = _CPU_START_FLOPS * threads
    else:
        flops = _START_SECONDS * _SHARE_OF_PEAK * (peak_tflops * 1e12 if peak_tflops else _USUAL_PEAK)
    return round(flops * work.layers / training_flops(work, 1.0, 0.0))
