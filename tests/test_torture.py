"""scripts/torture: a short form of it; and that its comparisons and its damage are not idle."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import ROOT
from safetensors.numpy import save_file

STEPS = 4
RUN = "quickstart-0123456789-s0"


@pytest.fixture(scope="module")
def part() -> Iterator[Any]:
    """Imports one of the script's parts by its name."""
    sys.path.insert(0, str(ROOT / "scripts"))
    yield lambda name: importlib.import_module(f"tortures.{name}")
    sys.path.remove(str(ROOT / "scripts"))


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n")


def finished(runs: Path) -> Path:
    """A root with what a run leaves, in small; returns the run."""
    run = runs / RUN
    write(run / "status.json", {"status": "finished"})
    write(run / "data.json", {"rows_in": 3})
    write(run / "cost.json", {"tokens": 12, "device_seconds": random.random()})
    write(run / "eval" / "few" / "items.jsonl", {"id": "1", "value": 0.5})
    (run / "recipe.yaml").write_text("base: embedded\n")
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(1, STEPS + 1)))
    write(run / "attempts.jsonl", {"event": "end", "time": time.time()})
    (run / "adapter").mkdir()
    save_file({"a": np.arange(6.0), "b": np.ones((2, 3))}, run / "adapter" / "adapter_model.safetensors")
    for step in (2, 4):
        checkpoint(run, step)
    return run


def checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(bytes(range(200)))
    (folder / "trainer_state.json").write_text('{"global_step": 1}')
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    write(folder / "sealed.json", {"step": step, "files": hashes})
    return folder


def cut(path: Path, by: int) -> None:
    os.truncate(path, path.stat().st_size - by)


# --- the comparison --------------------------------------------------------------------------------------------------


def test_equal_runs_are_equal_whatever_was_measured(part: Any, tmp_path: Path) -> None:
    finished(tmp_path / "a"), finished(tmp_path / "b")
    assert part("equality").differences(tmp_path / "a", tmp_path / "b", STEPS) == []
    assert part("equality").unwhole(tmp_path / "a") == part("equality").leftovers(tmp_path / "a") == []


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("adapter/adapter_model.safetensors", b"?", b">", "adapter_model.safetensors differs"),
        ("metrics.jsonl", b"4", b"5", "metrics.jsonl differs at [3].step: 4 / 5"),
        ("data.json", b"3", b"2", "data.json differs at .rows_in: 3 / 2"),
        ("cost.json", b"12", b"13", "cost.json differs at .tokens: 12 / 13"),
        ("eval/few/items.jsonl", b"0.5", b"0.6", "items.jsonl differs at [0].value: 0.5 / 0.6"),
        ("recipe.yaml", b"embedded", b"embodied", "recipe.yaml differs"),
    ],
)
def test_a_changed_byte_is_noticed(part: Any, tmp_path: Path, name: str, old: bytes, new: bytes, words: str) -> None:
    finished(tmp_path / "a")
    path = finished(tmp_path / "b") / name
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    (found,) = part("equality").differences(tmp_path / "a", tmp_path / "b", STEPS)
    assert words in found


def test_what_is_missing_or_too_much_is_noticed(part: Any, tmp_path: Path) -> None:
    finished(tmp_path / "a")
    run = finished(tmp_path / "b")
    cut(run / "metrics.jsonl", len('{"step": 4}\n'))
    (run / "status.json").unlink()
    (run / "more.json").write_text("{}")
    found = part("equality").differences(tmp_path / "a", tmp_path / "b", STEPS)
    assert f"metrics.jsonl has {STEPS - 1} lines, not {STEPS}" in found
    assert f"{RUN}/status.json is missing" in found
    assert f"{RUN}/more.json is not in the undisturbed run" in found
    assert any("metrics.jsonl differs" in one for one in found)


@pytest.mark.parametrize(
    "name",
    [
        f"runs/{RUN}/.status.json.tmp-host-12",
        f"runs/{RUN}/.adapter.tmp-host-12/adapter_config.json",
        f"runs/{RUN}/checkpoints/.unfinished/checkpoint-3/optimizer.pt",
        f"runs/{RUN}/checkpoints/checkpoint-6/optimizer.pt",
        "cache/rows/.0123.tmp-host-12/rows.arrow",
    ],
)
def test_leftovers_are_noticed(part: Any, tmp_path: Path, name: str) -> None:
    finished(tmp_path / "runs")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("half")
    found = part("equality").leftovers(tmp_path)
    assert found and all(name.startswith(one.removesuffix(" has no seal")) for one in found)


@pytest.mark.parametrize(
    ("name", "bytes_lost"),
    [
        ("data.json", 3),
        ("recipe.yaml", 14),
        ("eval/few/items.jsonl", 1),
        ("adapter/adapter_model.safetensors", 1),
        ("adapter/adapter_model.safetensors", 200),
        ("checkpoints/checkpoint-4/optimizer.pt", 1),
    ],
)
def test_half_written_files_are_noticed(part: Any, tmp_path: Path, name: str, bytes_lost: int) -> None:
    run = finished(tmp_path)
    cut(run / name, bytes_lost)
    (found,) = part("equality").unwhole(tmp_path)
    assert Path(name).parts[0] in found


def test_only_what_is_appended_to_may_end_in_a_torn_line(part: Any, tmp_path: Path) -> None:
    run = finished(tmp_path)
    cut(run / "metrics.jsonl", 5), cut(run / "attempts.jsonl", 1)
    assert part("equality").unwhole(tmp_path) == []
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    assert len(part("equality").unwhole(tmp_path)) == 1


