"""Families against statsmodels and a published example; the words of a verdict; tiers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from workbench.compare.contrasts import TaskScores
from workbench.compare.families import benjamini_hochberg, holm, tiers, word
from workbench.compare.outcomes import Contrast

THROMBOLYSIS = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
                0.7590, 1.0000]  # fmt: skip
"""The 15 p-values of Benjamini & Hochberg (1995), section 3.2."""


def test_the_example_of_benjamini_and_hochberg() -> None:
    """They reject four hypotheses at 5 %, the family-wise procedure three."""
    assert sum(q <= 0.05 for q in benjamini_hochberg(THROMBOLYSIS)) == 4
    assert sum(p <= 0.05 for p in holm(THROMBOLYSIS)) == 3


@pytest.mark.parametrize("p", [THROMBOLYSIS, [0.04, 0.01, 0.03, 0.03], [0.5, 0.5, 1.0], [0.02]])
def test_adjusted_p_values_are_those_of_statsmodels(p: list[float]) -> None:
    shuffled = np.random.default_rng(1).permutation(p).tolist()
    assert holm(shuffled) == pytest.approx(multipletests(shuffled, method="holm")[1].tolist())
    assert benjamini_hochberg(shuffled) == pytest.approx(multipletests(shuffled, method="fdr_bh")[1].tolist())


def test_a_family_may_be_empty() -> None:
    assert holm([]) == benjamini_hochberg([]) == []


def contrast(low: float, high: float, inner: float = 0.8) -> Contrast:
    """One with this 95 % interval; the 90 % interval is `inner` of it."""
    middle, half = (low + high) / 2, (high - low) / 2 * inner
    rng = np.random.default_rng(2)
    scores = TaskScores({"arm": rng.random((3, 9)), "other": rng.random((3, 9))}, np.ones(9), list("abcdefghi"))
    made = scores.contrast("arm", "other")
    return replace(made, difference=middle, low=low, high=high, low90=middle - half, high90=middle + half)


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.01, 0.20, 0.01, "better"),
        (-0.20, -0.01, 0.01, "worse"),
        (0.01, 0.20, 0.06, "inconclusive"),  # one of many tests
        (-0.01, 0.20, 0.01, "inconclusive"),  # the interval does not say what p says
        (-0.015, 0.015, 0.9, "equivalent"),
        (-0.024, 0.024, 0.9, "equivalent"),  # the 90 % interval counts
        (-0.026, 0.026, 0.9, "inconclusive"),
        (0.015, 0.017, 0.06, "equivalent"),
        (0.005, 0.015, 0.01, "better"),  # proven, if small
        (-np.inf, np.inf, 1.0, "inconclusive"),
    ],
)
def test_words_where_more_is_better(low: float, high: float, p: float, expected: str) -> None:
    assert word(contrast(low, high), p, 0.02, higher_is_better=True) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.20, "worse"), (-0.20, -0.01, "better"), (-0.01, 0.01, "equivalent"), (-0.1, 0.1, "inconclusive")],
)
def test_words_where_less_is_better(low: float, high: float, expected: str) -> None:
    assert word(contrast(low, high), 0.01, 0.02, higher_is_better=False) == expected


def test_nothing_is_equivalent_within_no_margin() -> None:
    assert word(contrast(0.0, 0.0), 1.0, 0.0, higher_is_better=True) == "inconclusive"


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_equivalence_is_never_said_where_statsmodels_two_one_sided_tests_deny_it(shift: float) -> None:
    rng = np.random.default_rng(3)
    theirs = rng.normal(size=80)
    ours = theirs + shift + 0.5 * rng.normal(size=80)
    scores = TaskScores({"ours": ours[None], "theirs": theirs[None]}, np.ones(80), [f"{at:02d}" for at in range(80)])
    found = scores.contrast("ours", "theirs")
    said = []
    for margin in np.linspace(0.02, 0.4, 77):
        equivalent = word(found, 1.0, margin, higher_is_better=True) == "equivalent"
        proven = ttost_paired(ours, theirs, -margin, margin)[0] < 0.05
        assert proven or not equivalent
        said.append((equivalent, proven))
    assert sum(equivalent != proven for equivalent, proven in said) <= 2  # the bootstrap's end may lie further out


def test_tiers_hold_together_what_is_not_proved_apart() -> None:
    worse = {("c", "a"), ("d", "a"), ("d", "b"), ("e", "a"), ("e", "c")}
    assert tiers(["a", "b", "c", "d", "e"], lambda arm, leader: (arm, leader) in worse) == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]
    assert tiers(["a", "b"], lambda arm, leader: False) == [["a", "b"]]
    assert tiers([], lambda arm, leader: True) == []
