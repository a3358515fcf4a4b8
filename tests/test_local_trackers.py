"""Trackers that keep their records on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from workbench.errors import RecipeError
from workbench.recipe.load import load


@pytest.mark.parametrize("kind", ["trackio", "tensorboard"])
def test_a_directory_is_relative_to_the_file_that_states_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    recipe, elsewhere = folder / "shown.yaml", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def directory(stated: str | None, *overrides: str) -> str | None:
        words = {"base": "embedded", "data": "world-questions", "tracking": {kind: {"directory": stated}}}
        recipe.write_text(yaml.safe_dump(words))
        found: str | None = getattr(load(recipe, overrides).recipe.tracking, kind).directory
        return found

    assert directory("boards") == str(folder / "boards")  # nothing is there yet
    assert directory("../boards") == str(tmp_path / "boards")
    assert directory("/boards") == "/boards"
    assert directory(None) is None
    assert directory("boards", f"tracking.{kind}.directory=mine") == str(elsewhere / "mine")
    assert directory("boards", f"tracking.{kind}.directory=") is None
    with pytest.raises(RecipeError, match="directory"):
        directory(["a", "b"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stated", "found"),
    [("./runs.d", "{folder}/runs.d"), ("~/mlruns", "{home}/mlruns"), ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
     ("sqlite:////var/mlflow.db", "sqlite:////var/mlflow.db"), ("databricks", "databricks")],
)  # fmt: skip
def test_an_mlflow_uri_may_be_a_path(stated: str, found: str, tmp_path: Path) -> None:
    recipe = tmp_path / "shown.yaml"
    words = {"base": "embedded", "data": "world-questions", "tracking": {"mlflow": {"uri": stated}}}
    recipe.write_text(yaml.safe_dump(words))
    tracking = load(recipe).recipe.tracking
    assert tracking.mlflow is not None
    assert tracking.mlflow.uri == found.format(folder=tmp_path, home=Path.home())
