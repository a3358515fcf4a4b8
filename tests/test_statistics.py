"""Intervals against scipy called plainly, formulas by hand, and a simulation of how often they cover the truth."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome, write_rows
from scipy import stats

from workbench.compare import statistics, table
from workbench.errors import ComparisonRefusedError
from workbench.runs.run import Run


def names(number: int) -> list[str]:
    """One cluster an item, in sorted order."""
    return [f"{at:05d}" for at in range(number)]


def plainly(sample: np.ndarray[Any, Any]) -> tuple[float, float]:
    """scipy's BCa interval of a mean, as its documentation calls it."""
    rng = np.random.default_rng(statistics._SEED)
    found = stats.bootstrap((sample,), np.mean, n_resamples=statistics.RESAMPLES, method="BCa", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def test_an_unclustered_mean_has_scipys_interval() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=80)
    found = statistics.mean(values.tolist(), [1.0] * 80, names(80))
    low, high = plainly(values)
    assert found.value == pytest.approx(values.mean())
    # the resamples are drawn in another shape: equal up to the bootstrap's own noise, far below the interval's width
    assert found.low == pytest.approx(low, abs=0.03 * (high - low))
    assert found.high == pytest.approx(high, abs=0.03 * (high - low))
    assert (found.items, found.clusters) == (80, 80)
    assert low < values.mean() < high


def test_an_unclustered_difference_has_scipys_interval() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.normal(size=120)
    ours = theirs + 0.1 + 0.3 * rng.normal(size=120)
    found = statistics.paired_difference(ours.tolist(), theirs.tolist(), [1.0] * 120, names(120))
    low, high = plainly(ours - theirs)
    assert found.value == pytest.approx((ours - theirs).mean())
    assert found.low == pytest.approx(low, abs=0.03 * (high - low))
    assert found.high == pytest.approx(high, abs=0.03 * (high - low))


def test_pairing_takes_the_items_difficulty_out() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(scale=5.0, size=100)
    ours, theirs = hard + 0.5 + 0.1 * rng.normal(size=100), hard
    found = statistics.paired_difference(ours.tolist(), theirs.tolist(), [1.0] * 100, names(100))
    alone = statistics.mean(ours.tolist(), [1.0] * 100, names(100))
    assert found.excludes_zero()
    assert (found.high - found.low) < 0.05 * (alone.high - alone.low)


def test_clusters_are_resampled_whole() -> None:
    """The half width is 1.96 of the clustered standard error sqrt(sum_c (sum_{i in c} e_i)^2) / n."""
    rng = np.random.default_rng(4)
    groups, size = 150, 6
    values = np.repeat(rng.normal(size=groups), size) + 0.2 * rng.normal(size=groups * size)
    clusters = [f"document {at // size}" for at in range(groups * size)]
    found = statistics.mean(values.tolist(), [1.0] * len(values), clusters)
    residuals = (values - values.mean()).reshape(groups, size).sum(axis=1)
    clustered = math.sqrt(float((residuals**2).sum())) / len(values)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * clustered, rel=0.06)
    assert (found.items, found.clusters) == (groups * size, groups)
    apart = statistics.mean(values.tolist(), [1.0] * len(values), names(len(values)))
    assert (found.high - found.low) > 2 * (apart.high - apart.low)  # taken apart they would claim too much


def test_bits_per_byte_is_a_ratio_of_sums() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(50, 2000, size=90).astype(float)
    bits = sizes * (1.0 + 0.3 * rng.random(90))
    found = statistics.mean((bits / sizes).tolist(), sizes.tolist(), names(90))
    assert found.value == pytest.approx(bits.sum() / sizes.sum())

    def ratio(above: Any, below: Any, axis: int = -1) -> Any:
        return above.sum(axis=axis) / below.sum(axis=axis)

    interval = stats.bootstrap((bits, sizes), ratio, paired=True, rng=np.random.default_rng(9)).confidence_interval
    assert found.low == pytest.approx(interval.low, abs=0.05 * (interval.high - interval.low))
    assert found.high == pytest.approx(interval.high, abs=0.05 * (interval.high - interval.low))


