"""Money is device hours times a price that somebody states, or not known; and what else a run leaves and costs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_recipes import Workbench, questions, train, write_recipe

from workbench import files
from workbench.bases import Loading, load_model
from workbench.catalog.bases import bases, pretraining_flops
from workbench.catalog.targets import targets
from workbench.methods.counting import work_of
from workbench.plan.cost import training_flops
from workbench.recipe.load import load
from workbench.recipe.resolve import resolve
from workbench.resources import embedded_base
from workbench.runs.run import Run
from workbench.worker.finishing import finish


def test_a_price_in_the_recipe_is_taken(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    run = train(workbench, recipe, tmp_path / "runs", "target.usd_per_hour=3.6")
    cost = files.read_json(run.cost)
    assert cost["usd"] == pytest.approx(0.001 * cost["device_seconds"]) and cost["usd"] > 0
    assert cost["price_source"] == "recipe"
    free = train(workbench, recipe, tmp_path / "free", "target.usd_per_hour=0")
    assert files.read_json(free.cost)["usd"] == 0.0


def test_without_a_price_money_is_not_known(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    cost = files.read_json(train(workbench, write_recipe(tmp_path, small_base, questions()), tmp_path / "runs").cost)
    assert (cost["usd"], cost["price_source"]) == (None, None)


def test_a_price_changed_later_is_the_same_run(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    one = train(workbench, recipe, tmp_path / "runs", "target.usd_per_hour=1", "target.power_watts=10")
    assert train(workbench, recipe, tmp_path / "runs", "target.usd_per_hour=2").path == one.path


def test_what_a_run_leaves_is_counted(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    run = train(workbench, write_recipe(tmp_path, small_base, questions()), tmp_path / "runs")
    cost, parameters = files.read_json(run.cost), files.read_json(run.training)["parameters"]
    weights = run.adapter / "adapter_model.safetensors"
    assert cost["adapter_bytes"] == weights.stat().st_size
    assert 4 * parameters["trainable"] < cost["adapter_bytes"] < 5 * parameters["trainable"]  # fp32 and a header
    assert (cost["trainable_parameters"], cost["total_parameters"]) == (parameters["trainable"], parameters["total"])
    assert [name for name, value in cost.items() if isinstance(value, dict | list)] == ["predicted"]


def test_a_run_that_only_scores_has_no_cost_of_training(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(), method="none")
    (tmp_path / "suites").mkdir()
    suite = {"tasks": [{"name": "choice", "id": "c", "data": "rows", "split": "train", "template": "plain"}]}
    (tmp_path / "suites" / "some.yaml").write_text(json.dumps(suite))
    settings = ("target.usd_per_hour=3", "target.power_watts=50", "data.template=plain", "evaluation.suite=some")
    run = train(workbench, recipe, tmp_path / "runs", *settings)
    cost = files.read_json(run.cost)
    assert cost.pop("evaluation_seconds") >= 0
    assert cost == {"joules": None, "energy_source": "none", "usd": None, "price_source": None}


def test_the_cost_of_a_run_of_an_older_version_can_be_written_again(
    workbench: Workbench, small_base: Path, tmp_path: Path
) -> None:
    run = train(workbench, write_recipe(tmp_path, small_base, questions()), tmp_path / "runs")
    training = files.read_json(run.training)
    for key in ("joules", "energy_source", "energy_note"):
        del training["cost"][key]
    files.write_json(run.training, training)
    finish(Run(run.path))
    cost = files.read_json(run.cost)
    assert (cost["joules"], cost["energy_source"], cost["usd"]) == (None, "none", None)


# --- the tables ------------------------------------------------------------------------------------------------------


def resolved_target(tmp_path: Path, small_base: Path, **target: Any) -> Any:
    recipe = write_recipe(tmp_path, small_base, questions(), target={"threads": None, **target})
    return resolve(load(recipe)).target


def test_the_catalogs_price_comes_with_its_source_and_day(tmp_path: Path, small_base: Path) -> None:
    row = resolved_target(tmp_path, small_base, name="h100-80gb")
    assert row == targets()["h100-80gb"]
    assert row.usd_per_hour and row.price_source and row.price_as_of and row.power_watts == 700.0
    stated = resolved_target(tmp_path, small_base, name="h100-80gb", usd_per_hour=1.5)
    assert (stated.usd_per_hour, stated.price_source, stated.price_as_of) == (1.5, "recipe", None)
    assert stated.power_watts == 700.0
    measured = resolved_target(tmp_path, small_base, name="h100-80gb", power_watts=350.0)
    assert (measured.power_watts, measured.power_source) == (350.0, "recipe")
    assert measured.usd_per_hour == row.usd_per_hour


@pytest.mark.parametrize("name", targets())
def test_every_price_and_power_says_where_it_is_from(name: str) -> None:
    row = targets()[name]
    assert (row.usd_per_hour is None) == (row.price_source is None) == (row.price_as_of is None)
    assert (row.power_watts is None) == (row.power_source is None)
    assert row.price_as_of is None or re.fullmatch(r"\d{4}-\d\d-\d\d", row.price_as_of)


@pytest.mark.parametrize("name", bases())
def test_every_number_of_pretraining_tokens_says_where_it_is_from(name: str) -> None:
    row = bases()[name]
    assert (row.pretraining_tokens is None) == (row.pretraining_source is None)
    if row.pretraining_tokens is None:
        assert pretraining_flops(name) is None
    else:
        assert 1e12 < row.pretraining_tokens < 1e14
        assert pretraining_flops(name) == 6.0 * row.active_parameters * row.pretraining_tokens


def test_the_embedded_bases_pretraining_is_what_its_tokens_cost() -> None:
    told = files.read_json(embedded_base() / "manifest.json")["pretraining"]
    flops = pretraining_flops("embedded")
    assert flops == told["training_flops"]
    model = load_model(Loading(embedded_base()))
    work = work_of(model)
    everything = type(work)(0.0, work.frozen_parameters + work.trained_parameters, work.attention_width, work.layers)
    mean = told["tokens"] / told["examples"]
    least = training_flops(everything, told["tokens"], told["examples"] * mean**2)  # were all texts equally long
    assert least < flops < 1.1 * least
