"""An adapter against training from scratch: known laws recovered, every status, and what may be said with it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest

from workbench.compare.convergence import converged
from workbench.compare.transfer.equivalents import Pretraining, Rung, Target, Transfer, transfer
from workbench.compare.transfer.figure import Figure, Status, Unit, amount
from workbench.compare.transfer.inversion import Curve, Floats, curve, error_budget, invert

DRAWS = 400
TOY = {30e3: 3.306, 100e3: 2.728, 300e3: 2.151, 1e6: 1.830, 3e6: 1.673, 13.6e6: 1.612}
"""Bytes of text -> bits per byte of a 115,000-parameter model trained from scratch."""


def scattered(loss: float, noise: float, seed: int) -> Floats:
    """Bootstrap draws of a loss."""
    return loss + noise * np.random.default_rng(seed).normal(size=DRAWS)


def rung(data: float, loss: float, noise: float = 0.0, **changes: object) -> Rung:
    """A rung that costs a hundred FLOPs, and a millionth of a second and of a dollar, a byte."""
    draws = scattered(loss, noise, round(data))
    made = Rung(f"scratch {data:g}", data, 100 * data, 1e-6 * data, 1e-6 * data, loss, draws, True, True)
    return replace(made, **changes)  # type: ignore[arg-type]


def ladder(losses: dict[float, float], noise: float = 0.0) -> list[Rung]:
    """A ladder of converged rungs of the base's own size."""
    return [rung(data, loss, noise) for data, loss in losses.items()]


def target(loss: float, data: float = 30e3, noise: float = 0.0, **changes: object) -> Target:
    """An adapter that cost forty FLOPs a byte."""
    draws = scattered(loss, noise, 1)
    return replace(Target("lora", data, 40 * data, 1e-6 * data, 1e-6 * data, loss, draws, True, "tiny"), **changes)  # type: ignore[arg-type]


def one(rungs: Sequence[Rung], aim: Target, pretraining: Pretraining | None = None) -> dict[str, Figure]:
    """The figures of a single arm by name."""
    arm = transfer(rungs, [aim], pretraining=pretraining).arms[0]
    return {name: figure for name, figure in vars(arm).items() if isinstance(figure, Figure)}


def law(
    amounts: Sequence[float], floor: float = 1.5, height: float = 60.0, exponent: float = 0.35
) -> dict[float, float]:
    """A power law with a floor."""
    return {data: floor + height * data**-exponent for data in amounts}


# --- the curve read backwards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "data", "equivalent", "multiplier"),
    [
        (2.706, 30e3, 104e3, 3.5), (2.588, 30e3, 129e3, 4.3), (2.495, 100e3, 151e3, 1.5),
        (2.365, 100e3, 189e3, 1.9), (2.200, 300e3, 266e3, 0.89), (2.044, 300e3, 412e3, 1.4),
    ],
)  # fmt: skip
def test_the_toy_ladder_gives_the_figures_of_the_first_trial(
    loss: float, data: float, equivalent: float, multiplier: float
) -> None:
    found = one(ladder(TOY), target(loss, data))
    assert found["data_equivalent"].value == pytest.approx(equivalent, rel=0.02)
    assert found["multiplier"].value == pytest.approx(multiplier, rel=0.03)
    assert found["data_equivalent"].status is Status.INTERPOLATED
    assert found["data_equivalent"].factor == 1.0


def test_data_transferred_is_the_equivalent_less_the_arms_own_data() -> None:
    """Hernandez et al.: D_T = D_E - D_F; its interval moves with it."""
    found = one(ladder(TOY, noise=0.02), target(2.365, 100e3, noise=0.02))
    whole, transferred = found["data_equivalent"], found["data_transferred"]
    for side in ("value", "low", "high"):
        assert getattr(transferred, side) == pytest.approx(getattr(whole, side) - 100e3)
    assert transferred.words.endswith(")")
    assert " transferred (" in transferred.words


