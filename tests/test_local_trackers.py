"""Trackers that keep their records on this machine, read back by their own means: they hold what the run's directory
holds, once, however often and in however many parts it was shown."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dashboards
import pytest
import yaml
from gate_runs import VALUES, Desk, edit, score

from workbench import files
from workbench.errors import RecipeError
from workbench.recipe.load import load
from workbench.runs import walk
from workbench.runs.run import Run
from workbench.tracking import tracker, vocabulary
from workbench.tracking.batches import MOST_POINTS, Batches
from workbench.tracking.record import Point

KINDS = ("trackio", "tensorboard", "mlflow")
SETTINGS: dict[str, dict[str, str]] = {
    "trackio": {"project": "tests"}, "tensorboard": {}, "mlflow": {"experiment": "tests"},
}  # fmt: skip
STUDY, ARM = "a-study", "small-arm"


@dataclass
class Record:
    """What a tracker holds of one run."""

    history: dict[str, list[tuple[int, float]]]
    """Key -> (step, value) in the order in which they stand there."""
    facts: dict[str, Any]
    """Config and summary."""
    state: str = ""
    group: str | None = None
    tags: set[str] = field(default_factory=set)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def read_trackio(root: Path) -> dict[str, Record]:
    found: dict[str, Record] = {}
    with sqlite3.connect(root / "trackio" / "tests.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by id").fetchall()
        configs = dict(base.execute("select run_name, config from configs").fetchall())
        assert base.execute("select count(*) from system_metrics").fetchone() == (0,)
    base.close()
    for name, config in configs.items():
        facts = json.loads(config)
        history: dict[str, list[tuple[int, float]]] = defaultdict(list)
        tables = {}
        for run, step, metrics in rows:
            for key, value in json.loads(metrics).items() if run == name else ():
                if isinstance(value, dict):
                    assert key not in tables
                    tables[key] = value["_value"]
                else:
                    history[key].append((step, value))
        found[name] = Record(dict(history), facts, group=facts["_Group"], tags=set(facts["tags"]), tables=tables)
    assert {row[0] for row in rows} == configs.keys()
    return found


def read_tensorboard(root: Path) -> dict[str, Record]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata
    from tensorboard.util import tensor_util

    found = {}
    for folder in (root / "tensorboard").iterdir():
        (only,) = folder.iterdir()  # earlier event files are gone
        events = EventAccumulator(str(only), size_guidance={"tensors": 0})
        events.Reload()
        history: dict[str, list[tuple[int, float]]] = {}
        facts: dict[str, Any] = {}
        state = ""
        for tag in events.Tags()["tensors"]:
            about = events.SummaryMetadata(tag).plugin_data
            values = [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
            if about.plugin_name == "scalars":
                history[tag] = [(step, value.item()) for step, value in values]
            elif about.plugin_name == "text":
                lines = values[0][1].item().decode().splitlines()[2:]
                facts |= dict(line.strip("| ").split(" | ", 1) if " | " in line.strip("| ") else (line.strip("| "), "")
                              for line in lines)  # fmt: skip
            elif tag == metadata.SESSION_START_INFO_TAG:
                session = metadata.parse_session_start_info_plugin_data(about.content)
                facts |= {f"hparams/{key}": value for key, value in session.hparams.items()}
            elif tag == metadata.SESSION_END_INFO_TAG:
                state = str(metadata.parse_session_end_info_plugin_data(about.content).status)
        tags = set(facts["tags"].split(", "))
        found[folder.name] = Record(history, facts, state, facts["group"], tags)
    return found


def read_mlflow(root: Path) -> dict[str, Record]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(root / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("tests")
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.run_name not in found
        data = run.data
        history = {
            key: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, key)]
            for key in data.metrics
        }
        tags = {key.removeprefix("tag.") for key in data.tags if key.startswith("tag.")}
        facts = {**data.params, **data.tags}
        found[run.info.run_name] = Record(history, facts, run.info.status, data.tags["group"], tags)
    return found


READERS: dict[str, Callable[[Path], dict[str, Record]]] = {
    "trackio": read_trackio, "tensorboard": read_tensorboard, "mlflow": read_mlflow,
}  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # for what reads it here
    for name in ("TRACKIO_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Desk(tmp_path)


def show(kind: str, desk: Desk, *runs: Run, study: str | None = STUDY, arm: str | None = ARM) -> dict[str, Record]:
    """Publish runs, and read what is there then."""
    dashboards.publish(kind, SETTINGS[kind], desk.root, [(run.path, study, arm) for run in runs])
    return READERS[kind](desk.root)


def expected_steps(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The history of a run by its metrics.jsonl."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in walk.rows(run):
        for key, value in vocabulary.of_step(row).items():
            found[key].append((row["step"], value))
    return found


def expected(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The history of a finished run by the files of its directory."""
    found, rows = expected_steps(run), walk.rows(run)
    scores = {
        vocabulary.score_key(task, facts["metric"]): facts["value"]
        for suite in run.suites() for task, facts in files.read_json(run.results(suite))["tasks"].items()
    }  # fmt: skip
    end = {**vocabulary.at_the_end(rows[-1]), **scores, **vocabulary.of_cost(files.read_json(run.cost))}
    for key, value in end.items():
        found[key].append((rows[-1]["step"] + 1, value))
    return dict(found)


