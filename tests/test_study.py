"""Studies: a file becomes arms and runs, what is wrong with it is said before anything starts, and the same command
brings it to a verdict, whatever was there before."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_rows
from small_recipes import Workbench, questions, write_recipe

from workbench import files
from workbench.recipe.load import load as load_recipe
from workbench.recipe.resolve import resolve
from workbench.runs import lock
from workbench.runs.planned import planned
from workbench.runs.run import Run
from workbench.study.go import bring
from workbench.study.load import load
from workbench.study.plan import Plan, plan

SUITE = (
    "tasks:\n- {name: choice, id: answers, data: asks}\n- {name: heldout, id: texts, role: retention, data: texts}\n"
)
BASE = {"recipe": "small.yaml", "set": {"method": "none"}}
FULL = {"recipe": "small.yaml", "set": {"method": "full", "training.learning_rate": 1e-3}}
TWO: dict[str, Any] = {"base": BASE, "lora": "small.yaml"}
ARMS: dict[str, Any] = {**TWO, "full": FULL}


def write_suite(folder: Path) -> None:
    """A suite of one choice and one held-out task, with its cards and rows."""
    asks = [
        {"prompt": f"where is the mat {at}?", "completion": ("on the mat", "in the park")[at % 2]} for at in range(8)
    ]
    texts = [{"text": f"the cat sat on the mat and ran {at} times with a red ball"} for at in range(6)]
    for name, form, rows in (("asks", "prompt_completion", asks), ("texts", "text", texts)):
        write_rows(folder / "rows" / f"{name}.jsonl", rows)
        card = {"format": form, "splits": {"test": {"files": f"../rows/{name}.jsonl"}}}
        (folder / "datasets" / f"{name}.yaml").write_text(yaml.safe_dump(card))
    (folder / "suites").mkdir()
    (folder / "suites" / "words.yaml").write_text(SUITE)


def write_study(folder: Path, file: str = "weigh.yaml", **fields: Any) -> Path:
    """A study of the small recipe; `fields` are laid over the good ones, and None leaves one out."""
    values = {
        "question": "Is an adapter better than the base?",
        "suite": "words",
        "seeds": [0, 1],
        "vary": ["method", "training.learning_rate"],
        "arms": ARMS,
    } | fields
    path = folder / file
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}, sort_keys=False))
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which all is well, with a base that can be planned with and not trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weights")
    write_recipe(tmp_path, tmp_path / "base", questions(4))
    write_suite(tmp_path)
    write_study(tmp_path)
    return tmp_path


def planned_of(place: Path, **fields: Any) -> Plan:
    """The plan of a study."""
    return plan(load(write_study(place, **fields)), place / "runs", ())


# --- from a file to arms ---------------------------------------------------------------------------------------------


def settings(arm: Any) -> dict[str, Any]:
    """What a study lays over an arm's recipe, by section."""
    merged: dict[str, Any] = {}
    for layer in arm.settings:
        for section, value in layer.value.items():
            merged[section] = {**merged.get(section, {}), **value} if isinstance(value, dict) else value
    return merged


def test_an_arm_of_one_word_is_a_recipe_as_it_is(place: Path) -> None:
    arm = load(write_study(place)).arms[1]
    assert (arm.name, arm.family, arm.path, arm.settings) == ("lora", "lora", place / "small.yaml", [])


def test_set_lays_fields_over_the_recipe(place: Path) -> None:
    assert settings(load(write_study(place)).arms[2]) == {
        "method": {"name": "full"},
        "training": {"learning_rate": 1e-3},
    }


def test_a_grid_makes_an_arm_of_every_combination_and_names_it(place: Path) -> None:
    grid = {"method.rank": [2, 8], "training.learning_rate": [1e-4, 0.1]}
    loaded = load(write_study(place, arms={"lora": {"recipe": "small.yaml", "grid": grid}}))
    assert [arm.name for arm in loaded.arms] == [
        "lora-rank=2-learning_rate=0.0001",
        "lora-rank=2-learning_rate=0.1",
        "lora-rank=8-learning_rate=0.0001",
        "lora-rank=8-learning_rate=0.1",
    ]
    assert {arm.family for arm in loaded.arms} == {"lora"}
    assert settings(loaded.arms[3]) == {"method": {"rank": 8}, "training": {"learning_rate": 0.1}}


