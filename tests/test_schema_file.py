"""The JSON schema that the shipped recipes point editors to is the one the code gives."""

import json

from conftest import ROOT

from workbench.verbs.explain import json_schema


def test_shipped_schema_is_current() -> None:
    shipped = json.loads((ROOT / "recipes" / "recipe.schema.json").read_text())
    assert shipped == json_schema(), "run: workbench schema > recipes/recipe.schema.json"


def test_every_recipe_names_it() -> None:
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert recipe.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n"), recipe.name