def same(kind: str, found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Equal histories; TensorBoard has single precision."""
    near = {key: [(step, pytest.approx(value, rel=1e-6 if kind == "tensorboard" else 0, abs=0)) for step, value in line]
            for key, line in wanted.items()}  # fmt: skip
    return found == near


def interrupted(run: Run, steps: int) -> Callable[[], None]:
    """Leave of a finished run what it held after some steps; returns what brings the rest back."""
    kept = {path: path.read_bytes() for path in (run.metrics, run.status)}
    run.status.unlink()
    run.metrics.write_bytes(b"".join(kept[run.metrics].splitlines(keepends=True)[:steps]))

    def go_on() -> None:
        for path, content in kept.items():
            path.write_bytes(content)

    return go_on


def taken(run: Run, kind: str) -> str | None:
    """What a tracker is at by its notes."""
    found = tracker.read(run.tracked(kind))
    return found.state if found else None


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


# --- what is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stands_there_as_its_directory_tells_it(kind: str, desk: Desk) -> None:
    suite = f"evaluation.suite={desk.folder / 'suites' / 'sums.yaml'}"
    one, two = desk.finished(suite, name="one"), desk.finished(suite, "method.rank=8", name="two")
    found = show(kind, desk, one, two)
    assert found.keys() == {one.name, two.name}
    for run, rank in ((one, 16), (two, 8)):
        record = found[run.name]
        assert same(kind, record.history, expected(run))
        assert len(record.history["train/loss"]) == len(walk.rows(run)) > 3
        assert {key: str(record.facts[key]) for key in ("method/rank", "run/name", "run/study", "base/name")} == {
            "method/rank": str(rank), "run/name": run.name, "run/study": STUDY, "base/name": "base",
        }  # fmt: skip
        assert record.group == ARM
        assert {"lora", "cpu", "sums", STUDY} <= record.tags
        assert len(str(record.facts["run/comparability"])) == 12
        low, high = (float(record.facts[f"task/sums/exact_match/{end}"]) for end in ("low", "high"))
        assert low < record.history["task/sums/exact_match"][0][1] < high


def test_tensorboard_compares_runs_by_their_recipes(desk: Desk) -> None:
    run = desk.finished("method.rank=8", "method.dropout=0.1")
    record = show("tensorboard", desk, run)[run.name]
    assert record.facts["hparams/method/rank"].number_value == 8
    assert record.facts["hparams/method/dropout"].number_value == 0.1
    assert record.facts["hparams/training/precision"].string_value
    assert record.facts["hparams/base/trust_remote_code"].bool_value is False


def test_trackio_shows_every_item_with_its_answer(desk: Desk) -> None:
    run = desk.finished()
    items = files.read_jsonl(run.items("sums"))
    table = show("trackio", desk, run)[run.name].tables["items"]
    assert [(row["id"], row["value"], row["answer"]) for row in table] == [
        (row["id"], row["value"], row["answer"]) for row in items
    ]


# --- once ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_published_twice_stands_there_once(kind: str, desk: Desk) -> None:
    run = desk.finished()
    before = show(kind, desk, run)[run.name]
    again = show(kind, desk, run)
    assert again.keys() == {run.name}
    assert again[run.name].history == before.history
    assert again[run.name].tables == before.tables


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_that_went_on_has_one_history(kind: str, desk: Desk) -> None:
    run = desk.finished()
    go_on = interrupted(run, 3)
    part = show(kind, desk, run)[run.name]
    assert [step for step, _ in part.history["train/loss"]] == [1, 2, 3]
    assert part.state == {"mlflow": "KILLED"}.get(kind, "")
    go_on()
    whole = show(kind, desk, run)
    assert whole.keys() == {run.name}
    assert same(kind, whole[run.name].history, expected(run))
    assert whole[run.name].state == {"mlflow": "FINISHED", "tensorboard": "1"}.get(kind, "")


@pytest.mark.parametrize("kind", KINDS)
def test_scores_that_came_later_are_shown_too(kind: str, desk: Desk) -> None:
    run = desk.finished()
    show(kind, desk, run)
    score(run, desk.suite("more", id="others"), [1.0, *VALUES])
    record = show(kind, desk, run)[run.name]
    assert same(kind, record.history, expected(run))
    assert "task/others/exact_match" in record.history


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_belongs_to_may_be_told_later(kind: str, desk: Desk) -> None:
    """A study publishes runs that were shown by themselves before; MLflow takes no change of a parameter."""
    run = desk.finished()
    alone = show(kind, desk, run, study=None, arm=None)[run.name]
    assert alone.group == alone.facts["run/arm"] == "small"
    within = show(kind, desk, run)[run.name]
    assert (within.group, within.facts["run/study"], within.facts["run/arm"]) == (ARM, STUDY, ARM)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_followed_while_it_grows(kind: str, desk: Desk) -> None:
    run = desk.finished()
    go_on = interrupted(run, 1)
    line = [sys.executable, "-m", "workbench.tracking"]
    told = dashboards.words(kind, SETTINGS[kind], desk.root, [(run.path, STUDY, ARM)], live=True)

    def losses() -> list[int]:
        found = READERS[kind](desk.root)
        return [step for step, _ in found[run.name].history.get("train/loss", [])] if run.name in found else []

    with subprocess.Popen([*line, *told], stdin=subprocess.PIPE) as follower:
        try:
            wait_for(lambda: taken(run, kind) == "following")
            wait_for(lambda: losses() == [1])
            assert READERS[kind](desk.root)[run.name].state == {"mlflow": "RUNNING"}.get(kind, "")
            go_on()
            wait_for(lambda: len(losses()) > 1)
            assert follower.stdin is not None
            follower.stdin.close()  # as when its worker goes
            assert follower.wait(20) == 0
        finally:
            follower.kill()
    assert taken(run, kind) == "complete"
    assert same(kind, READERS[kind](desk.root)[run.name].history, expected(run))


def test_points_go_together_where_they_come_quickly() -> None:
    sent: list[list[int]] = []
    batches = Batches(lambda points: sent.append([point.step for point in points]))
    for step in range(1, MOST_POINTS + 3):
        batches.add(Point(step, {}))
    assert sent == [[1], list(range(2, MOST_POINTS + 2))]  # the first at once: a watcher sees that it has begun
    batches.flush()
    batches.flush()
    assert sent[2:] == [[MOST_POINTS + 2]]


# --- where, and with what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_kept_where_they_are_asked_for(kind: str, desk: Desk, tmp_path: Path) -> None:
    run = desk.finished()
    stated, named = tmp_path / "stated", tmp_path / "named"
    field = "uri" if kind == "mlflow" else "directory"
    variables = {"trackio": "TRACKIO_DIR", "mlflow": "MLFLOW_TRACKING_URI"}
    if kind in variables:
        environment = {variables[kind]: str(named)}
        assert dashboards.start(kind, {}, desk.root, [(run.path, None, None)], **environment).returncode == 0
        assert any(named.iterdir())
    assert dashboards.start(kind, {field: str(stated)}, desk.root, [(run.path, None, None)]).returncode == 0
    assert any(stated.iterdir())
    assert not {"trackio", "tensorboard", "mlruns"} & {path.name for path in desk.root.iterdir()}


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


# --- the processes ---------------------------------------------------------------------------------------------------

WATCHED = """
import json, socket, sys, threading
from workbench.tracking import __main__ as tracking

asked = []
socket.socket.connect = lambda self, address: asked.append(str(address))
socket.getaddrinfo = lambda host, *_, **__: asked.append(str(host))
status = tracking.main()
heavy = [name for name in ("torch", "tensorflow", "transformers", "gradio", "wandb", "git") if name in sys.modules]
left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
print(json.dumps({"status": status, "asked": asked, "heavy": heavy, "left": left}))
"""


MISSING = """
import sys
from workbench.tracking.__main__ import main

class Missing:
    def find_spec(name, path=None, target=None):
        if name == "{0}":
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Missing)
sys.exit(main())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_needs_neither_torch_nor_a_network_and_leaves_nothing_behind(kind: str, desk: Desk) -> None:
    """Not even with a key of the hub, with which trackio would ask whose it is."""
    run = desk.finished()
    keys = {"HF_TOKEN": "hf_" + "a" * 34, "HF_HUB_OFFLINE": "0"}
    done = dashboards.start(kind, SETTINGS[kind], desk.root, [(run.path, None, None)], ["-c", WATCHED], **keys)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"status": 0, "asked": [], "heavy": [], "left": []}
    assert "Warning" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_is_missing_is_told_with_the_extra_that_brings_it(kind: str, desk: Desk) -> None:
    run = desk.finished()
    program = MISSING.format(kind)
    done = dashboards.start(kind, SETTINGS[kind], desk.root, [(run.path, None, None)], ["-c", program])
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert f"tracking.{kind}: the package {kind} is not installed" in said
    assert "pip install 'workbench[trackers]'" in said
    assert "Traceback" not in said