def test_each_changes_fields_together(place: Path) -> None:
    each = [{"data.fraction": 0.5, "training.steps": 2}, {"data.fraction": 1.0, "training.steps": 4}]
    loaded = load(write_study(place, arms={"lora": {"recipe": "small.yaml", "each": each}}))
    assert [arm.name for arm in loaded.arms] == ["lora-fraction=0.5-steps=2", "lora-fraction=1-steps=4"]
    assert settings(loaded.arms[0]) == {"data": {"fraction": 0.5}, "training": {"steps": 2}}


def test_lists_sections_and_paths_make_names_that_a_folder_can_have(place: Path) -> None:
    grid = {
        "method": [{"name": "lora", "rank": 2}, "full"],
        "data.template": ["./a b.jinja"],
        "target.name": [["x", "y"]],
    }
    loaded = load(write_study(place, arms={"one": {"recipe": "small.yaml", "grid": grid}}))
    assert [arm.name for arm in loaded.arms] == [
        "one-method=lora+2-template=.-a-b.jinja-name=x+y",
        "one-method=full-template=.-a-b.jinja-name=x+y",
    ]


def test_a_family_name_stands_for_all_of_it(place: Path) -> None:
    grid = {"method.rank": [2, 8]}
    loaded = load(write_study(place, arms={**ARMS, "lora": {"recipe": "small.yaml", "grid": grid}}))
    assert loaded.expand("lora") == ["lora-rank=2", "lora-rank=8"]
    assert loaded.expand("lora-rank=8") == ["lora-rank=8"]
    assert loaded.pairs(["lora", "base"]) == [("lora-rank=2", "base"), ("lora-rank=8", "base")]
    assert loaded.pairs(["lora", "lora-rank=2"]) == [("lora-rank=8", "lora-rank=2")]


