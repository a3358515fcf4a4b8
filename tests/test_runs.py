"""Run directories: made once an identity, locked while worked on, listed, removed and compared; files written whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gate_runs import Desk, score

from workbench import files
from workbench.errors import RunError
from workbench.recipe.identity import identity
from workbench.recipe.load import load
from workbench.recipe.pin import pin
from workbench.recipe.resolve import resolve
from workbench.runs import create, ledger, lock
from workbench.runs.run import MEASURED, Run, without_measured


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


def said(act: Callable[[], object]) -> str:
    """What is refused."""
    with pytest.raises(RunError) as caught:
        act()
    return str(caught.value)


@contextlib.contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python process that has printed `ready`; killed at the end."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


HOLD = """
import sys, time
from pathlib import Path
from workbench.runs import lock
from workbench.runs.run import Run
with lock.held(Run(Path(sys.argv[1]))):
    print("ready", flush=True)
    time.sleep(600)
"""


# --- run directories -------------------------------------------------------------------------------------------------


def test_the_same_identity_is_the_same_run_under_whatever_name(desk: Desk) -> None:
    run = desk.run(name="one")
    again = desk.run("evaluation.batch_size=7", name="another")
    assert again == run
    assert run.name.startswith("one-")
    assert [path.name for path in desk.root.iterdir()] == [run.name]
    assert again.resolved().recipe.name == "another"
    assert again.resolved().recipe.evaluation.batch_size == 7


def test_seed_and_repeat_stand_in_the_name_and_make_runs_of_their_own(desk: Desk) -> None:
    names = {desk.run(*overrides).name for overrides in ([], ["seed=1"], ["seed=10"], ["repeat=1"], ["repeat=2"])}
    assert len(names) == 5
    assert sum(name.endswith("-s0") for name in names) == 1
    assert sum(name.endswith("-s0-r1") for name in names) == 1


@pytest.mark.parametrize("name", [*"0123456789abcdef", "s", "s0", "r1", "0-s0", "small-small"])
def test_no_name_is_taken_for_another_run(desk: Desk, name: str) -> None:
    """A short name can stand by chance at the end of the identity, and then the rest would match any run."""
    for overrides in ([], ["repeat=1"]):
        resolved, contents = desk.pinned(*overrides, "training.steps=3", name=name)
        others = {desk.run(*overrides, f"training.steps={steps}", name="other").path for steps in range(4, 8)}
        assert create.find(desk.root, resolved, identity(resolved, contents)) is None
        made = create.open_run(desk.root, resolved, contents)
        assert made.path not in others
        assert create.find(desk.root, resolved, identity(resolved, contents)) == made


def test_a_run_keeps_what_it_became_and_what_it_was_hashed_from(desk: Desk) -> None:
    resolved, contents = desk.pinned("method={name: lora, rank: 2}")
    run = create.open_run(desk.root, resolved, contents)
    assert run.resolved() == resolved
    assert files.read_json(run.identity_file) == json.loads(json.dumps(identity(resolved, contents)))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method={name: lora, rank: 2}"],
        ["method=vera"],
        ["method={name: qlora, variant: dora}", "training.steps=3"],
        ["method=none", "evaluation.suite=world"],
        ["base.init=random", "method=full", "objective={name: sft, turns: last}", "seed=3", "repeat=1"],
    ],
    ids=str,
)
def test_the_recipe_in_a_run_gives_that_run_again_wherever_it_lies(
    desk: Desk, overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = desk.run(*overrides)
    moved = tmp_path_factory.mktemp("elsewhere") / "recipe.yaml"
    moved.write_bytes(run.recipe_file.read_bytes())
    assert create.open_run(desk.root, *pin(resolve(load(moved)))) == run
    assert Run(run.path).resolved().recipe.name == "small"


def test_a_run_directory_that_cannot_be_made_is_said(desk: Desk) -> None:
    (desk.folder / "file").write_text("")
    resolved, contents = desk.pinned()
    assert "cannot be written: Not a directory" in said(
        lambda: create.open_run(desk.folder / "file" / "runs", resolved, contents)
    )


def test_the_nearest_run_is_named_with_the_fields_that_differ(desk: Desk) -> None:
    def nearest(*overrides: str, name: str = "small") -> tuple[Run, list[str]] | None:
        resolved, contents = desk.pinned(*overrides, name=name)
        return create.nearest(desk.root, resolved, identity(resolved, contents))

    assert nearest() is None
    first = desk.run()
    os.utime(first.identity_file, (1, 1))
    assert nearest() is None
    assert nearest("seed=1") == (first, ["seed"])
    changes = ["training.learning_rate=1e-3", "data.max_length=64", "method={name: lora, rank: 2}"]
    assert nearest(*changes) == (
        first, ["data.max_length", "method.alpha", "method.rank", "training.learning_rate"]
    )  # fmt: skip
    second = desk.run("seed=1")
    assert nearest("seed=2") == (second, ["seed"])
    assert nearest("seed=2", name="stranger") is None


def test_a_run_is_named_by_its_beginning_its_name_or_its_directory(desk: Desk, monkeypatch: Any) -> None:
    run, other = desk.run(), desk.run("seed=1", name="other")
    by_name = create.named_run(desk.root, run.name)
    assert by_name == create.named_run(desk.root, "sma") == create.named_run(desk.root, str(run.path)) == run
    assert create.named_run(desk.root, f"runs/{other.name}/") == other
    monkeypatch.chdir(run.path)
    assert create.named_run(Path("nowhere"), ".").path == run.path


def test_a_beginning_of_several_runs_is_refused_and_a_whole_name_is_not(desk: Desk) -> None:
    names = sorted(desk.run(f"seed={seed}").name for seed in range(3))
    refused = said(lambda: create.named_run(desk.root, "small"))
    assert f"could be 3 runs: {', '.join(names)}" in refused
    repeat = desk.run("repeat=1")
    assert repeat.name.startswith(names[0][: names[0].index("-")])
    assert create.named_run(desk.root, names[0]).name == names[0]


@pytest.mark.parametrize("name", ["nobody", "/nowhere/at/all", "*", "[", "..", "sm*", "small?"])
def test_a_name_of_no_run_is_refused_in_words(desk: Desk, name: str) -> None:
    desk.run()
    assert said(lambda: create.named_run(desk.root, name)).startswith(f"{name}: is no run under")


def test_equal_runs_differ_in_measured_resources_only(desk: Desk) -> None:
    one = {"loss": 1.0, "seconds": 3.0, "inner": [{"host": "a", "value": 2}], "usd": None}
    two = {"loss": 1.0, "seconds": 4.0, "inner": [{"host": "b", "value": 2}], "usd": 5.0}
    assert without_measured(one) == without_measured(two) == {"loss": 1.0, "inner": [{"value": 2}]}
    assert without_measured({**one, "loss": 1.1}) != without_measured(two)
    assert not MEASURED & {"loss", "value", "tokens", "step", "seed"}


# --- the lock --------------------------------------------------------------------------------------------------------


def test_the_lock_keeps_a_second_process_out_and_falls_with_a_killed_holder(desk: Desk) -> None:
    run = desk.run()
    assert not lock.is_held(run)
    with process(HOLD, str(run.path)) as holder:
        assert lock.is_held(run)
        assert ledger.state(run) == "running"
        refused = said(lambda: lock.held(run).__enter__())
        assert f"is being worked on by process {holder.pid} on " in refused
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert not lock.is_held(run)
        with lock.held(run):
            assert f'"pid": {os.getpid()}' in run.lock.read_text()
    assert not lock.is_held(run)


def test_the_lock_falls_when_the_work_fails(desk: Desk) -> None:
    run = desk.run()
    with contextlib.suppress(KeyError), lock.held(run):
        raise KeyError
    assert not lock.is_held(run)


def test_looking_at_a_run_neither_needs_the_right_to_write_nor_disturbs_others(desk: Desk) -> None:
    run = desk.run()
    with lock.held(run):
        pass
    run.lock.chmod(0o444)
    with run.lock.open() as observer:
        fcntl.flock(observer, fcntl.LOCK_SH)
        assert not lock.is_held(run)


def test_work_starts_although_somebody_looks_all_the_time(desk: Desk) -> None:
    run = desk.run()
    with lock.held(run):
        pass
    look = """