def test_a_power_law_is_inverted_to_its_known_truth() -> None:
    amounts = np.geomspace(1e4, 1e6, 9)
    rungs = ladder(law(amounts.tolist()), noise=0.005)
    for truth in (2.2e4, 1e5, 4.4e5):
        found = one(rungs, target(law([truth])[truth], noise=0.005))["data_equivalent"]
        assert found.value == pytest.approx(truth, rel=0.01)
        assert found.low is not None
        assert found.high is not None
        assert found.low < truth < found.high


def test_the_interval_covers_the_truth_about_95_times_in_a_hundred() -> None:
    """Items resampled together for rungs and target, as documents are; difficulty is shared, noise is not."""
    rng = np.random.default_rng(5)
    amounts, truth, documents, trials = np.geomspace(1e4, 1e6, 9), 1e5 * 1.3, 80, 300
    losses = np.array([*law(amounts.tolist()).values(), law([truth])[truth]])
    covered, widths = 0, []
    for _ in range(trials):
        items = losses[:, None] + 0.5 * rng.normal(size=documents) + 0.15 * rng.normal(size=(10, documents))
        draws = items @ rng.multinomial(documents, np.full(documents, 1 / documents), size=DRAWS).T / documents
        made = curve(amounts.tolist(), items.mean(axis=1)[:-1].tolist(), list(draws[:-1]), [True] * 9)
        assert made is not None
        found = invert(made, float(items[-1].mean()), draws[-1], True)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
        widths.append(math.log(found.high / found.low))
    assert 0.91 <= covered / trials <= 0.98
    assert np.mean(widths) < 0.4  # the difficulty that all share is not in it: draws that were not paired give 0.94


def test_a_target_exactly_as_good_as_a_rung_is_that_rung() -> None:
    for data, loss in TOY.items():
        found = one(ladder(TOY), target(loss))["data_equivalent"]
        if data == min(TOY):
            assert (found.status, found.value, found.high) == (Status.LEFT_CENSORED, None, pytest.approx(data))
        else:
            assert found.value == pytest.approx(data, rel=1e-9)


def test_a_rung_that_got_worse_by_noise_does_not_make_the_curve_go_up() -> None:
    """Data: 300 kB was measured not to reach 2.6, so more than 300 kB is needed, though 100 kB came close."""
    noisy = {30e3: 3.3, 100e3: 2.7, 300e3: 2.8, 1e6: 1.8}
    found = one(ladder(noisy), target(2.6))
    assert found["data_equivalent"].value is not None
    assert 300e3 < found["data_equivalent"].value < 1e6
    assert one(ladder(noisy), target(2.75))["data_equivalent"].value < 100e3  # type: ignore[operator]


def test_a_model_of_the_wrong_size_is_not_on_the_compute_frontier() -> None:
    good = [rung(data, loss) for data, loss in {1e4: 3.0, 1e5: 2.5, 1e6: 2.0, 1e7: 1.7}.items()]
    poor = rung(3e5, 2.9, own_size=False)
    assert one([*good, poor], target(2.2))["compute_equivalent"] == one(good, target(2.2))["compute_equivalent"]
    better = rung(3e5, 2.1, own_size=False)
    with_it, without = one([*good, better], target(2.2)), one(good, target(2.2))
    assert with_it["compute_equivalent"].value < without["compute_equivalent"].value  # type: ignore[operator]
    assert with_it["data_equivalent"] == without["data_equivalent"]  # of its own size only


def test_no_rung_reached_it_means_none_of_the_dear_ones_either() -> None:
    rungs = [*ladder({1e4: 3.0, 1e5: 2.5, 1e6: 2.4}), rung(1e8, 2.6, own_size=False)]
    found = one(rungs, target(0.5))["compute_equivalent"]
    assert (found.status, found.low) == (Status.RIGHT_CENSORED, pytest.approx(1e10))


# --- status ----------------------------------------------------------------------------------------------------------


