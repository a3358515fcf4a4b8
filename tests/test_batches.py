"""Which rows a step holds, and how it is cut into micro-batches: every row once, whatever the cut."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from workbench.data.batches import CausalCollator, PairCollator, StepSampler
from workbench.data.rendering import IGNORED
from workbench.plan.cutting import FEWEST, cut_by_tokens, cut_end_to_end

PAD = 99


def epoch(sampler: StepSampler, number: int = 0) -> list[list[int]]:
    sampler.set_epoch(number)
    return list(sampler)


def causal_row(draw: random.Random, number: int) -> dict[str, Any]:
    ids = [draw.randint(1, 50) for _ in range(draw.randint(2, 30))]
    prompt = draw.randint(0, len(ids) - 1)
    labels = [IGNORED] * prompt + ids[prompt:]
    return {"input_ids": ids, "labels": labels, "text_bytes": len(ids) * 3, "row": f"rows.jsonl:{number}"}


def pair_row(draw: random.Random, number: int) -> dict[str, Any]:
    prompt, chosen, rejected = ([draw.randint(1, 50) for _ in range(draw.randint(1, 20))] for _ in range(3))
    return {
        "prompt_ids": prompt,
        "chosen_ids": chosen,
        "rejected_ids": rejected,
        "text_bytes": len(chosen) + len(rejected),
        "row": f"pairs.jsonl:{number}",
    }


# ---- the order of rows


@pytest.mark.parametrize(("num_rows", "batch_size"), [(1, 1), (10, 3), (12, 3), (3, 10), (100, 7)])
def test_every_row_stands_once_in_an_epoch_and_only_the_last_step_is_short(num_rows: int, batch_size: int) -> None:
    sampler = StepSampler(num_rows, batch_size, seed=0)
    steps = epoch(sampler)
    assert len(steps) == len(sampler) == math.ceil(num_rows / batch_size)
    assert sorted(row for step in steps for row in step) == list(range(num_rows))
    assert all(len(step) == batch_size for step in steps[:-1])
    assert len(steps[-1]) == num_rows - batch_size * (len(steps) - 1)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    order = epoch(StepSampler(50, 4, seed=1), 2)
    assert epoch(StepSampler(50, 4, seed=1), 2) == order
    assert epoch(StepSampler(50, 4, seed=1), 3) != order
    assert epoch(StepSampler(50, 4, seed=2), 2) != order
    assert epoch(StepSampler(50, 4, seed=2), 1) != order


def test_the_batch_size_does_not_change_the_order() -> None:
    flat = [[row for step in epoch(StepSampler(50, size, seed=1)) for row in step] for size in (1, 7, 50)]
    assert flat[0] == flat[1] == flat[2]


def test_an_epoch_can_be_taken_without_those_before_it() -> None:
    walked = StepSampler(20, 3, seed=5)
    for number in range(4):
        last = epoch(walked, number)
    assert epoch(StepSampler(20, 3, seed=5), 3) == last


def test_what_else_draws_random_numbers_does_not_matter() -> None:
    orders = []
    for state in (0, 123):
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        sampler = iter(StepSampler(40, 4, seed=3))
        taken = []
        for step in sampler:
            random.random()
            np.random.rand(state + 1)
            torch.rand(3)
            taken.append(step)
        orders.append(taken)
    assert orders[0] == orders[1]


def test_drawing_the_order_leaves_the_global_random_states_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    epoch(StepSampler(40, 4, seed=3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_the_orders_of_the_epochs_look_independent() -> None:
    firsts = Counter(epoch(StepSampler(4, 1, seed=0), number)[0][0] for number in range(400))
    assert set(firsts) == {0, 1, 2, 3}
    assert min(firsts.values()) > 60  # 100 expected, standard deviation 9


# ---- cutting by tokens


def test_micro_batches_cover_every_row_once_within_the_limit() -> None:
    draw = random.Random(0)
    for _ in range(300):
        lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 40))]
        limit = draw.randint(1, 200)
        groups = cut_by_tokens(lengths, limit, draw.choice((0, 5, 50, FEWEST)))
        assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
        for group in groups:
            assert len(group) == 1 or max(lengths[at] for at in group) * len(group) <= limit
        widest = [max(lengths[at] for at in group) for group in groups]
        assert widest == sorted(widest, reverse=True)


def test_a_row_longer_than_the_limit_stands_alone() -> None:
    assert cut_by_tokens([5, 100, 5], 10) == [[1], [0, 2]]


def test_all_rows_fit_in_one_where_the_limit_allows() -> None:
    assert cut_by_tokens([3, 2, 1], 9) == [[0, 1, 2]]
    assert cut_by_tokens([4, 2, 2], 8) == [[0], [1, 2]]
    assert cut_by_tokens([], 8) == []


def cuts(positions: list[int]) -> Iterator[list[list[int]]]:
    """Every way to put positions into groups."""
    if not positions:
        yield []
        return
    first, rest = positions[0], positions[1:]
    for others in cuts(rest):
        yield [[first], *others]
        yield from ([*others[:at], [first, *group], *others[at + 1 :]] for at, group in enumerate(others))


@pytest.mark.parametrize("start_tokens", [0, 3, 20, FEWEST])
def test_no_other_cut_takes_less(start_tokens: int) -> None:
    """Against every one of the 203 or fewer ways to cut up to six rows."""

    def cost(groups: list[list[int]], lengths: list[int], limit: int) -> float:
        sizes = [max(lengths[at] for at in group) * len(group) for group in groups]
        if any(size > limit and len(group) > 1 for size, group in zip(sizes, groups, strict=True)):
            return math.inf
        return sum(sizes) + start_tokens * len(groups)

    draw = random.Random(start_tokens)
    for _ in range(60):
        lengths = [draw.randint(1, 12) for _ in range(draw.randint(1, 6))]
        limit = draw.randint(1, 60)
        found = cost(cut_by_tokens(lengths, limit, start_tokens), lengths, limit)
        assert found == min(cost(groups, lengths, limit) for groups in cuts(list(range(len(lengths)))))


def test_a_start_is_paid_where_it_saves_more_padding() -> None:
    lengths = [100, 10, 10, 10]
    assert cut_by_tokens(lengths, 1000, start_tokens=200) == [[0], [1, 2, 3]]  # saves 270
    assert cut_by_tokens(lengths, 1000, start_tokens=300) == [[0, 1, 2, 3]]


def test_rows_end_to_end_fill_what_there_is() -> None:
    draw = random.Random(1)
    for _ in range(200):
        lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 40))]
        limit = draw.randint(1, 200)
        groups = cut_end_to_end(lengths, limit)
        assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
        sums = [sum(lengths[at] for at in group) for group in groups]
        assert all(total <= limit or len(group) == 1 for total, group in zip(sums, groups, strict=True))
        assert all(one + other > limit for at, one in enumerate(sums) for other in sums[:at])  # no two fit into one
    assert cut_end_to_end([5, 4, 3, 2], 7) == [[0, 3], [1, 2]]
    assert cut_end_to_end([], 7) == []


# ---- next-token training


def padded_rows(batch: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    return [
        (ids[mask.bool()].tolist(), labels[mask.bool()].tolist())
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    ]


def flattened_rows(batch: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    ids, labels, positions = (batch[key][0].tolist() for key in ("input_ids", "labels", "position_ids"))
    starts = [at for at, position in enumerate(positions) if position == 0]
    return [(ids[a:b], labels[a:b]) for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]


@pytest.mark.parametrize("layout", ["padded", "flattened"])
def test_every_row_comes_through_whole_whatever_the_limit(layout: str) -> None:
    draw = random.Random(layout)
    for limit in (1, 25, 64, 10_000):
        rows = [causal_row(draw, number) for number in range(20)]
        batches = CausalCollator(PAD, limit, layout)(rows)
        read = padded_rows if layout == "padded" else flattened_rows
        by_place = {row["row"]: row for row in rows}
        for batch in batches:
            assert batch["input_ids"].dtype == batch["labels"].dtype == torch.long
            found = read(batch)
            assert len(found) == len(batch["rows"])
            assert len(found) == 1 or batch["input_ids"].numel() <= limit
            for (ids, labels), place in zip(found, batch["rows"], strict=True):
                row = by_place.pop(place)
                assert ids == row["input_ids"]
                assert labels[1:] == row["labels"][1:]  # the first token is predicted by nothing
        assert not by_place
        assert sum(batch["text_bytes"] for batch in batches) == sum(row["text_bytes"] for row in rows)


def test_padding_is_masked_and_never_counted() -> None:
    rows = [
        {"input_ids": [1, 2, 3], "labels": [IGNORED, 2, 3], "text_bytes": 2, "row": "a:1"},
        {"input_ids": [4], "labels": [4], "text_bytes": 1, "row": "a:2"},
    ]
    (batch,) = CausalCollator(PAD, 100, "padded")(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, PAD, PAD]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3], [4, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert (batch["rows"], batch["text_bytes"]) == (["a:1", "a:2"], 3)


def test_in_the_flattened_layout_no_row_predicts_the_next_ones_first_token() -> None:
    rows = [
        {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "text_bytes": 3, "row": "a:1"},
        {"input_ids": [4, 5], "labels": [4, 5], "text_bytes": 2, "row": "a:2"},
    ]
    (batch,) = CausalCollator(PAD, 100, "flattened")(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3, IGNORED, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert "attention_mask" not in batch


@pytest.mark.parametrize("limit", [1, 60, 10_000])
def test_both_layouts_and_every_cut_count_the_same_predictions(limit: int) -> None:
    draw = random.Random(4)
    rows = [causal_row(draw, number) for number in range(20)]
    expected = sorted(label for row in rows for label in row["labels"][1:] if label != IGNORED)
    for layout in ("padded", "flattened"):
        batches = CausalCollator(PAD, limit, layout)(rows)
        # As the loss counts: a label is predicted by the position before it, the first of a row of tensors by none.
        found = [label for batch in batches for label in batch["labels"][:, 1:].flatten().tolist() if label != IGNORED]
        assert sorted(found) == expected


# ---- pairs


@pytest.mark.parametrize("limit", [1, 80, 10_000])
def test_pairs_stand_chosen_first_with_their_answers_marked(limit: int) -> None:
    draw = random.Random(limit)
    rows = [pair_row(draw, number) for number in range(15)]
    by_place = {row["row"]: row for row in rows}
    for batch in PairCollator(PAD, limit)(rows):
        half = len(batch["rows"])
        assert batch["input_ids"].shape[0] == 2 * half
        assert half == 1 or batch["input_ids"].numel() <= limit
        for at, place in enumerate(batch["rows"]):
            row = by_place.pop(place)
            for line, side in ((at, "chosen_ids"), (half + at, "rejected_ids")):
                ids, mask, answer = (batch[key][line] for key in ("input_ids", "attention_mask", "completion_mask"))
                assert ids[mask.bool()].tolist() == row["prompt_ids"] + row[side]
                assert ids[answer.bool()].tolist() == row[side]
                assert (ids[~mask.bool()] == PAD).all()
                assert mask.tolist() == sorted(mask.tolist(), reverse=True)  # padding stands at the end
    assert not by_place


def test_reference_log_probabilities_stay_with_their_pairs() -> None:
    draw = random.Random(0)
    rows = [
        pair_row(draw, number) | {"ref_chosen_logps": -float(number), "ref_rejected_logps": -100.0 - number}
        for number in range(6)
    ]
    found = {}
    for batch in PairCollator(PAD, 100)(rows):
        for place, chosen, rejected in zip(
            batch["rows"], batch["ref_chosen_logps"].tolist(), batch["ref_rejected_logps"].tolist(), strict=True
        ):
            found[place] = (chosen, rejected)
    assert found == {row["row"]: (row["ref_chosen_logps"], row["ref_rejected_logps"]) for row in rows}
    assert "ref_chosen_logps" not in PairCollator(PAD, 100)([pair_row(draw, 0)])[0]
