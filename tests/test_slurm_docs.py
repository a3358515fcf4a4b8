"""docs/cluster.md typed on a real Slurm, the shipped profiles held against it, and jobs without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mini_slurm
import pytest
import yaml
from conftest import ROOT
from hub_server import Hub
from mini_slurm import MiniSlurm
from small_recipes import Workbench
from test_prefetch import held, write_recipe
from test_slurm import PROFILE
from test_submit import SHIPPED, scripts_of

from workbench import files
from workbench.launch import profiles
from workbench.runs.run import Run

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.strip().splitlines()]
SHORTER = {
    "workbench submit recipes/studies/quickstart-study.yaml": " --set training.epochs=1",
    "workbench study recipes/studies/quickstart-study.yaml --judge": " --set training.epochs=1",
}
"""What the study is cut short by here; with it, its fields do not vary as the page's study has them."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniSlurm]:
    """With the partitions that the shipped profiles name."""
    named = {profile.profile.partition for profile in profiles.known(ROOT).values()}
    partitions = tuple(sorted(name for name in named if name))
    with mini_slurm.running(tmp_path_factory.mktemp("slurm") / "mini", partitions, features="ib") as made:
        yield made


def _not_of_a_checkout(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if Path(folder) == ROOT and (name == "runs" or name.startswith("."))}


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory, cluster: MiniSlurm) -> tuple[Path, dict[str, str]]:
    """The page's commands, typed one after the other in a checkout in an empty home; what each printed."""
    # the copy's own set-up must find nothing to do in this environment: it would install the copy there
    subprocess.run([ROOT / "scripts" / "setup", "dev"], env=os.environ | {"WORKBENCH_VENV": sys.prefix}, check=True)
    home = tmp_path_factory.mktemp("home")
    checkout = home / "workbench"
    shutil.copytree(ROOT, checkout, ignore=_not_of_a_checkout)
    (checkout / ".venv").symlink_to(sys.prefix)
    environment = {
        **cluster.environment, "HOME": str(home), "WORKBENCH_VENV": sys.prefix, "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    printed = {}
    for command in COMMANDS:
        line = f"source .venv/bin/activate; {command}{SHORTER.get(command, '')}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=checkout, env=environment, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        printed[command] = done.stdout + done.stderr
    return checkout, printed


def test_ten_commands_lead_from_an_empty_account_to_a_finished_study(typed: tuple[Path, dict[str, str]]) -> None:
    checkout, printed = typed
    assert len(COMMANDS) == 10
    study = checkout / "runs" / "studies" / "quickstart-study"
    assert (study / "report.html").exists()
    assert files.read_json(study / "verdict.json")["complete"]
    assert "proved: all" in printed["workbench logs quickstart -f"]
    assert "nothing is read from the hub" in printed[COMMANDS[3]]
    watched = printed["workbench runs --watch"]
    assert watched.count("finished") >= 11


# --- the shipped profiles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_slurm_would_take_the_scripts_of_every_shipped_profile(
    workbench: Workbench, tmp_path: Path, cluster: MiniSlurm, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    for number, text in enumerate(scripts_of(workbench, name)):
        path = tmp_path / f"{number}.sh"
        path.write_text(text)
        done = subprocess.run(["sbatch", "--test-only", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + text
        assert re.search(r"Job \d+ to start at", done.stderr)


# --- without a network -----------------------------------------------------------------------------------------------


def test_a_job_runs_on_what_was_prefetched_and_nothing_else_is_submitted(
    tmp_path: Path, cluster: MiniSlurm, small_base: Path
) -> None:
    """The hub is gone when the job is submitted, and the job may not ask for it."""
    store = tmp_path / "store"
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "mini.yaml").write_text(yaml.safe_dump({**PROFILE, "store": str(store)}))
    recipe = write_recipe(tmp_path)
    hub = Hub()
    for name, content in held(small_base).items():
        hub.add(name, content)
    hub.start()
    environment = {
        name: value for name, value in cluster.environment.items() if name not in ("HF_HUB_OFFLINE", "HF_HOME")
    } | {"HF_ENDPOINT": hub.address, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def type_(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "workbench", *words]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    early = type_("submit", str(recipe))
    assert early.returncode == 2 and "was never prefetched" in early.stderr, early.stdout + early.stderr
    assert not (tmp_path / "runs").exists() and not cluster.ask("squeue", "-h", "-o", "%j").strip()
    fetched = type_("prefetch", str(recipe))
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    hub.stop()
    asked = len(hub.asked)
    submitted = type_("submit", str(recipe))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    cluster.wait_for(submitted.stdout.split()[1].rstrip(":"), "COMPLETED")
    (path,) = (path for path in (tmp_path / "runs").iterdir() if path.name.startswith(recipe.stem))
    assert Run(path).is_finished()
    assert len(hub.asked) == asked
    other = type_("submit", str(recipe), "--set", "base.name=tests/another")
    assert other.returncode == 2 and "tests/another" in other.stderr
    assert (store / "prefetched").is_dir()
