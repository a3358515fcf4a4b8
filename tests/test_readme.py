"""Every command of the README, run as a new user would, and its table against what the quickstart gives."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.strip().splitlines()]
ELSEWHERE = {
    "scripts/test": "runs this very test",
    "workbench train recipes/qwen-lora.yaml": "needs the hub; tests/test_hub.py runs it on a laid-out cache",
}
POINTS = 3.0
"""How far the table may be from this machine's figures: threads and processors differ in the last bits."""


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that `scripts/quickstart` ran for, and what it printed. It reuses this environment."""
    place = tmp_path_factory.mktemp("new user")
    environment = os.environ | {"WORKBENCH_VENV": sys.prefix, "WORKBENCH_RUNS": str(place / "runs")}
    done = subprocess.run(
        [str(ROOT / "scripts" / "quickstart")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout


def test_the_commands_are_known() -> None:
    assert COMMANDS[0] == "scripts/quickstart"
    assert set(ELSEWHERE) <= set(COMMANDS)


@pytest.mark.slow
def test_quickstart_shows_the_adapter_better_than_from_scratch(quickstart: tuple[Path, str]) -> None:
    _, printed = quickstart
    last = printed[printed.index("world / facts") :]
    assert re.search(r"^scratch-quickstart +0\.\d+", last, re.M)
    assert re.search(r"^base-embedded +0\.\d+", last, re.M)
    adapter = re.search(r"^quickstart .*\[\+(0\.\d+), \+0\.\d+\]  better", last, re.M)
    assert adapter is not None, last
    assert float(adapter[1]) > 0.8, "far from zero"


@pytest.mark.slow
def test_the_table_shows_what_the_quickstart_gives(quickstart: tuple[Path, str]) -> None:
    _, printed = quickstart
    last = printed[printed.index("world / facts") :]
    for row, run in (
        ("the base as it is", "base-embedded"),
        ("LoRA", "quickstart"),
        ("the same rows", "scratch-quick"),
    ):
        shown = re.search(rf"^\| {row}[^|]*\| ([\d.]+) % \|[^|]*\| ([\d.]+) \|", README, re.M)
        measured = re.findall(rf"^{run}\S* +(\d+\.\d+)", last, re.M)
        assert shown is not None, row
        assert abs(float(shown[1]) - 100 * float(measured[0])) <= POINTS, row
        assert abs(float(shown[2]) - float(measured[1])) <= 0.1 * float(measured[1]), row


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE and c != "scripts/quickstart"])
def test_the_other_commands_work_on_what_it_left(command: str, quickstart: tuple[Path, str]) -> None:
    place, _ = quickstart
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(command), cwd=place, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr
