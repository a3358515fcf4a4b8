"""The table of hardware, and targets that a user describes beside a recipe."""

from __future__ import annotations

import re
import typing
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from small_recipes import questions, write_recipe

from workbench import documents
from workbench.catalog.backends import BackendName, backends
from workbench.catalog.targets import OwnTargets, TargetRow, targets
from workbench.errors import RecipeError
from workbench.recipe.load import load
from workbench.recipe.resolve import resolve
from workbench.recipe.resolved import Resolved

CATALOG = ROOT / "workbench" / "catalog" / "targets.yaml"

# --- the table -------------------------------------------------------------------------------------------------------


def test_every_row_of_the_file_is_read_under_a_name_of_its_own() -> None:
    names = Counter(row["name"] for row in yaml.safe_load(CATALOG.read_text(encoding="utf-8")))
    assert set(names.values()) == {1}
    assert list(names) == list(targets())
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


def test_backends_are_called_what_a_row_may_call_them() -> None:
    assert list(backends()) == list(typing.get_args(BackendName))


def test_every_kind_of_device_has_a_row() -> None:
    assert {row.capabilities().name for row in targets().values()} == set(backends())


@pytest.mark.parametrize("name", targets())
def test_a_row_says_of_its_device_what_its_backend_says(name: str) -> None:
    row = targets()[name]
    backend = row.capabilities()
    assert row.device == backend.device
    assert row.nf4 == (backend.nf4 == "yes")
    assert not (row.bf16 and backend.bf16 == "no")


@pytest.mark.parametrize("name", targets())
def test_rates_say_where_they_are_from_and_shorter_numbers_are_not_slower(name: str) -> None:
    row = targets()[name]
    assert bool(row.gigabytes_per_second or row.peak_tflops) == (row.rates_source is not None)
    for shorter in ("fp16", "bf16"):
        chain = [row.peak_tflops[kind] for kind in ("fp32", "tf32", shorter) if kind in row.peak_tflops]
        assert chain == sorted(chain)
    assert row.bf16 or "bf16" not in row.peak_tflops
    assert not [kind for kind in row.peak_tflops if getattr(row.capabilities(), kind, "yes") == "no"]


@pytest.mark.parametrize("name", targets())
def test_every_fact_of_a_row_has_a_source_and_a_day(name: str) -> None:
    row = targets()[name]
    assert row.source
    assert re.fullmatch(r"2026-\d\d-\d\d", row.as_of)
    assert (row.usd_per_hour is None) == (row.price_source is None) == (row.price_as_of is None)
    assert (row.power_watts is None) == (row.power_source is None)


def test_consumer_cards_of_every_common_size_are_there() -> None:
    cards = {name: row for name, row in targets().items() if name.startswith("rtx-")}
    assert {row.memory_gib for row in cards.values()} == {8.0, 12.0, 16.0, 24.0, 32.0}
    for row in cards.values():
        rates = row.peak_tflops
        assert rates["fp16"] == rates["bf16"] == pytest.approx(2 * rates["fp32"], rel=0.01)
        assert rates["tf32"] == rates["fp32"]


def test_an_amd_gpu_is_cuda_to_torch_and_rocm_to_the_libraries() -> None:
    row = targets()["mi300x"]
    assert (row.device, row.capabilities().name, row.capabilities().visible_devices) == (
        "cuda",
        "rocm",
        "HIP_VISIBLE_DEVICES",
    )
    assert targets()["rocm"].capabilities() == row.capabilities()


def test_a_device_is_what_torch_shows_as_one() -> None:
    for name, of_what in (("ascend-910c", "dies"), ("mi250x", "dies"), ("max-1550", "stacks"), ("mlu370-x8", "chips")):
        assert re.search(rf"one device is one of the two {of_what}", targets()[name].source), name


# --- a user's own ----------------------------------------------------------------------------------------------------

OWN: dict[str, Any] = {
    "name": "lab-a6000",
    "device": "cuda",
    "memory_gib": 48,
    "gigabytes_per_second": 768,
    "peak_tflops": {"fp32": 38.7, "bf16": 154.8},
    "rates_source": "datasheet",
    "bf16": True,
    "nf4": True,
    "usd_per_hour": 0.4,
    "price_source": "our accounting",
    "price_as_of": "2026-11-01",
    "source": "rack 3",
    "as_of": "2026-11-01",
}