def test_only_an_interpolated_figure_says_equals() -> None:
    rungs = ladder(law(np.geomspace(1e4, 1e6, 6).tolist()))
    aims = {
        Status.INTERPOLATED: target(law([1e5])[1e5]),
        Status.EXTRAPOLATED: target(law([2e6])[2e6]),
        Status.RIGHT_CENSORED: target(1.4),
        Status.LEFT_CENSORED: target(5.0),
        Status.NOT_CONVERGED: target(law([1e5])[1e5], converged=False),
    }
    for status, aim in aims.items():
        figures = one(rungs, aim)
        assert figures["data_equivalent"].status is status
        for figure in figures.values():
            assert ("equals" in figure.words) == (figure.words[:6] == "equals" and status is Status.INTERPOLATED)
        assert figures["data_equivalent"].words.startswith("equals 100 kB") == (status is Status.INTERPOLATED)


def test_beyond_the_last_rung_the_two_forms_enclose_the_truth() -> None:
    rungs = ladder(law(np.geomspace(1e4, 1e6, 7).tolist()), noise=0.001)
    found = one(rungs, target(law([2.5e6])[2.5e6], noise=0.001))["data_equivalent"]
    assert found.status is Status.EXTRAPOLATED
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < 2.5e6 < found.high
    assert found.low < found.value < found.high
    assert found.factor == pytest.approx(found.value / 1e6)
    assert found.value == pytest.approx(2.5e6, rel=0.2)
    assert "times beyond the last rung" in found.words


def test_what_the_last_rung_just_missed_lies_just_beyond_it() -> None:
    """However far from the last rung a fitted form would pass."""
    for missed_by in (1e-6, 1e-3, 1e-2):
        found = one(ladder(TOY), target(1.612 - missed_by))["data_equivalent"]
        assert found.status is Status.EXTRAPOLATED
        assert found.low is not None
        assert 13.6e6 < found.low < 13.6e6 * (1 + 50 * missed_by)


def test_beyond_a_decade_there_is_a_bound_and_no_number() -> None:
    rungs = ladder(law(np.geomspace(1e4, 1e6, 7).tolist()))
    for loss in (law([5e7])[5e7], 1.2):  # one far along the law, one below its floor
        found = one(rungs, target(loss))["data_equivalent"]
        assert (found.value, found.high, found.factor) == (None, None, None)
        assert found.low == pytest.approx(1e6)
        assert found.status is Status.RIGHT_CENSORED
        assert found.words.startswith("more than 1 MB from scratch: no rung reached it")


def test_a_metric_that_is_no_loss_is_not_extrapolated() -> None:
    """A negated accuracy has no power law towards a positive floor; within the ladder it is read like any other."""
    rungs = ladder({1e4: -0.2, 1e5: -0.5, 1e6: -0.7, 1e7: -0.8})
    assert one(rungs, target(-0.6))["data_equivalent"].status is Status.INTERPOLATED
    assert one(rungs, target(-0.81))["data_equivalent"].status is Status.RIGHT_CENSORED


def test_what_the_smallest_rung_reaches_has_an_upper_bound() -> None:
    found = one(ladder(TOY), target(3.4))
    assert found["data_equivalent"].words == "at most 30 kB from scratch: the smallest rung is as good already"
    assert (found["data_equivalent"].value, found["data_equivalent"].low) == (None, None)
    assert found["data_equivalent"].high == pytest.approx(30e3)


def test_a_bound_gives_way_to_draws_on_the_other_side_of_it() -> None:
    """The last rung was just missed: a good part of the draws reach it, so "more than 1 MB" is not known."""
    rungs = [rung(data, loss, noise=0.01) for data, loss in {1e4: 3.0, 1e5: 2.5, 1e6: 2.0}.items()]
    found = one(rungs, target(-1.0, draws=scattered(2.0, 0.01, 9)))["data_equivalent"]
    assert found.status is Status.RIGHT_CENSORED
    assert found.low is not None
    assert found.low < 0.99e6


@pytest.mark.parametrize(("beyond", "closed"), [(10, True), (11, False)])
def test_more_than_one_draw_in_forty_off_the_ladder_opens_the_interval(beyond: int, closed: bool) -> None:
    draws = np.full(DRAWS, 2.0)
    draws[:beyond] = 1.0
    above = one(ladder(TOY), target(2.0, draws=draws))["data_equivalent"]
    assert (above.high is not None) == closed
    assert above.low is not None
    assert ("at least" in above.words) != closed
    draws[:beyond] = 9.0
    below = one(ladder(TOY), target(2.0, draws=draws))["data_equivalent"]
    assert (below.low is not None) == closed
    assert ("at most" in below.words) != closed
    assert above.status is below.status is Status.INTERPOLATED


