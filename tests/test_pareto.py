"""Fronts of quality against cost: an arm leaves one only on proof."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from workbench.compare import pareto
from workbench.compare.pareto import COSTS, Point, front, proved_cheaper, proved_not_dearer


def quality(
    values: dict[str, float], margin: float = 0.02, resolved: float = 0.005
) -> tuple[Callable[[str, str], bool], Callable[[str, str], bool]]:
    """Predicates of a study that resolves differences beyond `resolved`: better, and not worse by the margin."""
    return (
        lambda a, b: values[a] - values[b] > resolved,
        lambda a, b: values[a] - values[b] - resolved > -margin,
    )


def test_an_arm_that_costs_more_and_does_worse_is_off() -> None:
    values = {"base": 0.0, "lora": 0.99, "full": 0.99, "scratch": 0.05}
    points = [Point("base", 0.0), Point("lora", 4e12), Point("full", 6e12), Point("scratch", 6e12)]
    found = front(points, *quality(values))
    assert found.front == ["base", "lora"]
    assert found.off == {"full": "lora", "scratch": "lora"}


def test_better_and_dearer_stays_beside_worse_and_cheaper() -> None:
    found = front([Point("large", 9.0), Point("small", 1.0)], *quality({"large": 0.9, "small": 0.5}))
    assert (found.front, found.off) == (["small", "large"], {})


def test_nothing_goes_off_without_proof_of_its_quality() -> None:
    """Cheaper by far, and apparently better: but nothing about quality is proved."""
    found = front([Point("a", 1.0), Point("b", 9.0)], lambda a, b: False, lambda a, b: False)
    assert found.front == ["a", "b"]


def test_equal_in_both_stays() -> None:
    found = front([Point("a", 1.0), Point("b", 1.0)], *quality({"a": 0.5, "b": 0.5}))
    assert (found.front, found.off) == (["a", "b"], {})


def test_of_equal_exact_costs_the_better_one_stays() -> None:
    found = front([Point("a", 1.0), Point("b", 1.0)], *quality({"a": 0.5, "b": 0.6}))
    assert (found.front, found.off) == (["b"], {"a": "b"})


def test_arms_that_dominate_each_other_in_a_ring_do_not_all_go() -> None:
    """Proofs with margins need not be transitive; somebody stays, and every other one has its reason."""
    better = {("a", "b"), ("b", "c"), ("c", "a")}
    points = [Point(name, 1.0) for name in "abc"]
    found = front(points, lambda x, y: (x, y) in better, lambda x, y: (x, y) in better)
    assert found.front
    assert set(found.front) | set(found.off) == {"a", "b", "c"}
    assert all((winner, loser) in better for loser, winner in found.off.items())


def test_a_measured_cost_is_compared_by_welchs_interval_on_logs() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        one, other = np.exp(rng.normal(3.0, 0.05, 3)), np.exp(rng.normal(3.12, 0.09, 5))
        a, b = (Point(name, float(each.mean()), each.tolist()) for name, each in (("a", one), ("b", other)))
        interval = stats.ttest_ind(np.log(one), np.log(other), equal_var=False).confidence_interval(0.95)
        assert pareto._highest_log_ratio(a, b) == pytest.approx(interval.high)
        assert proved_cheaper(a, b) == (interval.high < 0)
        assert proved_cheaper(b, a) == (interval.low > 0)


def test_equal_arms_are_called_cheaper_no_oftener_than_promised() -> None:
    """Two-sided 95 %: about one pair in forty on each side."""
    rng = np.random.default_rng(4)
    draws = np.exp(rng.normal(3.0, 0.1, size=(2000, 2, 3)))
    wrong = sum(
        proved_cheaper(Point("a", float(one.mean()), one.tolist()), Point("b", float(other.mean()), other.tolist()))
        for one, other in draws
    )
    assert wrong / 2000 < 0.035


@pytest.mark.parametrize(("seconds", "cheaper"), [(14.9, False), (15.1, True)])
def test_one_timing_proves_only_a_ratio_beyond_one_and_a_half(seconds: float, cheaper: bool) -> None:
    once = Point("once", 10.0, [10.0])
    assert proved_cheaper(once, Point("again", seconds, [seconds])) == cheaper
    assert proved_cheaper(once, Point("often", seconds, [seconds, seconds, seconds])) == cheaper
    assert not proved_not_dearer(once, Point("same", 10.0, [10.0]))


def test_as_long_as_the_other_within_five_per_cent_is_not_dearer() -> None:
    one = Point("one", 10.0, [10.0, 10.01, 9.99])
    other = Point("other", 9.9, [9.9, 9.91, 9.89])
    assert not proved_cheaper(one, other)
    assert proved_not_dearer(one, other)
    assert not proved_not_dearer(one, Point("quick", 9.4, [9.4, 9.41, 9.39]))
    assert front([one, other], *quality({"one": 0.9, "other": 0.5})).off == {"other": "one"}


def test_timings_without_scatter_and_exact_costs_are_compared_as_they_are() -> None:
    constant = Point("constant", 7.0, [7.0, 7.0, 7.0])
    assert proved_cheaper(constant, Point("more", 7.1, [7.1, 7.1]))
    assert not proved_cheaper(constant, Point("same", 7.0, [7.0, 7.0]))
    assert not proved_cheaper(Point("a", 7.0), Point("b", 7.0))
    assert proved_not_dearer(Point("a", 7.0), Point("b", 7.0))
    assert not proved_not_dearer(Point("a", 7.01), Point("b", 7.0))


def test_nothing_spent_is_cheaper_than_any_timing() -> None:
    base = Point("base", 0.0)
    assert proved_cheaper(base, Point("lora", 10.0, [10.0]))
    assert not proved_not_dearer(Point("lora", 10.0, [10.0, 10.1]), base)
    assert pareto._highest_log_ratio(Point("lora", 10.0, [10.0]), base) == math.inf


def test_an_exact_cost_against_a_measured_one_has_the_measured_ones_interval() -> None:
    measured = Point("measured", 12.0, [11.0, 12.0, 13.0])
    logs = np.log([11.0, 12.0, 13.0])
    interval = stats.ttest_1samp(logs, math.log(10.0)).confidence_interval(0.95)
    assert pareto._highest_log_ratio(Point("exact", 10.0), measured) == pytest.approx(math.log(10.0) - interval.low)


def test_what_is_counted_is_exact_and_what_is_clocked_is_measured() -> None:
    assert {cost.name: cost.measured for cost in COSTS} == {
        "trainable_parameters": False, "adapter_bytes": False, "training_flops": False, "device_seconds": True,
        "joules": True, "usd": True, "peak_memory_bytes": True,
    }  # fmt: skip
    assert all(cost.label and cost.unit for cost in COSTS)