def test_a_weighted_difference_is_the_difference_of_the_weighted_means() -> None:
    rng = np.random.default_rng(6)
    ours, theirs, weights = rng.random(40).tolist(), rng.random(40).tolist(), rng.integers(1, 900, 40).tolist()
    found = statistics.paired_difference(ours, theirs, weights, names(40))
    one, other = (statistics.mean(values, weights, names(40)).value for values in (ours, theirs))
    assert found.value == pytest.approx(one - other)


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.088), (1.0, 0.912, 1.0)])
def test_all_wrong_and_all_right_have_wilsons_interval(value: float, low: float, high: float) -> None:
    """0 of 40: the upper end is z^2 / (n + z^2)."""
    found = statistics.mean([value] * 40, [1.0] * 40, names(40))
    edge = 1.959964**2 / (40 + 1.959964**2)
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-3)
    assert found.high - found.low == pytest.approx(edge, rel=1e-4)


def test_wilson_counts_clusters_not_items() -> None:
    few = statistics.mean([0.0] * 40, [1.0] * 40, [str(at // 10) for at in range(40)])
    assert few.high == pytest.approx(1.959964**2 / (4 + 1.959964**2), rel=1e-4)


def test_equal_runs_differ_by_exactly_nothing() -> None:
    values = np.random.default_rng(7).random(30).tolist()
    found = statistics.paired_difference(values, values, [1.0] * 30, names(30))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.excludes_zero()


def test_scores_that_are_all_equal_give_an_interval_of_no_width() -> None:
    found = statistics.mean([0.3] * 12, [2.0] * 12, names(12))
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))


def test_one_item_that_differs_does_not_exclude_zero() -> None:
    theirs = [0.0] * 200
    ours = [1.0] + [0.0] * 199
    found = statistics.paired_difference(ours, theirs, [1.0] * 200, names(200))
    assert found.value == pytest.approx(0.005)
    assert not found.excludes_zero()


def test_one_cluster_alone_proves_nothing() -> None:
    """Two pieces of one document, both better: how another document would have come out is not known."""
    found = statistics.paired_difference([0.8, 0.9], [1.0, 1.0], [10.0, 20.0], ["document", "document"])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert not found.excludes_zero()


def test_the_order_of_items_changes_nothing() -> None:
    rng = np.random.default_rng(8)
    size = 60
    ours, theirs, weights = rng.random(size), rng.random(size), rng.integers(1, 99, size).astype(float)
    clusters = np.array([f"c{at % 17}" for at in range(size)])
    order = rng.permutation(size)
    one = statistics.paired_difference(ours.tolist(), theirs.tolist(), weights.tolist(), clusters.tolist())
    other = statistics.paired_difference(
        ours[order].tolist(), theirs[order].tolist(), weights[order].tolist(), clusters[order].tolist()
    )
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high), rel=1e-9)
    alone = statistics.mean(ours.tolist(), weights.tolist(), clusters.tolist())
    again = statistics.mean(ours[order].tolist(), weights[order].tolist(), clusters[order].tolist())
    assert (again.value, again.low, again.high) == pytest.approx((alone.value, alone.low, alone.high), rel=1e-9)


def test_the_same_scores_give_the_same_interval_every_time() -> None:
    values = np.random.default_rng(9).random(50).tolist()
    assert statistics.mean(values, [1.0] * 50, names(50)) == statistics.mean(values, [1.0] * 50, names(50))


@pytest.mark.parametrize("kind", ["normal", "clustered", "graded"])
def test_ninety_five_of_a_hundred_intervals_hold_the_truth(kind: str) -> None:
    """300 simulated comparisons with a known difference."""
    rng = np.random.default_rng(20_261_122)
    covered, runs = 0, 300
    for _ in range(runs):
        if kind == "normal":
            truth, clusters = 0.1, names(60)
            theirs = rng.normal(size=60)
            ours = theirs + truth + rng.normal(size=60)
        elif kind == "clustered":
            truth, clusters = 0.1, [f"{at // 4:03d}" for at in range(240)]
            theirs = rng.normal(size=240)
            ours = theirs + truth + np.repeat(rng.normal(size=60), 4) + 0.3 * rng.normal(size=240)
        else:  # right or wrong, with items of unequal difficulty
            truth, clusters = 0.1, names(200)
            easy = rng.uniform(0.2, 0.8, size=200)
            theirs = (rng.random(200) < easy).astype(float)
            ours = (rng.random(200) < easy + truth).astype(float)
        ones = [1.0] * len(clusters)
        found = statistics.paired_difference(ours.tolist(), theirs.tolist(), ones, clusters, resamples=999)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / runs <= 0.98