import sys
from pathlib import Path
from workbench.runs import lock
from workbench.runs.run import Run
run = Run(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    lock.is_held(run)
"""
    with process(look, str(run.path)):
        for _ in range(300):
            with lock.held(run):
                pass


def test_a_lock_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path / "gone")
    assert "cannot be written" in said(lambda: lock.held(run).__enter__())


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_the_ledger_says_how_far_each_run_is(desk: Desk) -> None:
    finished = desk.finished()
    untouched = desk.run("seed=1")
    failed, killed, preempted, stopped, retried = (desk.run(f"seed={seed}") for seed in range(2, 7))
    for run, status in ((failed, 1), (preempted, 75), (stopped, 130), (retried, 2)):
        run.note_attempt("start", pid=1)
        run.note_attempt("end", status=status)
    killed.note_attempt("start", pid=1)
    retried.note_attempt("start", pid=2)  # and killed: what failed before says nothing about it
    states = {entry.run.name: entry.state for entry in ledger.entries(desk.root)}
    assert states == {
        finished.name: "finished",
        untouched.name: "stopped",
        failed.name: "failed",
        killed.name: "stopped",
        preempted.name: "stopped",
        stopped.name: "stopped",
        retried.name: "stopped",
    }


def test_a_row_of_the_ledger_tells_base_method_step_and_scores(desk: Desk) -> None:
    row = ledger.entry(desk.finished("method=vera", "seed=4"))
    assert (row.base, row.method, row.seed, row.step) == ("base", "vera", 4, 4)
    assert row.scores == {"sums/sums": pytest.approx(4 / 6)}
    scratch = ledger.entry(desk.run("base.init=random", "method=full"))
    assert (scratch.method, scratch.step, scratch.scores) == ("full from scratch", None, {})


def test_the_base_of_a_run_is_the_one_it_was_trained_from_and_as_it_was_held(desk: Desk) -> None:
    scored = ["method=none", "evaluation.suite=world"]
    run, four_bit = desk.run("method=lora"), desk.run("method=qlora")
    assert ledger.base_of(run) is None
    base = desk.run(*scored, name="base-plain")
    nf4 = desk.run(*scored, "method={name: none, quantization: nf4}", name="base-nf4")
    other = desk.folder / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (other / "model.safetensors").write_bytes(b"other weights")
    desk.run(*scored, "base=./other", name="base-other")
    assert ledger.base_of(run) == base
    assert ledger.base_of(four_bit) == nf4
    assert ledger.base_of(desk.run("method=lora", "training.precision=bf16")) is None


# --- the verbs -------------------------------------------------------------------------------------------------------


def test_runs_lists_what_is_there(desk: Desk, workbench: Any) -> None:
    assert "no runs in runs; `workbench train" in workbench("runs").output
    finished, stopped = desk.finished(), desk.run("seed=1", "method=ia3")
    lines = {line.split()[0]: line for line in workbench("runs").output.splitlines()}
    assert "finished" in lines[finished.name]
    assert "sums/sums 0.6667" in lines[finished.name]
    assert "stopped" in lines[stopped.name]
    assert "ia3" in lines[stopped.name]
    elsewhere = workbench("runs", "--runs", "elsewhere")
    assert (elsewhere.status, "no runs in elsewhere" in elsewhere.output) == (0, True)


def test_names_of_runs_are_whole_on_a_narrow_terminal(desk: Desk, workbench: Any, monkeypatch: Any) -> None:
    names = [desk.finished(name="a-recipe-with-a-long-name").name, desk.finished("method.rank=8").name]
    monkeypatch.setenv("COLUMNS", "60")
    shown = {"runs": names, "compare": ["a-recipe-with-a-long-name", "small"]}
    for verb, expected in shown.items():
        words = [verb] if verb == "runs" else [verb, *names, "--vary", "method.rank"]
        lines = workbench(*words).output.splitlines()
        assert all(any(line.split()[:1] == [name] for line in lines) for name in expected), verb


def test_runs_rm_removes_what_is_named_and_nothing_else(desk: Desk, workbench: Any) -> None:
    runs = [desk.run(f"seed={seed}") for seed in range(4)]
    outcome = workbench("runs", "rm", runs[0].name, str(runs[1].path), runs[0].name)
    assert outcome.status == 0
    assert [run.path.exists() for run in runs] == [False, False, True, True]
    ambiguous = workbench("runs", "rm", runs[2].name, "small")
    assert ambiguous.status == 2
    assert "could be 2 runs" in ambiguous.output
    assert runs[2].path.exists()


def test_a_run_that_is_worked_on_is_not_removed(desk: Desk, workbench: Any) -> None:
    run = desk.run()
    with process(HOLD, str(run.path)):
        outcome = workbench("runs", "rm", run.name)
        assert (outcome.status, "is running" in outcome.output) == (2, True)
        assert "0 runs removed" in workbench("runs", "prune").output
    assert run.path.exists()


def test_prune_removes_what_never_finished(desk: Desk, workbench: Any) -> None:
    finished, untouched, failed = desk.finished(), desk.run("seed=1"), desk.run("seed=2")
    failed.note_attempt("end", status=1)
    outcome = workbench("runs", "prune")
    assert (outcome.status, "2 runs removed" in outcome.output) == (0, True)
    assert [run.path.exists() for run in (finished, untouched, failed)] == [True, False, False]


@pytest.mark.parametrize("words", [("rm",), ("prune", "small"), ("remove", "small")])
def test_runs_refuses_what_it_does_not_understand(desk: Desk, workbench: Any, words: tuple[str, ...]) -> None:
    run = desk.run()
    outcome = workbench("runs", *words)
    assert outcome.status == 2
    assert "is not understood" in outcome.output
    assert run.path.exists()


def test_show_tells_one_run_in_full(desk: Desk, workbench: Any) -> None:
    run = desk.finished()
    outcome = workbench("show", "small")
    assert outcome.status == 0
    for part in (
        run.name, "finished", "lora", "4 files, hashed", "torch 2.13.0", "55 in = 55 trained + 0 left out",
        "4 places moved", "19,744 parameters trained", "5.37e+09 FLOPs", "sums/sums  0.6667", "with status 0",
    ):  # fmt: skip
        assert part in outcome.output, part
    fresh = workbench("show", desk.run("seed=1").name)
    assert (fresh.status, "stopped" in fresh.output) == (0, True)
    absent = workbench("show", "nobody")
    assert (absent.status, "is no run under runs" in absent.output) == (2, True)


def test_a_damaged_run_is_told_and_can_be_removed(desk: Desk, workbench: Any) -> None:
    run = desk.run()
    run.resolved_file.write_text("{")
    outcome = workbench("show", "small")
    assert outcome.status == 2
    assert "resolved.json: is damaged" in outcome.output
    assert workbench("runs", "rm", "small").status == 0
    assert not run.path.exists()


RANKS = ("--vary", "method.rank")


def test_compare_prints_a_verdict_and_leaves_a_report(desk: Desk, workbench: Any) -> None:
    worse, better = [0.0] * 28 + [1.0] * 14, [1.0] * 42
    desk.finished(values=worse, name="one")
    desk.finished("method.rank=8", values=better, name="two")
    desk.finished("method.rank=4", values=worse, name="same")
    outcome = workbench("compare", "one", "two", "same", *RANKS)
    assert outcome.status == 0, outcome.output
    assert "How do they compare with one?" in outcome.output
    assert "two (+66.7 points, " in outcome.output and ") is better" in outcome.output
    assert "same (0.0 points, " in outcome.output and "is inconclusive" in outcome.output
    assert "sums  points, higher is better, 42 items in 42 clusters" in outcome.output
    assert "Suggestive at most: one seed." in outcome.output
    scores = {line.split()[0]: line.split()[1] for line in outcome.output.splitlines() if " GFLOP " in line}
    assert scores == {"one": "33.3", "two": "100.0", "same": "33.3"}
    (folder,) = (desk.root / "comparisons").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["evidence.json", "report.html", "verdict.json"]
    assert str((folder / "report.html").relative_to(desk.folder)) in outcome.output
    verdict = files.read_json(folder / "verdict.json")
    assert (verdict["kind"], verdict["reference"], verdict["suite"]["name"]) == ("comparison", "one", "sums")
    words = {(one["arm"], one["against"]): (one["word"], one["family"]) for one in verdict["contrasts"]}
    assert words["two", "one"] == ("better", "declared") and words["same", "one"] == ("inconclusive", "declared")
    assert words["same", "two"] == ("worse", "exploratory")


def test_compare_holds_the_others_against_the_first(desk: Desk, workbench: Any) -> None:
    desk.finished(values=[0.0, 1.0], name="one"), desk.finished("method.rank=8", values=[1.0], name="two")
    outcome = workbench("compare", "two", "one", *RANKS, "--out", "elsewhere/found")
    assert "one (−50.0 points, " in outcome.output and "is worse" in outcome.output
    assert not (desk.root / "comparisons").exists()
    assert files.read_json(Path("elsewhere/found/verdict.json"))["reference"] == "two"


def test_runs_that_differ_in_their_seed_only_are_one_arm(desk: Desk, workbench: Any) -> None:
    for seed in range(3):
        desk.finished(f"seed={seed}", name="one"), desk.finished("method.rank=8", f"seed={seed}", name="two")
    names = [run.name for run in sorted((entry.run for entry in ledger.entries(desk.root)), key=lambda run: run.name)]
    assert workbench("compare", *names, *RANKS, "--out", "found").status == 0
    arms = files.read_json(Path("found/verdict.json"))["arms"]
    assert [(arm["name"], arm["seeds"], len(arm["runs"])) for arm in arms] == [
        ("one", [0, 1, 2], 3), ("two", [0, 1, 2], 3)
    ]  # fmt: skip


def test_the_same_comparison_is_written_to_the_same_place(desk: Desk, workbench: Any) -> None:
    desk.finished(name="one"), desk.finished("method.rank=8", name="two")
    for _ in range(2):
        assert workbench("compare", "one", "two", *RANKS).status == 0
    assert len(list((desk.root / "comparisons").iterdir())) == 1
    assert workbench("runs").output.count("finished") == 2  # the folder of comparisons is no run


def test_compare_refuses_what_is_not_declared(desk: Desk, workbench: Any) -> None:
    """tests/test_gate.py plants what may differ; here only that nothing is written."""
    desk.finished(name="one"), desk.finished("method.rank=8", name="two")
    outcome = workbench("compare", "one", "two")
    assert outcome.status == 3
    assert "method.rank" in outcome.output and "Traceback" not in outcome.output
    assert not (desk.root / "comparisons").exists()


def test_compare_refuses_runs_that_are_not_finished(desk: Desk, workbench: Any) -> None:
    desk.finished(name="one")
    two = desk.run("method.rank=8", name="two")
    outcome = workbench("compare", "one", "two", "--suite", "sums", *RANKS)
    assert outcome.status == 2
    assert f"{two.name}: is not finished" in outcome.output and "workbench train " in outcome.output


def test_compare_refuses_runs_without_a_suite_in_common(desk: Desk, workbench: Any) -> None:
    desk.suite("others")
    one, two = desk.finished(name="one"), desk.finished("method.rank=8", name="two", suite="others")
    outcome = workbench("compare", "one", "two", *RANKS)
    assert outcome.status == 3
    assert "no suite that all of them were scored on" in outcome.output
    outcome = workbench("compare", "one", "two", "--suite", "sums", *RANKS)
    assert outcome.status == 2
    assert f"workbench eval {two.name} --suite sums" in outcome.output
    score(two, desk.folder / "suites" / "sums.yaml")
    assert workbench("compare", "one", "two", *RANKS).status == 0
    rows = list(files.read_jsonl(one.items("sums")))
    for damaged in (rows[1:], [*rows[:-1], rows[0]], [*rows, rows[0]], []):
        files.write_jsonl(one.items("sums"), damaged)
        outcome = workbench("compare", "one", "two", *RANKS)
        assert outcome.status == 3
        assert "or its item file is damaged" in outcome.output
    files.write_jsonl(one.items("sums"), list(reversed(rows)))
    assert workbench("compare", "one", "two", *RANKS).status == 0  # paired by id, in whatever order they stand


# --- files -----------------------------------------------------------------------------------------------------------


def left_in(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.json"
    files.write_json(target, {"a": 1})
    files.write_json(target, {"ä": [1.5, None]})
    assert target.read_text(encoding="utf-8").startswith('{\n  "ä"')
    assert files.read_json(target) == {"ä": [1.5, None]}
    assert left_in(target.parent) == ["file.json"]


def test_a_number_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    files.write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(target, {"a": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.append_line(tmp_path / "lines.jsonl", {"a": float("inf")})
    assert files.read_json(target) == {"a": 1}
    assert list(files.read_jsonl(tmp_path / "lines.jsonl")) == []


def test_a_place_that_cannot_be_written_is_said_and_keeps_what_it_held(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("held")
    assert "x: cannot be written: " in said(lambda: files.write_text(tmp_path / "file" / "x", "new"))
    (tmp_path / "folder").mkdir()
    assert "folder: is there, and is no plain file" in said(lambda: files.write_text(tmp_path / "folder", "new"))
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: is there, and is no plain file" in said(lambda: files.write_text(tmp_path / "pipe", "new"))
    assert (tmp_path / "pipe").is_fifo()
    assert "cannot be written" in said(lambda: files.write_text(tmp_path / ("x" * 300), "new"))
    assert "cannot be written" in said(lambda: files.append_line(tmp_path / "none" / "x", {}))
    with pytest.raises(RunError, match="cannot be written"), files.whole_directory(tmp_path / "file" / "x"):
        pass
    assert left_in(tmp_path) == ["file", "folder", "pipe"]
    assert (tmp_path / "file").read_text() == "held"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_said(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("held")
    tmp_path.chmod(0o555)
    try:
        assert "Permission denied" in said(lambda: files.write_text(target, "new"))
        assert target.read_text() == "held"
        assert left_in(tmp_path) == ["file"]
    finally:
        tmp_path.chmod(0o755)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where the machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_the_old_file_and_no_half_one(full_disk: Path) -> None:
    target = full_disk / "file"
    files.write_text(target, "held")
    assert os.strerror(errno.ENOSPC) in said(lambda: files.write_bytes(target, b"x" * 200_000))
    assert target.read_text() == "held"
    with pytest.raises(RunError, match=os.strerror(errno.ENOSPC)), files.whole_directory(full_disk / "d") as fresh:
        (fresh / "big").write_bytes(b"x" * 200_000)
    assert left_in(full_disk) == ["file"]


def test_a_limit_on_file_size_leaves_the_old_file_and_no_half_one(tmp_path: Path) -> None:
    """As a full disk, but everywhere: the system refuses to write more than 4 KiB into one file."""
    code = """
import resource, signal, sys
from pathlib import Path
from workbench import files
from workbench.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
place = Path(sys.argv[1])
files.write_text(place / "file", "held")
for act in (lambda: files.write_bytes(place / "file", b"x" * 9000),):
    try:
        act()
    except RunError as error:
        print(error)
try:
    with files.whole_directory(place / "directory") as fresh:
        (fresh / "small").write_bytes(b"x")
        (fresh / "big").write_bytes(b"x" * 9000)
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.count(os.strerror(errno.EFBIG)) == 2
    assert left_in(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "held"


def test_an_error_is_told_once_where_its_log_cannot_be_written(tmp_path: Path) -> None:
    """A full disk: the log takes nothing, and logging would show that in a traceback a line."""
    code = """
import resource, sys
from pathlib import Path
from workbench import bench
from workbench.errors import Problem, RunError
bench.log_to(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
def act():
    raise RunError(Problem("metrics.jsonl", "cannot be written"))
sys.exit(bench.ended(act))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.splitlines() == ["error metrics.jsonl: cannot be written"]


def test_a_torn_last_line_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for torn in ('{"step": 2, "lo', '{"text": "\u00e4'):
        path.unlink(missing_ok=True)
        files.append_line(path, {"step": 1})
        with path.open("ab") as stream:
            stream.write(torn.encode()[:-1])
        assert list(files.read_jsonl(path)) == [{"step": 1}]
        files.append_line(path, {"step": 2})
        assert list(files.read_jsonl(path)) == [{"step": 1}, {"step": 2}]
    path.write_text("torn from the start")
    files.append_line(path, {"step": 1})
    assert list(files.read_jsonl(path)) == [{"step": 1}]


def test_a_damaged_line_or_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1}\n{"step": 2 {"step": 3}\n')
    assert "lines.jsonl:2: is damaged" in said(lambda: list(files.read_jsonl(path)))
    assert "lines.jsonl: is damaged" in said(lambda: files.read_json(path))
    assert "cannot be read: No such file" in said(lambda: files.read_json(tmp_path / "none"))
    assert list(files.read_jsonl(tmp_path / "none")) == []


def test_a_directory_comes_to_be_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with files.whole_directory(target) as fresh:
        (fresh / "inner").mkdir()
        (fresh / "inner" / "weights").write_text("one")
        assert not target.exists()
    assert (target / "inner" / "weights").read_text() == "one"
    for failure in (KeyError("work failed"), KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")):
        with pytest.raises((KeyError, KeyboardInterrupt, RunError)), files.whole_directory(target) as fresh:
            (fresh / "weights").write_text("half")
            raise failure
        assert (target / "inner" / "weights").read_text() == "one"
        assert left_in(tmp_path) == ["adapter"]
    with files.whole_directory(target) as fresh:
        (fresh / "weights").write_text("two")
    assert left_in(target) == ["weights"]
    assert left_in(tmp_path) == ["adapter"]


FILL = """
import sys, time
from pathlib import Path
from workbench import files
with files.whole_directory(Path(sys.argv[1])) as fresh:
    (fresh / "rows").write_text("theirs")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_fills_is_not(tmp_path: Path) -> None:
    target = tmp_path / "rows"
    with process(FILL, str(target)) as other:
        (filling,) = tmp_path.iterdir()
        with files.whole_directory(target) as fresh:
            (fresh / "rows").write_text("ours")
        assert (filling / "rows").read_text() == "theirs"
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert filling.exists()
    foreign = filling.with_name(f"{filling.name.rpartition('-')[0]}-2-{other.pid}")  # of a machine called like ours-2
    foreign.mkdir()
    with files.whole_directory(target) as fresh:
        (fresh / "rows").write_text("ours again")
    assert left_in(tmp_path) == [foreign.name, "rows"]
    assert (target / "rows").read_text() == "ours again"
