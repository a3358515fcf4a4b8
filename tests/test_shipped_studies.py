"""Every shipped study: its arms resolve, and differ in nothing but what it varies. (The quickstart study is run by
tests/test_readme.py; the others need a hub and a GPU.)"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from workbench.compare import gate
from workbench.compare.facts import Facts, declared_facts
from workbench.compare.fields import SEED
from workbench.recipe.identity import Contents, identity
from workbench.recipe.resolve import resolve
from workbench.study.load import load, loaded_recipe

STUDIES = sorted((ROOT / "recipes" / "studies").glob("*.yaml"))


def facts_of(study: Path) -> dict[str, list[Facts]]:
    """What is known of every arm before anything is fetched; names stand for the contents behind them."""
    arms: dict[str, list[Facts]] = {}
    for arm in load(study).arms:
        resolved = resolve(loaded_recipe(arm, [], ["target=cpu", "training.precision=fp32"]))
        contents = Contents({"base": resolved.base.location}, {"rows": resolved.data.name})
        arms[arm.name] = [declared_facts(resolved.model_dump(mode="json"), identity(resolved, contents))]
    return arms


def test_the_four_are_there() -> None:
    names = {path.stem for path in STUDIES}
    assert {"quickstart-study", "method-sweep", "base-swap", "finetune-vs-scratch"} <= names


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_its_arms_differ_in_what_it_varies_only(study: Path) -> None:
    found = gate.check(facts_of(study), [*load(study).study.vary, SEED])
    assert [finding.field for finding in found.confounds] == []
    assert found.declared, "and in that they do"


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_each_field_that_it_varies_differs_somewhere(study: Path) -> None:
    facts = [arm[0] for arm in facts_of(study).values()]
    for field in load(study).study.vary:
        assert len({repr(one.section(field)) for one in facts}) > 1, field


def test_the_method_sweep_gives_every_method_the_same_number_of_rates_and_of_examples() -> None:
    arms = load(ROOT / "recipes" / "studies" / "method-sweep.yaml").arms
    families = {arm.family for arm in arms} - {"base"}
    assert families == {"lora", "rslora", "dora", "pissa", "vera", "ia3", "oft", "full"}
    assert {sum(arm.family == family for arm in arms) for family in families} == {2}


def test_the_ladder_has_five_rungs_over_a_decade_and_a_half() -> None:
    loaded = load(ROOT / "recipes" / "studies" / "finetune-vs-scratch.yaml")
    rungs = [arm for arm in loaded.arms if arm.family in loaded.study.ladder]
    shares = sorted(resolve(loaded_recipe(arm, [], [])).recipe.data.fraction for arm in rungs)
    assert len(shares) >= 5
    assert shares[-1] / shares[0] >= 10**1.5