def scored_run(root: Path, name: str, rows: list[dict[str, Any]], **more: Any) -> Run:
    """A run directory with scores of one task, as the worker leaves them."""
    run = Run(root / name)
    write_rows(run.items("suite"), rows)
    values = [row["value"] for row in rows]
    estimate = statistics.mean(values, [row["weight"] for row in rows], [row["cluster"] for row in rows])
    results = {
        "fingerprint": "f" * 64, "metric_version": 1, "templates": {"facts": "t"}, "conditions": {"dtype": "fp32"},
        "tasks": {"facts": {"metric": "exact_match", "higher_is_better": True, **estimate.as_words()}},
    }  # fmt: skip
    run.results("suite").write_text(json.dumps(results | more))
    (run.path / "resolved.json").write_text("{}")
    return run


def item_rows(values: list[float]) -> list[dict[str, Any]]:
    return [
        {"task": "facts", "id": f"i{at}", "cluster": f"c{at // 2}", "value": value, "weight": 1.0, "state": "ok"}
        for at, value in enumerate(values)
    ]


ONE = [float(at % 2) for at in range(40)]
TWO = [float(at % 4 > 0) for at in range(40)]


def test_compare_pairs_items_by_id_in_whatever_order_they_stand(tmp_path: Path) -> None:
    first = scored_run(tmp_path, "first", item_rows(ONE))
    second = scored_run(tmp_path, "second", list(reversed(item_rows(TWO))))
    suite, tables = table.compare([first, second])
    cell = tables[0].cells[1]
    expected = statistics.paired_difference(TWO, ONE, [1.0] * 40, [f"c{at // 2}" for at in range(40)])
    assert suite == "suite"
    assert cell.difference is not None
    assert (cell.difference.value, cell.difference.low, cell.difference.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert tables[0].cells[0].difference is None


def changed(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        "one item less": rows[:-1],
        "one item more": [*rows, {**rows[-1], "id": "i999"}],
        "another item": [*rows[:-1], {**rows[-1], "id": "i999"}],
        "an item twice": [*rows[:-1], rows[0]],
        "no item": [],
    }


@pytest.mark.parametrize("change", changed(item_rows(ONE)))
@pytest.mark.parametrize("damaged", [0, 1])
def test_compare_refuses_item_files_whose_ids_changed(
    workbench: Callable[..., Outcome], tmp_path: Path, change: str, damaged: int
) -> None:
    runs = [scored_run(tmp_path / "runs", name, item_rows(values)) for name, values in (("a", ONE), ("b", TWO))]
    write_rows(runs[damaged].items("suite"), changed(item_rows(ONE))[change])
    with pytest.raises(ComparisonRefusedError, match="different items"):
        table.compare(runs)
    outcome = workbench("compare", "a", "b")
    assert outcome.status == 3
    assert "damaged" in outcome.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "e" * 64}, "items or the task settings"),
        ({"metric_version": 2}, "different definitions"),
        ({"templates": {"facts": "u"}}, "different templates"),
        ({"conditions": {"dtype": "bf16"}}, "different conditions"),
    ],
)
def test_compare_refuses_scores_made_under_different_terms(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    runs = [scored_run(tmp_path, "a", item_rows(ONE)), scored_run(tmp_path, "b", item_rows(TWO), **change)]
    for order in itertools.permutations(runs):
        with pytest.raises(ComparisonRefusedError, match=words):
            table.compare(list(order))


def test_compare_says_what_to_do_where_a_run_was_not_scored(tmp_path: Path) -> None:
    first = scored_run(tmp_path, "first", item_rows(ONE))
    bare = Run(tmp_path / "bare")
    bare.path.mkdir()
    with pytest.raises(ComparisonRefusedError, match="workbench eval bare --suite suite"):
        table.compare([first, bare], "suite")
    with pytest.raises(ComparisonRefusedError, match="no suite that all"):
        table.compare([first, bare])