def test_a_training_that_was_cut_off_taints_only_what_rests_on_it() -> None:
    for cut_off in TOY:
        rungs = [replace(each, converged=each.data != cut_off) for each in ladder(TOY)]
        found = one(rungs, target(2.365))
        around = cut_off in (100e3, 300e3)
        assert (found["data_equivalent"].status is Status.NOT_CONVERGED) == around
        assert (found["multiplier"].status is Status.NOT_CONVERGED) == around
        assert found["data_equivalent"].value == pytest.approx(189e3, rel=0.02)
    unsettled = one(ladder(TOY), target(2.365, converged=False))["data_equivalent"]
    assert unsettled.words.startswith("about 191 kB from scratch (")
    assert unsettled.words.endswith("; not converged, longer training would move it")
    assert one(ladder(TOY), target(0.1, converged=False))["data_equivalent"].words.endswith("would move it")


def test_two_rungs_are_no_ladder() -> None:
    found = one(ladder({1e4: 3.0, 1e5: 2.0}), target(2.5))
    for figure in found.values():
        assert (figure.value, figure.low, figure.high, figure.status) == (None, None, None, Status.NOT_KNOWN)
    assert found["data_equivalent"].words == (
        "not known: 2 different rungs of the base's own size, and 3 are needed (5 are advised, over 1.5 decades)"
    )


def test_without_prices_there_is_no_money_figure() -> None:
    free = [replace(each, usd=None) for each in ladder(TOY)]
    found = one(free, target(2.365))
    assert found["money_equivalent"].words.startswith("not known: 0 different rungs with a price")
    assert found["time_equivalent"].status is Status.INTERPOLATED


# --- figures made of others ------------------------------------------------------------------------------------------


def test_leverage_and_pay_off_follow_their_definitions() -> None:
    rungs, aim = ladder(TOY, noise=0.01), target(2.365, 100e3, noise=0.01)
    found = one(rungs, aim, Pretraining(8e7, 2.0))
    scratch, own = found["compute_equivalent"], aim.training_flops
    assert scratch.value is not None
    assert scratch.low is not None
    assert scratch.high is not None
    assert scratch.value == pytest.approx(100 * found["data_equivalent"].value)  # type: ignore[operator]
    assert found["leverage"].value == pytest.approx(scratch.value / own)
    attributed = found["leverage_with_base"]
    assert (attributed.low, attributed.value, attributed.high) == (
        pytest.approx(scratch.low / (own + 16e7)),
        pytest.approx(scratch.value / (own + 8e7)),
        pytest.approx(scratch.high / (own + 4e7)),
    )
    adapters = found["adapters_to_pay_off"]
    assert (adapters.low, adapters.value, adapters.high) == (
        pytest.approx(4e7 / (scratch.high - own)),
        pytest.approx(8e7 / (scratch.value - own)),
        pytest.approx(16e7 / (scratch.low - own)),
    )
    assert found["time_equivalent"].value == pytest.approx(scratch.value * 1e-8)


def test_when_scratch_is_cheaper_no_number_of_adapters_pays_the_base_off() -> None:
    dear = target(2.365, training_flops=1e9)
    found = one(ladder(TOY), dear, Pretraining(1e8, 3.0))["adapters_to_pay_off"]
    assert (found.value, found.words) == (None, "scratch is cheaper outright")
    unsettled = one(ladder(TOY), replace(dear, converged=False), Pretraining(1e8, 3.0))["adapters_to_pay_off"]
    assert unsettled.status is Status.NOT_CONVERGED
    assert unsettled.words.startswith("scratch is cheaper outright; not converged")
    wavering = one(ladder(TOY, noise=0.1), replace(dear, training_flops=1.92e7), Pretraining(1e8, 3.0))
    assert "reaches to the other side" in wavering["adapters_to_pay_off"].words