def test_what_is_being_written_or_was_damaged_on_purpose_is_not_half_written(part: Any, tmp_path: Path) -> None:
    run = finished(tmp_path)
    (run / ".data.json.tmp-host-12").write_text("{")
    (run / "checkpoints" / "checkpoint-6").mkdir()
    (run / "checkpoints" / "checkpoint-6" / "trainer_state.json").write_text("{")
    cut(run / "checkpoints" / "checkpoint-2" / "optimizer.pt", 1)  # an older one is being removed
    assert part("equality").unwhole(tmp_path) == []
    newest = run / "checkpoints" / "checkpoint-4"
    cut(newest / "optimizer.pt", 1)
    assert part("equality").unwhole(tmp_path, [newest]) == []


# --- the damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CUT", "FLIPPED"])
def test_the_newest_checkpoint_is_damaged(part: Any, tmp_path: Path, name: str) -> None:
    changed = set()
    for seed in range(20):
        root = tmp_path / str(seed)
        run = finished(root)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        found, words = part("kinds").damaged(getattr(part("kinds"), name), root, random.Random(seed))
        assert found.name == "checkpoint-4"
        (path,) = [path for path, content in before.items() if path.read_bytes() != content]
        assert path.parent == found and path.name in words
        assert (
            len(path.read_bytes()) < len(before[path]) if name == "CUT" else len(path.read_bytes()) == len(before[path])
        )
        changed.add(path.name)
    assert changed == {"optimizer.pt", "trainer_state.json", "sealed.json"}


def test_nothing_is_damaged_where_there_is_no_checkpoint(part: Any, tmp_path: Path) -> None:
    run = finished(tmp_path)
    assert part("kinds").damaged(part("kinds").KILL_ALL, tmp_path, random.Random(0)) is None
    shutil.rmtree(run / "checkpoints")
    assert part("kinds").damaged(part("kinds").CUT, tmp_path, random.Random(0)) is None


FULL = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tortures.place import Place
place = Place(Path(sys.argv[1]) / "place")
if not place.has_disk:
    sys.exit("no disk may be mounted here")
for name in "ab":
    file = place.runs / name
    place.fill()
    try:
        file.write_bytes(b"x" * 100)
        sys.exit("it was not full")
    except OSError as error:
        print(error.strerror)
    place.free()
    file.write_bytes(b"x" * 100)
print(os.path.ismount(place.folder))
place.close()
print(os.path.ismount(place.folder))
"""


def test_a_disk_of_its_own_runs_full_and_nobody_else_sees_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(ROOT / "scripts")], capture_output=True, text=True
    )
    if "no disk may be mounted" in done.stderr:
        pytest.skip("no disk may be mounted here")
    assert done.stdout.splitlines() == [os.strerror(28)] * 2 + ["True", "False"], done.stderr
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


# --- the moments -----------------------------------------------------------------------------------------------------


def test_moments_come_when_a_file_is_written_anew(part: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run = finished(runs)
    moments = part("moments")
    again, other = moments.changed(runs, "quickstart-*/data.json", 0), moments.changed(runs, "quickstart-*/x.json", 0)
    assert not again.reached(0) and not other.reached(0)
    (run / ".fresh").write_text("{}")
    (run / ".fresh").replace(run / "data.json")
    assert again.reached(0) and not other.reached(0)
    (run / "x.json").write_text("{}")
    assert other.reached(0)


def test_moments_come_when_a_checkpoint_is_begun_under_any_name(part: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run = finished(runs)
    second = part("moments").new_checkpoint(runs, 2, "/optimizer.pt", 0)
    fresh = checkpoint(run, 6)
    assert not second.reached(0)
    shutil.rmtree(fresh)
    (run / "checkpoints" / ".unfinished").mkdir()
    checkpoint(run, 8).rename(run / "checkpoints" / ".unfinished" / "checkpoint-8")
    assert second.reached(0)


def test_moments_are_drawn_again_by_the_same_seed_and_can_be_reached(part: Any, tmp_path: Path) -> None:
    def words(seed: int, runs: Path) -> str:
        return str(part("moments").draw(random.Random(seed), runs, 9.0, 24, seed % 2 == 1).words)

    fresh, done = tmp_path / "fresh", tmp_path / "done"
    fresh.mkdir(), finished(done)
    drawn = [words(seed, fresh) for seed in range(200)]
    assert drawn == [words(seed, fresh) for seed in range(200)]
    for sign in ("s after the start", "of the metrics", "checkpoint", "manifest.json", "lock", "base-*"):
        assert any(sign in one for one in drawn), sign
    late = [one for one in drawn[1::2] if "checkpoint" not in one]
    assert {int(one.split()[1]) for one in late} == set(range(7, 16))  # a checkpoint is sealed by then
    assert not any("line" in words(seed, done) or "checkpoint" in words(seed, done) for seed in range(0, 200, 2))


# --- the whole of it -------------------------------------------------------------------------------------------------


def torture(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "torture"), *arguments, "--json", str(out)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(out.parent)})


@pytest.mark.slow
def test_ten_random_kills_change_nothing(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = torture(out, "--kills", "10", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["kills"] == 10 and found["holds"]
    assert "10 of 10 kills continued" in done.stdout and "all equal" in done.stdout
    drawn = {name: row for name, row in found["kinds"].items() if row["kills"]}
    assert len(drawn) >= 5 and all(row["kills"] == row["finished_equal"] for row in drawn.values())
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info["cmdline"])
    ]
