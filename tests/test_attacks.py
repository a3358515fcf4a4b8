"""What an impatient or hostile user does: text that a terminal would obey, names left out, wild values."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, Outcome
from rich.console import Console
from rich.markup import render
from small_recipes import Workbench, questions, train, write_recipe

from workbench import __version__, bench, documents
from workbench.errors import ExitStatus, MethodError, Problem, UserError
from workbench.launch import local
from workbench.methods import proof
from workbench.progress import Progress
from workbench.recipe.load import load
from workbench.visible import markup, visible

EVIL = "\x1b[31mred\x1b[0m \x9b2J \x07\r [red]word[/red] \\[bold] [/] \u202eback"
OBEYED = ("\x1b", "\x9b", "\x07", "\r", "\u202e")


def test_foreign_text_is_written_out() -> None:
    assert visible("a\tb\n\x1b[2J\x9b\u202e\udcff é 日") == "a\tb\n\\x1b[2J\\x9b\\u202e\\udcff é 日"
    assert render(f"[bold]{markup('[/] [red]x[/red]')}[/bold]").plain == "[/] [red]x[/red]"


def test_errors_and_progress_print_foreign_text_safely() -> None:
    console = Console(file=io.StringIO(), width=200, soft_wrap=True, highlight=False)
    bench.report(console, UserError(Problem(EVIL, EVIL, EVIL)))
    Progress(console).say(EVIL)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert not any(character in said for character in OBEYED)
    assert said.count(r"[red]word[/red] \[bold] [/] \u202eback") == 4


def test_rows_and_answers_are_shown_safely(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    rows = [{**row, "prompt": f"{EVIL} {row['prompt']}"} for row in questions(6)]
    recipe = write_recipe(tmp_path, small_base, rows, training={"steps": 1, "batch_size": 1_000_000})
    seen = workbench("data", "show", str(recipe), "--rows", "2")
    assert seen.status == 0, seen.output
    assert not any(character in seen.output for character in OBEYED)
    assert r"[red]word[/red] \[bold] [/]" in seen.output
    assert "datasets/.." not in seen.output and "rows/train.jsonl:1" in seen.output

    run = train(workbench, recipe, tmp_path / "runs")
    answered = workbench("generate", str(run.path), EVIL, "--tokens", "2")
    assert answered.status == 0, answered.output
    assert not any(character in answered.output for character in OBEYED)
    assert "[red]word[/red]" in answered.output and r"\[bold]" in answered.output


def test_the_end_names_the_next_command(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(4), training={"steps": 1})
    done = workbench("train", str(recipe), "--runs", str(tmp_path / "my runs"))
    assert done.status == 0, done.output
    assert f"workbench show small-{done.output.split('small-')[1].split()[0]}" in done.output
    assert f"--runs '{tmp_path / 'my runs'}'" in done.output
    assert "steps of 4:" in done.output.replace("1 steps", "steps")


def test_many_prompts_and_bad_ones(
    workbench: Workbench, small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(4), training={"steps": 1}, evaluation={"batch_size": 2})
    run = train(workbench, recipe, tmp_path / "runs")
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"where is the cat {at}?\n" for at in range(5))))
    answered = workbench("generate", str(run.path), "--tokens", "1")
    assert answered.status == 0 and "cat 4?" in answered.output, answered.output
    for bad in ("--tokens=0", "--tokens=-3"):
        assert workbench("generate", str(run.path), "hi", bad).status == 2
    for stdin in (
        io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"),
        io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8", errors="surrogateescape"),
    ):
        monkeypatch.setattr(sys, "stdin", stdin)
        refused = workbench("generate", str(run.path))
        assert refused.status == 2 and "is not UTF-8 text" in refused.output, refused.output


def test_weights_thrown_away_by_the_last_step(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(4), training={"steps": 1, "learning_rate": 1e30})
    refused = workbench("train", str(recipe))
    assert refused.status == 2 and "not finite" in refused.output, refused.output
    assert not list(tmp_path.glob("runs/*/adapter"))


def test_a_proof_of_nan_is_none() -> None:
    fine, lost = [torch.ones(2, 3) * torch.arange(3.0)], [torch.full((2, 3), torch.nan)]
    with pytest.raises(MethodError, match="other logits"):
        proof.prove_saved(fine, lost, None, "fp32")


def test_a_bar_left_standing_is_taken_down() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)

    def stopped() -> Iterator[int]:
        with Progress(console) as progress:
            for item in progress.over(range(3), "rows", 3):
                yield item
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stopped())
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is shown again


def test_set_reaches_into_a_section_the_file_leaves_out(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"base": "embedded", "data": "world-questions"}))
    assert load(recipe, ["method.rank=3"]).recipe.method.model_dump()["rank"] == 3
    assert load(recipe, ["method=full"]).recipe.method.name == "full"
    assert load(recipe, ["objective.turns=last"]).recipe.objective.name == "sft"
    with pytest.raises(UserError, match=r"^--set method\.rnk .*unknown field"):
        load(recipe, ["method.rnk=3"])
    with pytest.raises(UserError, match="says no name"):
        recipe.write_text(yaml.safe_dump({"base": "embedded", "data": "world-questions", "method": {"rank": 3}}))
        load(recipe, ["method.alpha=3"])


def test_recipe_that_is_not_there(workbench: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("base: embedded\n")
    refused = workbench("check", "quickstrt")
    assert refused.status == 2
    assert "there is no such file" in refused.output
    assert "did you mean 'quickstart'?" in refused.output and "other.yaml" in refused.output


def test_an_empty_name_is_no_run(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    run = train(workbench, write_recipe(tmp_path, small_base, questions(4), training={"steps": 1}), tmp_path / "runs")
    refused = workbench("runs", "rm", "")
    assert refused.status == 2 and "its name is empty" in refused.output
    assert run.path.is_dir()


def test_brackets_in_paths_are_no_markup(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small_base, questions(4), training={"steps": 1})
    link = tmp_path / "[red]base[" / "x]"
    link.parent.mkdir()
    link.symlink_to(small_base)
    root = tmp_path / "[bold]runs[ü]"
    done = workbench("train", str(recipe), "--runs", str(root), "--set", f"base.name={link}")
    assert done.status == 0, done.output
    assert f"run {root}/" in done.output
    for verb in (("runs",), ("show", "small")):
        seen = workbench(*verb, "--runs", str(root))
        assert seen.status == 0, seen.output


def test_version_and_short_help(workbench: Callable[..., Outcome]) -> None:
    assert workbench("--version").output.strip() == f"workbench {__version__}"
    assert "Usage" in workbench("train", "-h").output


def test_paths_are_shown_without_detours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert documents.display(Path("datasets/../rows.jsonl")) == "rows.jsonl"
    assert documents.display(Path("link/../rows.jsonl")) == "link/../rows.jsonl"  # it is far/rows.jsonl


def test_a_cache_that_cannot_be_written(
    workbench: Workbench, small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / "cache"))
    refused = workbench("train", str(write_recipe(tmp_path, small_base, questions(4), training={"steps": 1})))
    assert refused.status == 2
    assert "WORKBENCH_CACHE" in refused.output, refused.output


def test_an_unknown_card_says_where_to_write_it(workbench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: embedded\ndata: mine\n")
    assert "or write your own: datasets/mine.yaml" in workbench("check", "mine.yaml").output


def test_a_base_that_was_moved_after_training(workbench: Workbench, small_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(small_base, base)
    run = train(workbench, write_recipe(tmp_path, base, questions(4), training={"steps": 1}), tmp_path / "runs")
    base.rename(tmp_path / "elsewhere")
    refused = workbench("generate", str(run.path), "hi")
    assert refused.status == 2 and "error base: the base's directory is not there any more" in refused.output


WAITING = """
import time
from workbench import bench
bench.ended(lambda: time.sleep(60))
"""


def test_a_kill_reaches_the_bench_process(tmp_path: Path) -> None:
    """Also one that comes while it starts: it is held back until the process can answer."""
    (tmp_path / "waiting.py").write_text(WAITING)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    assert local.run_bench("waiting", environment={"PYTHONPATH": path}) == ExitStatus.PREEMPTED
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