def test_a_status_travels_and_a_bound_turns_round() -> None:
    found = one(ladder(TOY), target(0.5), Pretraining(1e10, 1.0))
    assert {figure.status for figure in found.values()} == {Status.RIGHT_CENSORED}
    assert found["multiplier"].low == pytest.approx(13.6e6 / 30e3)
    adapters = found["adapters_to_pay_off"]
    assert (adapters.low, adapters.high) == (None, pytest.approx(1e10 / (13.6e8 - 40 * 30e3)))
    assert adapters.words.startswith("the base's pretraining is paid off by at most 7.36 adapters: no rung reached it")


def test_an_unknown_pretraining_leaves_the_marginal_figures() -> None:
    found = one(ladder(TOY), target(2.365))
    assert found["leverage"].status is Status.INTERPOLATED
    assert found["leverage_with_base"].words == "not known: the base's pretraining cost"
    assert found["adapters_to_pay_off"].status is Status.NOT_KNOWN


def test_arms_of_two_bases_need_two_ladders() -> None:
    with pytest.raises(ValueError, match="one base at a time"):
        transfer(ladder(TOY), [target(2.0), target(2.0, base="other")])


# --- where it stops paying -------------------------------------------------------------------------------------------


def crossing(losses: dict[float, float], rungs: list[Rung] | None = None, **changes: object) -> Figure:
    """The crossover of one method tried with several amounts of data."""
    arms = [target(loss, data, noise=0.01, series="lora", **changes) for data, loss in losses.items()]
    return transfer(rungs or ladder(TOY, noise=0.01), arms).crossover["lora"]


def test_the_crossover_is_where_the_multiplier_is_one() -> None:
    """The toy's LoRA: multipliers of 3.5, 1.5 and 0.89 at 30, 100 and 300 kB."""
    found = crossing({30e3: 2.706, 100e3: 2.495, 300e3: 2.200})
    assert found.status is Status.INTERPOLATED
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 200e3 < found.low < found.value < found.high < 300e3
    assert found.words.startswith("the multiplier falls below 1 at ")