def test_trackio_is_kept_off_network_file_systems(desk: Desk) -> None:
    """trackio would not write its database there either; its variable stands for such a disk here."""
    run = desk.finished()
    shown = [(run.path, None, None)]
    done = dashboards.start("trackio", SETTINGS["trackio"], desk.root, shown, TRACKIO_STORAGE_MODE="jsonl")
    assert done.returncode == 2
    assert "tracking.trackio.directory" in done.stdout + done.stderr
    assert not (desk.root / "trackio").exists()


def test_a_database_without_what_it_needs_is_refused_in_words(desk: Desk, tmp_path: Path) -> None:
    run = desk.finished()
    program = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'sqlalchemy' else find(name, *more)\n"
        "from workbench.tracking.__main__ import main; sys.exit(main())"
    )
    settings = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    done = dashboards.start("mlflow", settings, desk.root, [(run.path, None, None)], ["-c", program])
    assert done.returncode == 2
    assert "tracking.mlflow.uri: a database needs the packages sqlalchemy and alembic" in done.stdout + done.stderr


# --- the dashboards --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if dashboards.CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with dashboards.browser(playwright) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("kind", dashboards.PAGES)
def test_a_dashboard_shows_the_runs_under_the_same_keys(kind: str, desk: Desk, browser: Any) -> None:
    runs = [desk.finished(f"method.rank={rank}", name=name) for name, rank in (("one", 4), ("two", 8))]
    for run in runs:
        prose = {"metric": "bits_per_byte", "value": 0.5, "low": 0.4, "high": 0.6}
        edit(run.results("sums"), "tasks", "prose", to=prose)
    show(kind, desk, *runs)
    keys = ("train/loss", "heldout/prose/bits_per_byte", "task/sums/exact_match")
    with dashboards.PAGES[kind](browser, desk.root / kind, "tests") as page:
        dashboards.wait_for(page, [*(run.name for run in runs), *keys])