class Lab:
    """A folder with a small recipe, and a `targets.yaml` of some rows beside it."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self.base = folder, base

    def describe(self, *rows: dict[str, Any], folder: Path | None = None) -> None:
        """Write the rows, one key a line."""
        path = (folder or self.folder) / "targets.yaml"
        path.write_text(yaml.safe_dump({"targets": list(rows)}, sort_keys=False))

    def resolved(self, name: str) -> Resolved:
        """The recipe, made for a target of that name."""
        recipe = write_recipe(self.folder, self.base, questions(4), target={"name": name, "threads": None})
        return resolve(load(recipe))

    def refused(self, name: str) -> str:
        """What is said instead."""
        with pytest.raises(RecipeError) as caught:
            self.resolved(name)
        return str(caught.value)


@pytest.fixture
def lab(tmp_path: Path, small_base: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    folder = tmp_path / "lab"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    return Lab(folder, small_base)


def test_a_recipe_finds_a_target_described_beside_it(lab: Lab) -> None:
    lab.describe(OWN)
    resolved = lab.resolved("lab-a6000")
    assert resolved.target == TargetRow.model_validate(OWN)
    assert resolved.target.memory_gib == 48.0
    assert resolved.target.capabilities() == backends()["cuda"]
    assert resolved.dtype == "bf16"
    assert lab.resolved("h200").target == targets()["h200"]


def test_the_nearest_file_upwards_is_read(lab: Lab) -> None:
    lab.describe(OWN, folder=lab.folder.parent)
    assert lab.resolved("lab-a6000").target.source == "rack 3"
    lab.describe(OWN | {"source": "rack 4"})
    assert lab.resolved("lab-a6000").target.source == "rack 4"


def test_ones_own_row_goes_before_the_catalogs_of_the_same_name(lab: Lab) -> None:
    lab.describe(OWN | {"name": "rtx-4090", "memory_gib": 48})
    assert targets()["rtx-4090"].memory_gib == 24.0
    assert lab.resolved("rtx-4090").target.memory_gib == 48.0


def test_an_unknown_target_is_compared_with_both_tables(lab: Lab) -> None:
    lab.describe(OWN)
    refused = lab.refused("lab-a600")
    assert re.search(r"small\.yaml:\d+ target\.name: no target is called 'lab-a600'", refused)
    assert "did you mean 'lab-a6000'?" in refused
    assert "targets.yaml" in refused
    assert "did you mean 'rtx-4090'?" in lab.refused("rtx4090")


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a typo": ({"memry_gib": 48}, ".memry_gib", "unknown field\n    did you mean 'memory_gib'?"),
    "a word as text": ({"nf4": "true"}, ".nf4", "found 'true' (text)"),
    "no memory": ({"memory_gib": 0}, ".memory_gib", "found 0"),
    "no such backend": ({"backend": "rocmm"}, ".backend", "found 'rocmm' (text)\n    did you mean 'rocm'?"),
    "no such arithmetic": ({"peak_tflops": {"bf61": 1}}, ".peak_tflops.bf61", "found 'bf61' (text)\n    did you mean"),
    "another's backend": ({"backend": "npu"}, "", "the backend 'npu' is of 'npu', not 'cuda'"),
}
"""What is written over the row -> the field that is named, and what is said of it."""


@pytest.mark.parametrize(("changes", "field", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_ones_own_targets_is_told_with_file_and_line(
    lab: Lab, changes: dict[str, Any], field: str, said: str
) -> None:
    lab.describe(OWN | changes)
    assert re.search(
        rf"lab/targets\.yaml:\d+ targets\[0\]{re.escape(field)}: {re.escape(said)}", lab.refused("lab-a6000")
    )


def test_the_line_of_a_mistake_is_its_own(lab: Lab) -> None:
    lab.describe(OWN, OWN | {"name": "other", "pwoer_watts": 300})
    lines = (lab.folder / "targets.yaml").read_text().splitlines()
    at = next(number for number, line in enumerate(lines, 1) if "pwoer_watts" in line)
    assert f"lab/targets.yaml:{at} targets[1].pwoer_watts: unknown field" in lab.refused("lab-a6000")


def test_two_rows_of_one_name_are_refused(lab: Lab) -> None:
    lab.describe(OWN, OWN | {"memory_gib": 24})
    assert re.search(r"lab/targets\.yaml:\d+ targets: rows of the same name: lab-a6000", lab.refused("lab-a6000"))


def test_the_example_of_the_manual_is_one() -> None:
    text = (ROOT / "docs" / "writing.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if block.startswith("targets:"))
    (row,) = documents.check(OwnTargets, documents.parse(example, "docs/writing.md")).targets
    assert row == TargetRow.model_validate(OWN | {"power_watts": 300, "power_source": "datasheet"})
    needed = {name for name, field in TargetRow.model_fields.items() if field.is_required()}
    stated = next(line for line in text.splitlines() if line.startswith("Needed are"))
    assert needed == set(re.findall(r"`(\w+)`", stated))