def test_a_known_crossover_is_found() -> None:
    """Data transferred as D_E = D_F (D_F / 200 kB)^-0.4: the multiplier is 1 at 200 kB."""
    equivalents = {data: data * (data / 200e3) ** -0.4 for data in np.geomspace(30e3, 1e6, 5).tolist()}
    arms = {data: law([equal])[equal] for data, equal in equivalents.items()}
    found = crossing(arms, ladder(law(np.geomspace(1e4, 2e6, 9).tolist()), noise=0.005))
    assert found.value == pytest.approx(200e3, rel=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 200e3 < found.high


def test_a_method_that_always_pays_or_never_has_a_bound_for_its_crossover() -> None:
    always = crossing({30e3: 2.5, 100e3: 2.3, 300e3: 2.0})
    assert (always.status, always.low) == (Status.RIGHT_CENSORED, pytest.approx(300e3))
    assert always.words.endswith("more than 300 kB: it pays at every amount tried")
    never = crossing({100e3: 2.9, 300e3: 2.5, 1e6: 2.0})
    assert (never.status, never.high) == (Status.LEFT_CENSORED, pytest.approx(100e3))


def test_a_crossover_needs_three_amounts_within_the_ladder_and_arms_that_had_converged() -> None:
    assert (
        crossing({30e3: 2.7, 100e3: 2.5}).words
        == "not known: 2 amounts of its own data within the ladder, and 3 are needed"
    )
    assert crossing({1e3: 3.2, 30e3: 2.7, 100e3: 2.5}).status is Status.NOT_KNOWN
    cut_off = crossing({30e3: 2.706, 100e3: 2.495, 300e3: 2.200}, converged=False)
    assert cut_off.status is Status.NOT_CONVERGED


def test_arms_without_a_series_have_no_crossover() -> None:
    assert transfer(ladder(TOY), [target(2.5, data) for data in (3e4, 1e5, 3e5)]).crossover == {}


# --- the error budget ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "budget"), [(0.001, 0.026), (0.005, 0.14), (0.01, 0.29), (0.02, 0.67)])
def test_the_error_budget_of_a_power_law_is_its_closed_form(error: float, budget: float) -> None:
    """bits per byte = e^1.909 * FLOPs^-0.0487, at 0.80: dC/C = exp(dL / (L b)) - 1."""
    amounts = np.geomspace(1e17, 1e20, 13)
    losses = np.exp(1.909) * amounts**-0.0487
    made = curve(amounts.tolist(), losses.tolist(), [np.full(2, loss) for loss in losses], [True] * 13)
    assert made is not None
    at = (math.exp(1.909) / 0.80) ** (1 / 0.0487)
    assert error_budget(made, at, error) == pytest.approx(budget, rel=0.04)


def test_there_is_no_error_budget_on_a_level_curve_or_off_the_ladder() -> None:
    level = Curve(np.log([1e4, 1e5, 1e6]), np.array([2.0, 1.5, 1.5]), np.ones((3, 2)), (True, True, True))
    assert error_budget(level, 5e5) is None
    assert error_budget(level, 1e7) is None
    assert error_budget(level, 5e4) is not None
    assert transfer(ladder(TOY), [target(0.5)]).arms[0].error_budget is None


# --- words and convergence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (104_406, Unit.TEXT_BYTES, "104 kB"), (999.7e3, Unit.TEXT_BYTES, "1 MB"), (-5e3, Unit.TEXT_BYTES, "-5 kB"),
        (3.2e13, Unit.TEXT_BYTES, "32 TB"), (1234, Unit.EXAMPLES, "1,234 examples"),
        (3.21e12, Unit.FLOPS, "3.21e+12 FLOPs"), (45, Unit.SECONDS, "45 s"), (600, Unit.SECONDS, "10 min"),
        (7200, Unit.SECONDS, "2 h"), (1234.5, Unit.USD, "$1,234.50"), (0.0123, Unit.USD, "$0.012"),
        (3.5, Unit.TIMES, "3.5 times"), (2.25, Unit.ADAPTERS, "2.25 adapters"),
    ],
)  # fmt: skip
def test_amounts_are_told_in_units_a_person_reads(value: float, unit: Unit, words: str) -> None:
    assert amount(value, unit) == words


def test_everything_can_be_written_as_json() -> None:
    arms = [target(loss, 1e5, series="lora") for loss in (0.5, 2.0, 4.0)]
    found: Transfer = transfer(ladder(TOY), arms, Unit.EXAMPLES, Pretraining(1e10, 2.0))
    again = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert again["arms"][1]["data_equivalent"]["status"] == "interpolated"
    assert again["arms"][1]["data_equivalent"]["words"].startswith("equals 481,810 examples from scratch (")


def losses(slope: float, noise: float, steps: int = 200) -> list[float]:
    """Step losses that fall along a line."""
    return (3 - slope * np.arange(steps) + noise * np.random.default_rng(3).normal(size=steps)).tolist()


def test_a_curve_still_falling_has_not_converged() -> None:
    assert not converged(losses(slope=0.005, noise=0.02))  # 0.1 of 2 between two tenths: 5 %


def test_a_level_curve_has_converged() -> None:
    assert converged(losses(slope=0.0, noise=0.02))
    assert converged([1.5] * 50)
    assert converged((1 + np.exp(-np.arange(300) / 20)).tolist())


def test_a_fall_below_one_per_cent_is_none() -> None:
    assert converged(losses(slope=0.0005, noise=0.0))
    assert not converged(losses(slope=0.0016, noise=0.0))


def test_a_fall_within_the_noise_is_none() -> None:
    assert converged(losses(slope=0.003, noise=1.0))
    assert not converged(losses(slope=0.003, noise=0.02))


def test_a_rising_curve_is_not_called_unfinished() -> None:
    assert converged(losses(slope=-0.005, noise=0.01))


def test_too_few_losses_show_nothing() -> None:
    assert not converged([1.0] * 19)
    assert converged([1.0] * 20)
