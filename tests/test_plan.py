"""workbench plan: every shipped recipe on every target, what makes a recipe fit, and how far the planner was off."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Outcome
from small_recipes import questions, train, write_recipe
from test_runs import Desk

from workbench import files
from workbench.bases import Loading, load_model
from workbench.catalog.targets import targets
from workbench.methods import counting
from workbench.methods.apply import apply
from workbench.plan.cutting import FEWEST
from workbench.plan.lengths import Cutting, Lengths, capped, steps
from workbench.plan.prediction import GIB, Correction
from workbench.plan.timing import constants, work_of
from workbench.recipe import hardware, resolve, variants
from workbench.recipe.architecture import architecture_of
from workbench.recipe.lengths import lengths_of
from workbench.recipe.load import load
from workbench.recipe.resolved import Resolved
from workbench.runs import planner

Workbench = Callable[..., Outcome]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def resolved(recipe: str, *settings: str) -> Resolved:
    """A shipped recipe with some fields set."""
    return resolve.resolve(load(Path(recipe), settings))


# --- every shipped recipe on every target ----------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_shipped_recipe_is_planned_on_every_target(workbench: Workbench, recipe: str) -> None:
    outcome = workbench("plan", recipe, "--targets", "all", "--json")
    assert outcome.status == 0, outcome.output
    rows = {row.pop("name"): row for row in json.loads(outcome.output)}
    assert rows.keys() >= {name for name, row in targets().items() if row.memory_gib}
    planned = {name: row for name, row in rows.items() if "refused" not in row}
    assert {"cpu", "rtx-4090", "h200", "ascend-910b"} & planned.keys(), rows
    for name, row in planned.items():
        low, expected, high = (row["memory_bytes"][key] for key in ("low", "expected", "high"))
        assert 0 < low <= expected <= high, name
        has = targets()[name].memory_gib
        if has:
            usable = 0.97 * has * GIB
            assert row["verdict"] == ("fits" if high <= usable else "tight" if expected <= usable else "does not fit")
    for name, row in rows.items():
        if "refused" in row:
            assert row["refused"].startswith("illegal: "), (name, row)


def test_qlora_is_refused_where_there_is_no_4_bit_kernel_and_planned_where_there_is(workbench: Workbench) -> None:
    rows = {
        row["name"]: row for row in json.loads(workbench("plan", "qwen-qlora", "--targets", "all", "--json").output)
    }
    assert "refused" in rows["ascend-910b"] and "refused" in rows["mlu370-x8"]
    assert rows["rtx-4090"]["verdict"] and rows["mi300x"]["verdict"]


def test_the_matrix_of_bases_has_every_base_of_the_catalog(workbench: Workbench) -> None:
    outcome = workbench("plan", "qwen-lora", "--bases", "all", "--target", "rtx-4090")
    assert outcome.status == 0, outcome.output
    lines = {line.split()[0]: line for line in outcome.output.splitlines() if line.strip()}
    assert set(resolve.known_bases()) <= lines.keys()
    assert " fits" in lines["qwen3-0.6b"] and "does not fit" in lines["deepseek-v3"]
    assert "qlora" in lines["qwen3-14b"], "what would fit is said"


def test_an_unknown_target_or_base_is_told(workbench: Workbench) -> None:
    for arguments in (("--targets", "rtx-4091"), ("--bases", "qwen9"), ("--target", "rtx-4091")):
        outcome = workbench("plan", "qwen-lora", *arguments)
        assert outcome.status == 2, outcome.output
        assert arguments[1] in outcome.output and "Traceback" not in outcome.output


# --- what a plan shows -----------------------------------------------------------------------------------------------


def test_a_plan_names_its_parts_its_rows_and_its_verdict(workbench: Workbench) -> None:
    said = workbench("plan", "qwen-lora", "--target", "rtx-4090").output
    parts = ("weights", "adapter", "optimizer", "backward pass", "evaluation", "framework", "in all")
    facts = ("fits on rtx-4090", "7,473 rows", "as its card states them", "USD", "kWh", "FLOPs", "disk")
    assert [word for word in (*parts, *facts) if word not in said] == []


def test_a_plan_says_when_it_knows_nothing_of_the_rows(workbench: Workbench) -> None:
    said = workbench("plan", "qwen-dpo", "--target", "h200").output
    assert "every row is counted as the longest one allowed" in said


def test_a_plan_on_a_target_without_memory_says_so(workbench: Workbench) -> None:
    said = workbench("plan", "qwen-lora", "--target", "cuda").output
    assert "unknown" in said and "not known: the target states no peak rate" in said


def test_the_parameters_and_the_memory_are_those_of_the_built_model(
    workbench: Workbench, small_base: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    made = resolve.resolve(load(recipe))
    model = apply(load_model(Loading(small_base)), made.recipe.method, 0)
    counts, work = counting.parameter_counts(model), counting.work_of(model)
    job = planner.job_of(made, architecture_of(made.base), lengths_of(made, 512))
    assert job.setting.trained_parameters == counts["trainable"]
    assert job.setting.model.parameters == counts["total"] - counts["trainable"]
    assert work_of(job.setting.model, job.setting) == work


# --- what makes it fit -----------------------------------------------------------------------------------------------


def test_what_makes_it_fit_really_does(workbench: Workbench) -> None:
    asked = ("qwen-lora", "--set", "base=qwen3-8b", "--target", "rtx-4090")
    said = workbench("plan", *asked).output
    assert "does not fit" in said
    offered = [shlex.split(line) for line in said.splitlines() if line.startswith("  --set ")]
    assert len(offered) >= 2
    for options in offered:
        again = workbench("plan", *asked, *options)
        assert again.status == 0, again.output
        assert "\nfits on rtx-4090" in again.output, (options, again.output)


def test_what_costs_less_comes_first_and_needs_no_more_than_it_must() -> None:
    found = planner.made_to_fit(resolved("qwen-lora", "base=qwen3-8b", "target.name=rtx-4090"), Correction())
    assert [fix.burden for fix in found] == sorted(fix.burden for fix in found)
    for fix in found:
        for change in fix.changes:
            rest = [one for one in fix.changes if one is not change]
            settings = {key: value for one in rest for key, value in one.settings.items()}
            assert all(other.settings.keys() != settings.keys() for other in found), "one of them alone is enough"


def test_what_no_change_makes_fit_is_said(workbench: Workbench) -> None:
    said = workbench("plan", "qwen-lora", "--set", "base=deepseek-v3", "--target", "rtx-4060-8gb").output
    assert "no change of this recipe that was tried makes it fit" in said


def test_training_what_cannot_fit_is_refused_before_anything_is_there(
    workbench: Workbench, small_base: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(), target={"name": "tiny"})
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: tiny, device: cpu, backend: cuda, memory_gib: 0.001, bf16: false, nf4: true, "
        "source: here, as_of: today}]".replace(", backend: cuda", "")
    )
    outcome = workbench("train", str(recipe), "--runs", str(tmp_path / "runs"))
    # a CPU's memory is this machine's, whatever a row says: so it trains
    assert outcome.status == 0, outcome.output
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: tiny, device: cuda, memory_gib: 0.1, bf16: true, nf4: true, source: here, as_of: today}]"
    )
    card = tmp_path / "datasets" / "rows.yaml"
    card.write_text(card.read_text() + "lengths: [[60, 16]]\n")  # without any, nothing would be proved
    outcome = workbench("train", str(recipe), "--runs", str(tmp_path / "other"))
    assert outcome.status == 2 and "tiny has 0.1 GiB a device, and this needs" in outcome.output
    assert not (tmp_path / "other").exists(), "nothing was started"


# --- variants --------------------------------------------------------------------------------------------------------


def test_settings_of_a_variant_are_those_that_the_command_line_would_give() -> None:
    asked = resolved("qwen-lora", "target.name=h200")
    for settings in (
        {"target.gradient_checkpointing": True},
        {"method.name": "qlora", "method.rank": 8},
        {"target.devices": 4},
        {"target.devices": 4, "target.sharding": "fsdp"},
        {"training.optimizer": "adamw_8bit"},
    ):
        given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        assert variants.with_settings(asked, settings) == resolved("qwen-lora", "target.name=h200", *given)


def test_an_illegal_variant_is_none() -> None:
    asked = resolved("qwen-lora", "target.name=ascend-910b")
    assert variants.with_settings(asked, {"method": "qlora"}) is None
    assert variants.with_settings(asked, {"method.rank": -3}) is None


def test_a_variant_on_another_target_has_its_arithmetic() -> None:
    asked = resolved("qwen-lora", "target.name=rtx-4090")
    assert asked.dtype == "bf16"
    known = hardware.known_targets(ROOT)
    assert variants.on_target(asked, known["t4"]).dtype == "fp32"
    assert variants.on_base(asked, "llama-3.2-1b").base.row == "llama-3.2-1b"


# --- lengths ---------------------------------------------------------------------------------------------------------


def test_drawn_lengths_keep_the_bins_and_the_mean() -> None:
    known = Lengths({32: 700, 64: 300}, longest=60, source="rows", mean=29.5)
    drawn = known.draw(4000, random.Random(1))
    assert max(drawn) <= 60 and min(drawn) >= 1
    assert sum(length > 32 for length in drawn) / 4000 == pytest.approx(0.3, abs=0.03)
    assert sum(drawn) / 4000 == pytest.approx(29.5, rel=0.05)


def test_without_a_histogram_every_row_is_the_longest() -> None:
    assert Lengths({}, 512, "maximum").draw(3, random.Random(1)) == [512] * 3


def test_documents_are_cut_and_other_rows_shortened() -> None:
    card = Lengths({100: 10, 1000: 2}, 1000, "card")
    assert capped(card, 2000, cuts_documents=True) is card
    assert capped(card, 200, cuts_documents=False).up_to == {100: 10, 200: 2}
    cut = capped(card, 200, cuts_documents=True)
    assert cut.longest == 200 and cut.examples == 10 + 2 * 2 + 2, "550 tokens on average: two whole windows and a rest"


def test_the_largest_micro_batch_is_what_cutting_gives() -> None:
    known = Lengths({64: 100}, 64, "rows")
    made = steps(known, Cutting(16, 1, 256), num_steps=50)
    assert made.worst.rows == 4 and made.worst.length == 64
    assert made.usual.tokens <= made.expected.tokens <= made.worst.tokens == 256
    pairs = steps(known, Cutting(16, 1, 256, pairs=True), num_steps=50)
    assert pairs.worst.rows == 4 and pairs.tokens == pytest.approx(2 * made.tokens, rel=0.1)


def test_a_device_is_charged_with_its_own_share_of_a_step() -> None:
    alone, shared = (steps(Lengths({}, 512, "maximum"), Cutting(16, devices, 8192), 10) for devices in (1, 8))
    assert (alone.expected.rows, shared.expected.rows) == (16, 2)
    assert shared.expected == shared.worst and shared.tokens == alone.tokens, "of a step over all devices"


def test_micro_batches_that_start_cheaply_are_planned_smaller() -> None:
    known = Lengths({64: 50, 512: 50}, 512, "rows")
    few, cheap = (steps(known, Cutting(32, 1, 8192, start_tokens=cost), 20) for cost in (FEWEST, 100))
    assert cheap.usual.tokens < few.usual.tokens and cheap.padded_tokens < few.padded_tokens
    flat = steps(known, Cutting(32, 1, 8192, flattened=True), 20)
    assert flat.padded_tokens == flat.tokens and flat.expected.rows == 1


def test_a_card_whose_bins_are_empty_says_nothing(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    card = tmp_path / "datasets" / "rows.yaml"
    card.write_text(card.read_text() + "lengths: [[30, 0]]\n")
    assert lengths_of(resolve.resolve(load(recipe)), 512).source == "maximum"


def test_rows_that_changed_are_not_taken_for_those_that_were_counted(
    workbench: Workbench, small_base: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    train(workbench, recipe, tmp_path / "runs")
    assert lengths_of(resolve.resolve(load(recipe)), 512).source == "rows"
    write_recipe(tmp_path, small_base, questions(12))
    assert lengths_of(resolve.resolve(load(recipe)), 512).source == "maximum"


def test_a_cache_that_takes_no_files_stops_no_run(
    workbench: Workbench, small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "lengths").write_text("in the way")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    train(workbench, write_recipe(tmp_path, small_base, questions()), tmp_path / "runs")


def test_lengths_come_from_the_rows_then_the_card_then_nowhere(
    workbench: Workbench, small_base: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    assert lengths_of(resolve.resolve(load(recipe)), 512).source == "maximum"
    card = tmp_path / "datasets" / "rows.yaml"
    card.write_text(card.read_text() + "lengths: [[30, 10], [40, 6]]\n")
    stated = lengths_of(resolve.resolve(load(recipe)), 512)
    assert (stated.source, stated.examples, stated.longest) == ("card", 16, 40)
    train(workbench, recipe, tmp_path / "runs")
    known = lengths_of(resolve.resolve(load(recipe)), 512)
    assert known.source == "rows" and known.examples == 16
    assert known.mean is not None and known.mean < known.longest


def test_a_card_with_wrong_lengths_is_told_where(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    card = tmp_path / "datasets" / "rows.yaml"
    card.write_text(card.read_text() + "lengths: [[30, many]]\n")
    outcome = workbench("plan", str(recipe))
    assert outcome.status == 2 and "rows.yaml:" in outcome.output and "lengths[0]" in outcome.output


# --- predicted and measured ------------------------------------------------------------------------------------------


def test_a_run_keeps_its_plan_beside_what_it_took(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run = train(workbench, write_recipe(tmp_path, small_base, questions()), root)
    plan, cost = files.read_json(run.plan), files.read_json(run.cost)
    assert cost["predicted"] == plan
    assert plan["lengths"] == "rows", "planned again when the rows were known"
    assert plan["training_flops"] == pytest.approx(cost["training_flops"], rel=0.25)
    assert 0.3 < cost["peak_memory_bytes"] / plan["allocated_bytes"] < 4
    said = workbench("runs", "--planner", "--runs", str(root)).output
    assert run.name in said and "off by" in said and "cpu, lora, 1 runs" in said


def test_three_runs_correct_the_plan_and_two_do_not(small_base: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    shutil.copy(small_base / "config.json", tmp_path / "base" / "config.json")
    made = [desk.finished(f"seed={seed}", "training.steps=8", name="one") for seed in range(3)]
    one = resolve.resolve(load(desk.recipe(), ["training.steps=8"]))
    plan = planner.as_words(planner.predicted(one))
    for run in made:
        files.write_json(
            run.cost,
            {
                "peak_memory_bytes": 2 * plan["allocated_bytes"],
                "device_seconds": 3 * plan["device_seconds"],
                "predicted": plan,
            },
        )
    found = list(planner.compared(made[0].path.parent))
    assert len(found) == 3
    corrected = planner.correction(found, found[0].target, found[0].method)
    assert (corrected.memory, corrected.seconds, corrected.runs) == (pytest.approx(2), pytest.approx(3), 3)
    assert planner.correction(found[:2], found[0].target, found[0].method) == Correction()
    assert planner.correction(found, "h200", found[0].method) == Correction()
    plain, scaled = planner.predicted(one), planner.predicted(one, corrected)
    assert plain.seconds and scaled.seconds
    assert scaled.seconds.expected == pytest.approx(3 * plain.seconds.expected)
    assert scaled.device_bytes.expected == pytest.approx(2 * plain.device_bytes.expected)


@pytest.mark.slow
def test_exact_traces_the_recipe_itself(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions())
    outcome = workbench("plan", str(recipe), "--exact")
    assert outcome.status == 0, outcome.output
    assert "traced, micro-batches of" in outcome.output
    outcome = workbench("plan", "qwen-lora", "--exact")
    assert outcome.status == 2 and "hf download" in outcome.output, "a hub base that is not here is not fetched"


def test_a_hub_base_that_is_not_in_the_catalog_is_not_fetched(workbench: Workbench) -> None:
    outcome = workbench("plan", "qwen-lora", "--set", "base=nobody/nothing")
    assert outcome.status == 2 and "not in the catalog" in outcome.output


def test_constants_say_where_they_come_from() -> None:
    found = constants()
    sourced = [found["memory"][name] for name in ("usable_share", "spread", "framework_gib")]
    sourced += [found[name] for name in ("optimizer_bytes", "cpu_gflops_per_thread", "link_gigabytes_per_second")]
    assert all(one["source"] and one["as_of"] for one in sourced)
    assert found["efficiency"]["method_source"] and found["efficiency"]["backend_source"]