def test_a_path_in_a_setting_starts_at_the_study(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_study(place, arms={"base": BASE, "other": {"recipe": "small.yaml", "set": {"base": "./base"}}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert settings(load(path).arms[1]) == {"base": {"name": str(place / "base")}}


def test_a_study_is_called_after_its_file_or_as_it_says(place: Path) -> None:
    assert load(write_study(place)).name == "weigh"
    assert load(write_study(place, name="other")).name == "other"


@pytest.mark.parametrize("name", ["quickstart-study", "quickstart-study.yaml", "recipes/studies/quickstart-study.yaml"])
def test_a_shipped_study_is_found_by_name(place: Path, name: str) -> None:
    assert [arm.name for arm in load(Path(name)).arms] == ["base", "lora", "full", "scratch"]


# --- bad studies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """One way to be wrong."""

    name: str
    says: tuple[str, ...]
    """What the message must hold."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Laid over the good study's."""
    text: str | bytes | None = None
    """The whole file instead."""
    arguments: tuple[str, ...] = ("weigh.yaml",)


def with_arm(**arm: Any) -> dict[str, Any]:
    """The good study's fields with one more arm of the small recipe."""
    return {"arms": {**ARMS, "more": {"recipe": "small.yaml", **arm}}}


MANY = {f"method.field{at}": list(range(10)) for at in range(12)}
BAD = [
    Bad("typo in a field", ("weigh.yaml:", "refrence", "did you mean 'reference'"), {"refrence": "base"}),
    Bad("typo in an arm", ("arms.more.sett", "did you mean 'set'"), with_arm(sett={})),
    Bad("no question", ("question", "is needed"), {"question": None}),
    Bad("number for a question", ("question", "3 (whole number)"), {"question": 3}),
    Bad("ladder read on a yes/no task", ("ladder_task", "answers is not measured in bits per byte", "texts"),
        {**with_arm(set={"base.init": "random", "method": "full"}), "ladder": ["more"], "ladder_task": "answers"}),
    Bad("unknown reference", ("reference", "'bsae'", "did you mean 'base'"), {"reference": "bsae"}),
    Bad("several arms for a reference", ("reference", "several arms"),
        {**with_arm(grid={"method.rank": [2, 8]}), "reference": "more"}),
    Bad("unknown arm in a contrast", ("contrasts[0][1]", "'bas'", "did you mean 'base'"),
        {"contrasts": [["lora", "bas"]]}),
    Bad("three in a contrast", ("contrasts[0]",), {"contrasts": [["lora", "base", "full"]]}),
    Bad("contrast with itself", ("contrasts[0]", "against itself"), {"contrasts": [["lora", "lora"]]}),
    Bad("contrast twice", ("contrasts[1]", "twice"), {"contrasts": [["lora", "base"], ["base", "lora"]]}),
    Bad("unknown arm in the ladder", ("ladder[0]", "'rung'"), {"ladder": ["rung"]}),
    Bad("rung that is not from scratch", ("ladder[0]", "lora", "from scratch"), {"ladder": ["lora"]}),
    Bad("recipe not there", ("weigh.yaml:", "arms.lora.recipe", "no recipe smal.yaml"),
        {"arms": {"base": BASE, "lora": "smal.yaml"}}),
    Bad("recipe is a folder", ("arms.lora.recipe", "no recipe suites"), {"arms": {"base": BASE, "lora": "suites"}}),
    Bad("recipe is the study", ("is a study, not a recipe",), {"arms": {"base": BASE, "lora": "weigh.yaml"}}),
    Bad("recipe that is wrong", ("wrong.yaml:1", "not YAML"), {"arms": {"base": BASE, "lora": "wrong.yaml"}}),
    Bad("typo inside set", ("weigh.yaml:", "arms.more.set.method.rnk", "did you mean 'rank'"),
        with_arm(set={"method.rnk": 8})),
    Bad("unknown section inside set", ("arms.more.set.methd.rank", "did you mean 'method'"),
        with_arm(set={"methd.rank": 8})),
    Bad("typo inside grid", ("arms.more.grid.method.rnk", "did you mean 'rank'"),
        with_arm(grid={"method.rnk": [2, 8]})),
    Bad("text for a number inside grid", ("arms.more.grid.method.rank", "'many'"),
        with_arm(grid={"method.rank": [2, "many"]})),
    Bad("typo inside each", ("arms.more.each[1].method.rnk", "did you mean 'rank'"),
        with_arm(each=[{"method.rank": 2}, {"method.rnk": 8}])),
    Bad("empty key inside set", ("arms.more", "empty field name"), with_arm(set={"method..rank": 8})),
    Bad("set is a list", ("arms.more.set", "section"), with_arm(set=["method.rank"])),
    Bad("field in set and grid", ("arms.more", "method.rank", "more than once"),
        with_arm(set={"method.rank": 2}, grid={"method.rank": [2, 8]})),
    Bad("seed inside set", ("arms.more", "sets seed", "`seeds`"), with_arm(set={"seed": 3})),
    Bad("suite inside set", ("arms.more", "sets evaluation", "`suite`"), with_arm(set={"evaluation": {"suite": "x"}})),
    Bad("seed by --set", ("--set seed", "the study's own"), arguments=("weigh.yaml", "--set", "seed=3")),
    Bad("typo by --set", ("--set trainng.steps", "did you mean 'training'"),
        arguments=("weigh.yaml", "--set", "trainng.steps=3")),
    Bad("arms empty", ("arms", "at least 1"), {"arms": {}}),
    Bad("arms a list", ("arms", "section"), {"arms": ["small.yaml"]}),
    Bad("one arm only", ("arms", "one arm only"), {"arms": {"lora": "small.yaml"}}),
    Bad("arm that is nothing", ("arms.lora", "found nothing"), {"arms": {"base": BASE, "lora": None}}),
    Bad("arm name with a slash", ("arms.a/b",), {"arms": {"base": BASE, "a/b": "small.yaml"}}),
    Bad("arm name of dots", ("arms", "'..'"), {"arms": {"base": BASE, "..": "small.yaml"}}),
    Bad("arm name that no folder can have", ("300 bytes", "at most 200"),
        {"arms": {"base": BASE, "x" * 300: "small.yaml"}}),
    Bad("study name with a slash", ("name", "'../up'"), {"name": "../up"}),
    Bad("same run twice", ("arms", "again and lora come to the same run", "repeat: 1"),
        {"arms": {**ARMS, "again": "small.yaml"}}),
    Bad("grid with an empty list", ("arms.more.grid.method.rank", "at least 1"), with_arm(grid={"method.rank": []})),
    Bad("grid value that is no list", ("arms.more.grid.method.rank", "list"), with_arm(grid={"method.rank": 8})),
    Bad("grid value twice", ("2 arms come out as 'more-rank=8'",), with_arm(grid={"method.rank": [8, 8]})),
    Bad("grid of a million million arms", ("more than 1000 arms",), with_arm(grid=MANY)),
    Bad("seed twice", ("seeds[2]", "0 stands twice"), {"seeds": [0, 1, 0]}),
    Bad("seeds empty", ("seeds", "at least 1"), {"seeds": []}),
    Bad("seeds a number", ("seeds", "list"), {"seeds": 3}),
    Bad("negative seed", ("seeds[0]", "-1"), {"seeds": [-1]}),
    Bad("text for a seed", ("seeds[1]", "'one'"), {"seeds": [0, "one"]}),
    Bad("unknown field to vary", ("vary[0]", "did you mean 'method.rank'"), {"vary": ["method.rnk"]}),
    Bad("word for vary", ("vary", "list"), {"vary": "method"}),
    Bad("unknown suite", ("suite", "no suite", "'wrds'"), {"suite": "wrds"}),
    Bad("margin of no task", ("margins.answer", "did you mean 'answers'"), {"margins": {"answer": 0.1}}),
    Bad("negative margin", ("margins.answers", "greater than 0"), {"margins": {"answers": -0.1}}),
    Bad("unknown ladder task", ("ladder_task", "did you mean 'texts'"), {"ladder_task": "text"}),
    Bad("extends", ("extends", "unknown field"), {"extends": "small.yaml"}),
    Bad("empty file", ("is empty",), text=""),
    Bad("a list", ("found [1, 2]", "section"), text="- 1\n- 2\n"),
    Bad("a word", ("found 'hello'",), text="hello\n"),
    Bad("not YAML", ("weigh.yaml:", "not YAML"), text="arms: {lora: small.yaml\n"),
    Bad("goes round in circles", ("aliases repeat",), text="arms: &arms {lora: *arms}\n"),
    Bad("key twice", ("suite", "stands twice"), text="suite: words\nsuite: words\n"),
    Bad("binary", ("not UTF-8",), text=b"\xff\xfe\x00\x80"),
    Bad("no such study", ("no such study", "did you mean 'weigh.yaml'"), arguments=("weih.yaml",)),
    Bad("no such folder", ("there is no folder nowhere",), arguments=("nowhere/quickstart-study.yaml",)),
    Bad("a folder for a study", ("is a directory",), arguments=("suites",)),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_study_is_refused_before_anything_starts(bad: Bad, place: Path, workbench: Workbench) -> None:
    (place / "wrong.yaml").write_text("base: {")
    path = write_study(place, **bad.fields)
    if bad.text is not None:
        path.write_bytes(bad.text if isinstance(bad.text, bytes) else bad.text.encode())
    outcome = workbench("study", *bad.arguments)
    assert outcome.status == 2, outcome.output
    assert "Traceback" not in outcome.output
    for words in bad.says:
        assert words in " ".join(outcome.output.split()), outcome.output
    assert not (place / "runs").exists()


def test_all_problems_of_the_fields_are_told_at_once(place: Path, workbench: Workbench) -> None:
    write_study(place, question=3, seeds=["x"], **with_arm(st={}))
    outcome = workbench("study", "weigh.yaml")
    assert outcome.status == 2
    for words in ("question", "seeds[0]", "arms.more.st"):
        assert words in outcome.output


def test_all_problems_of_the_names_are_told_at_once(place: Path, workbench: Workbench) -> None:
    write_study(place, reference="x", ladder=["y"], seeds=[1, 1], vary=["z"], arms={**ARMS, "more": "none.yaml"})
    outcome = workbench("study", "weigh.yaml")
    assert outcome.status == 2
    for words in ("reference", "ladder[0]", "seeds[1]", "vary[0]", "arms.more.recipe"):
        assert words in outcome.output


def test_all_problems_of_all_recipes_are_told_at_once(place: Path, workbench: Workbench) -> None:
    arms = {"base": BASE, **{name: {"recipe": "small.yaml", "set": {"method": name}} for name in ("lorra", "ful")}}
    write_study(place, arms=arms, margins={"answer": 1})
    outcome = workbench("study", "weigh.yaml")
    assert outcome.status == 2
    for words in ("arms.lorra.set.method", "arms.ful.set.method", "margins.answer"):
        assert words in outcome.output


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_first_seed_of_every_arm_comes_before_the_second_of_any(place: Path) -> None:
    runs = planned_of(place, seeds=[5, 3]).runs
    assert [(one.arm, one.seed) for one in runs] == [("base", 0), ("lora", 5), ("full", 5), ("lora", 3), ("full", 3)]


def test_each_seed_is_a_run_of_its_own_but_for_the_untouched_base(place: Path) -> None:
    facts = [one.planned.facts for one in planned_of(place, seeds=[5, 3]).runs]
    assert [(one["method"]["name"], one["seed"]) for one in facts] == [
        ("none", 0), ("lora", 5), ("full", 5), ("lora", 3), ("full", 3)
    ]  # fmt: skip


def test_a_random_base_has_a_run_for_every_seed(place: Path) -> None:
    random = {"recipe": "small.yaml", "set": {"method": "none", "base.init": "random"}}
    runs = planned_of(place, vary=["method", "base.init"], arms={"base": BASE, "random": random}).runs
    assert [(one.arm, one.seed) for one in runs] == [("base", 0), ("random", 0), ("random", 1)]


def test_a_set_from_the_command_line_lies_over_every_arm(place: Path) -> None:
    made = plan(load(write_study(place)), place / "runs", ["training.steps=3"])
    assert {one.planned.resolved.recipe.training.steps for one in made.runs} == {3}


def test_runs_that_are_there_are_found_whatever_they_are_called(place: Path) -> None:
    found = planned(resolve(load_recipe(place / "small.yaml", ["seed=1", "name=of-old"])), place / "runs")
    run = found.open(place / "runs")
    made = planned_of(place)
    assert [(one.arm, one.seed, one.find(made.root)) for one in made.runs if one.find(made.root)] == [("lora", 1, run)]
    assert run.name.startswith("of-old-")


def test_the_states_of_a_run(place: Path) -> None:
    made = planned_of(place)
    one = next(one for one in made.runs if one.arm == "lora")
    assert one.state(made.root) == "missing"
    run = one.planned.open(made.root)
    assert one.state(made.root) == "stopped"
    for status, state in ((2, "failed"), (75, "stopped"), (130, "stopped"), (137, "failed")):
        run.note_attempt("start", pid=1)
        assert one.state(made.root) == "stopped"
        run.note_attempt("end", status=status)
        assert one.state(made.root) == state
    with lock.held(run):
        assert one.state(made.root) == "running"
    files.write_json(run.status, {"status": "finished"})
    assert one.state(made.root) == "not scored"
    files.write_json(run.results("words"), {"content": "of other items"})
    assert one.state(made.root) == "not scored"


def test_the_plan_lists_the_runs_and_starts_nothing(place: Path, workbench: Workbench) -> None:
    outcome = workbench("study", "weigh.yaml", "--plan")
    assert outcome.status == 0, outcome.output
    assert [line.split()[:3] for line in outcome.output.splitlines()[2:7]] == [
        ["base", "-", "missing"],
        ["lora", "0", "missing"],
        ["full", "0", "missing"],
        ["lora", "1", "missing"],
        ["full", "1", "missing"],
    ]
    assert "5 of 5 runs to do" in outcome.output
    assert not (place / "runs").exists()


UNDECLARED = {**ARMS, "full": {"recipe": "small.yaml", "set": {"method": "full", "training.steps": 7}}}


def test_recipes_that_differ_in_an_undeclared_field_are_refused_before_anything_starts(
    place: Path, workbench: Workbench
) -> None:
    write_study(place, vary=["method"], arms=UNDECLARED)
    outcome = workbench("study", "weigh.yaml")
    assert outcome.status == 3, outcome.output
    assert "training.steps: 8 (lora) | 7 (full)" in outcome.output
    assert "nothing was started" in outcome.output
    assert not (place / "runs").exists()
    assert workbench("study", "weigh.yaml", "--plan", "--allow-confounds").status == 0


# --- the runs and the verdict ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Studied:
    """A study file and where its runs go, worked on through the command line."""

    workbench: Workbench
    file: Path
    root: Path

    def restated(self, **fields: Any) -> Studied:
        """The study with other fields, over the same runs."""
        file = write_study(self.file.parent, "restated.yaml", **{"name": "weigh", "arms": TWO} | fields)
        return replace(self, file=file)

    @property
    def verdict_file(self) -> Path:
        """What it came to."""
        return self.root / "studies" / "weigh" / "verdict.json"

    @property
    def report_file(self) -> Path:
        """What is shown of it."""
        return self.root / "studies" / "weigh" / "report.html"

    def go(self, expected: int, *arguments: str) -> str:
        """Run the command and return what it said."""
        outcome = self.workbench("study", str(self.file), "--runs", str(self.root), *arguments)
        assert outcome.status == expected, outcome.output
        assert "Traceback" not in outcome.output
        return outcome.output

    def plan(self) -> Plan:
        """The study's runs."""
        return plan(load(self.file), self.root, ())

    def verdict(self) -> Any:
        """The verdict as plain values."""
        return files.read_json(self.verdict_file)

    def starts(self) -> dict[str, int]:
        """How many processes began to work on each run, by the run's name."""
        runs = [Run(path.parent) for path in sorted(self.root.glob("*/resolved.json"))]
        return {run.name: sum(row["event"] == "start" for row in files.read_jsonl(run.attempts)) for run in runs}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A folder with a study of a real base, few steps and few items."""
    folder = tmp_path_factory.mktemp("study")
    write_recipe(folder, small_base, questions(), training={"steps": 4})
    write_suite(folder)
    write_study(folder, arms=TWO)
    return folder


@pytest.fixture
def fresh(room: Path, tmp_path: Path, workbench: Workbench) -> Studied:
    """The study in a folder of its own, with one seed, nothing of it done."""
    shutil.copytree(room, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
    return Studied(workbench, write_study(tmp_path, seeds=[0], arms=TWO), tmp_path / "runs")


@pytest.fixture
def done(room: Path, tmp_path: Path, workbench: Workbench) -> Studied:
    """The study brought to its end (once for all tests), with runs of its own to change."""
    first = Studied(workbench, room / "weigh.yaml", room / "runs")
    if not first.root.exists():
        first.go(0)
    shutil.copytree(first.root, tmp_path / "runs")
    return replace(first, root=tmp_path / "runs")


def test_a_study_ends_in_a_verdict_and_a_report(done: Studied) -> None:
    verdict = done.verdict()
    assert verdict["complete"] and verdict["missing"] == []
    assert [(arm["name"], arm["seeds"]) for arm in verdict["arms"]] == [("base", [0]), ("lora", [0, 1])]
    assert [(one["task"], one["arm"], one["against"]) for one in verdict["contrasts"]] == [
        ("answers", "lora", "base"),
        ("texts", "lora", "base"),
    ]
    assert len(done.starts()) == 3
    page = done.report_file.read_text()
    assert "Is an adapter better than the base?" in page and "</html>" in page


def test_the_same_command_again_trains_nothing_and_says_the_same(done: Studied) -> None:
    done.go(0)
    before = [done.starts(), done.verdict_file.read_bytes(), done.report_file.read_bytes()]
    said = done.go(0)
    assert [done.starts(), done.verdict_file.read_bytes(), done.report_file.read_bytes()] == before
    assert "run 1 of" not in said and "runs to do" not in said


def test_the_plan_tells_what_runs_cost_and_roughly_what_their_other_seeds_will(done: Studied) -> None:
    more = {"recipe": "small.yaml", "set": {"method.rank": 2}}
    study, starts = done.restated(seeds=[0, 1, 2], vary=["method"], arms={**TWO, "more": more}), done.starts()
    rows = {tuple(line.split()[:2]): line for line in study.go(0, "--plan").splitlines()}
    assert "finished" in rows["lora", "1"] and "FLOP" in rows["lora", "1"] and "about" not in rows["lora", "1"]
    assert "missing" in rows["lora", "2"] and rows["lora", "2"].count("about") == 2
    assert "missing" in rows["more", "0"] and rows["more", "0"].count("about") == 2, "by the planner"
    assert rows["4", "of"].endswith("of training")
    assert done.starts() == starts


def test_a_new_arm_is_all_that_is_trained(done: Studied) -> None:
    starts = done.starts()
    study = done.restated(arms={**TWO, "rank": {"recipe": "small.yaml", "set": {"method.rank": 2}}})
    study.go(0)
    assert {name: done.starts()[name] for name in starts} == starts
    new = {name: count for name, count in done.starts().items() if name not in starts}
    assert list(new.values()) == [1, 1] and all(name.startswith("rank-") for name in new)
    assert [arm["name"] for arm in done.verdict()["arms"]] == ["base", "lora", "rank"]


def test_other_items_are_scored_and_nothing_is_trained_again(fresh: Studied) -> None:
    fresh.go(0)
    before, run = fresh.verdict(), fresh.plan().runs[1].find(fresh.root)
    assert run is not None
    trained = [file.read_bytes() for file in (run.training, run.metrics, run.proof)]
    rows = [{"text": f"the dog ran to the park {at} times"} for at in range(5)]
    write_rows(fresh.file.parent / "rows" / "texts.jsonl", rows)
    assert fresh.go(0, "--plan").count("not scored") == 2
    fresh.go(0)
    verdict = fresh.verdict()
    assert verdict["complete"]
    assert verdict["suite"]["fingerprint"] != before["suite"]["fingerprint"]
    assert [task["items"] for task in verdict["suite"]["tasks"]] == [8, 5]
    assert [arm["runs"] for arm in verdict["arms"]] == [arm["runs"] for arm in before["arms"]]
    assert [file.read_bytes() for file in (run.training, run.metrics, run.proof)] == trained


def test_a_suite_that_is_only_described_otherwise_is_scored_already(fresh: Studied) -> None:
    fresh.go(0)
    verdict, suite = fresh.verdict(), fresh.file.parent / "suites" / "words.yaml"
    suite.write_text(f"description: Words about animals.\n{SUITE}")
    fresh.go(0)
    assert fresh.verdict() == verdict
    assert "runs to do" not in fresh.go(0, "--plan")


def test_solved_examples_and_equal_runs_are_arms_too(fresh: Studied) -> None:
    """The controls: the base with examples before each question, and the same recipe and seed once more."""
    again = {"recipe": "small.yaml", "set": {"repeat": 1}}
    shots = {"recipe": "small.yaml", "set": {"method": "none", "evaluation.fewshot": 2}}
    rows = [{"prompt": f"where is the cat {at}?", "completion": "on the mat"} for at in range(4)]
    write_rows(fresh.file.parent / "rows" / "solved.jsonl", rows)
    card = fresh.file.parent / "datasets" / "asks.yaml"
    splits = {"test": {"files": "../rows/asks.jsonl"}, "train": {"files": "../rows/solved.jsonl"}}
    card.write_text(yaml.safe_dump({"format": "prompt_completion", "splits": splits}))
    study = fresh.restated(arms={**TWO, "again": again, "shots": shots}, vary=["method", "evaluation.fewshot"])
    study.go(0)
    verdict = fresh.verdict()
    scores = {arm["name"]: arm["scores"] for arm in verdict["arms"]}
    assert scores["again"] == scores["lora"]
    assert scores["shots"]["texts"] == scores["base"]["texts"], "raw text has no examples before it"
    assert {one["largest_difference"] for one in verdict["noise_floor"]} == {0.0}
    assert all(one["expected_zero"] and one["arm"] == "again" for one in verdict["noise_floor"])
    base, shots_ = (arm["runs"] for arm in verdict["arms"] if arm["name"] in ("base", "shots"))
    assert base == shots_, "one run of the base, scored in two ways"
    assert sorted(Run(fresh.root / base[0]).suites()) == ["words", "words-2shot"]


BROKEN = {"recipe": "small.yaml", "set": {"method.targets": ["no_such_layer"]}}
RATE = {"learning_rate": 1e38, "max_grad_norm": 0, "warmup_fraction": 0, "steps": 20}
ENDLESS = {"recipe": "small.yaml", "set": {"training": RATE}}


def test_an_arm_that_fails_does_not_stop_the_others(fresh: Studied) -> None:
    arms = {"broken": BROKEN, "endless": ENDLESS, **TWO}
    said = fresh.restated(seeds=[0], vary=["method", "training"], arms=arms).go(2)
    verdict = fresh.verdict()
    assert [arm["name"] for arm in verdict["arms"]] == ["base", "lora"]
    assert not verdict["complete"]
    assert [(one["arm"], one["seed"], one["state"]) for one in verdict["missing"]] == [
        ("broken", 0, "failed"),
        ("endless", 0, "failed"),
    ]
    assert all("status 2" in one["reason"] for one in verdict["missing"])
    assert "no_such_layer" in said and "the loss is" in said
    assert "missing broken, seed 0: failed" in said
    assert "endless" in fresh.report_file.read_text()


def test_a_reference_that_fails_leaves_the_other_pairs(fresh: Studied) -> None:
    fresh.restated(seeds=[0], reference="broken", arms={**TWO, "broken": BROKEN}).go(2)
    found = {(one["arm"], one["against"], one["family"]) for one in fresh.verdict()["contrasts"]}
    assert found == {("lora", "base", "exploratory")}


def test_one_arm_that_is_left_is_no_comparison(fresh: Studied) -> None:
    said = fresh.restated(seeds=[0], arms={"base": BASE, "broken": BROKEN}).go(3)
    assert "fewer than two arms have a finished run" in said
    assert not fresh.verdict_file.exists()


def test_runs_that_were_trained_one_by_one_are_used(fresh: Studied) -> None:
    recipe = str(fresh.file.parent / "small.yaml")
    one = fresh.workbench("train", recipe, "--runs", str(fresh.root), "--set", "evaluation.suite=words")
    assert one.status == 0, one.output
    starts = fresh.starts()
    assert sorted(name.rsplit("-", 2)[0] for name in starts) == ["base-small", "small"]
    fresh.go(0)
    assert fresh.starts() == starts
    assert {name for arm in fresh.verdict()["arms"] for name in arm["runs"]} == set(starts)


# --- beside other processes ------------------------------------------------------------------------------------------


def undone(done: Studied) -> tuple[Plan, Run]:
    """The plan of the study, and a run of it whose last file is missing."""
    made = done.plan()
    run = made.runs[1].find(done.root)
    assert run is not None
    run.status.unlink()
    return made, run


def brought(made: Plan, run: Run, act: Callable[[int, contextlib.ExitStack], None], hold: bool) -> list[str]:
    """Bring a study to its end without a failure, and return what was said.

    Args:
        act: what happens when something is said for the nth time; its stack holds the run's lock, once entered.
        hold: whether the lock is held from the start.
    """
    told: list[str] = []
    with contextlib.ExitStack() as holding:
        if hold:
            holding.enter_context(lock.held(run))

        def say(words: str) -> None:
            told.append(words.split(" (")[0])
            act(len(told), holding)

        assert bring(made, say) == []
    return told


WAITING = "the rest is being worked on by other processes; waiting for them"


def test_a_run_that_another_process_holds_is_waited_for(done: Studied) -> None:
    made, run = undone(done)
    starts = done.starts()[run.name]
    assert brought(made, run, lambda _, holding: holding.close(), hold=True) == [WAITING, "run 3 of 3: lora, seed 0"]
    assert run.is_finished() and done.starts()[run.name] == starts + 1


def test_a_run_that_another_process_finished_meanwhile_is_left_alone(done: Studied) -> None:
    made, run = undone(done)
    starts = done.starts()

    def finish(_: int, holding: contextlib.ExitStack) -> None:
        files.write_json(run.status, {"status": "finished"})
        holding.close()

    assert brought(made, run, finish, hold=True) == [WAITING]
    assert done.starts() == starts


def test_a_process_that_was_faster_is_no_failure(done: Studied) -> None:
    """It takes the run between our look and our start: we come back to it when it is free."""
    made, run = undone(done)

    def take_then_leave(count: int, holding: contextlib.ExitStack) -> None:
        if count == 1:
            holding.enter_context(lock.held(run))
        else:
            holding.close()

    told = brought(made, run, take_then_leave, hold=False)
    assert told == ["run 3 of 3: lora, seed 0", WAITING, "run 3 of 3: lora, seed 0"]
    assert run.is_finished()
