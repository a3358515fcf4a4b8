"""Profiles of clusters and the scripts of jobs, without a Slurm: choosing, refusing, rendering."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Outcome
from small_recipes import Workbench

from workbench.errors import RecipeError
from workbench.launch import profiles, queue, slurm
from workbench.recipe.schema import Target
from workbench.runs.run import Run

SHIPPED = sorted(path.stem for path in (ROOT / "slurm").glob("*.yaml"))
MINE: dict[str, Any] = {"target": "cpu", "gres": None, "partition": "debug", "time": "20"}


def write_profile(folder: Path, name: str = "mine", **fields: Any) -> Path:
    path = folder / "slurm" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**MINE, **fields}))
    return path


def submit(workbench: Workbench, *settings: str, recipe: str = "quickstart") -> Outcome:
    chosen = [word for setting in settings for word in ("--set", setting)]
    return workbench("submit", recipe, "--dry-run", *chosen)


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


# --- which profile ---------------------------------------------------------------------------------------------------


def choose(folder: Path, **target: Any) -> str:
    return profiles.choose(Target(**target), folder, "here").name


def test_a_profile_is_chosen_by_the_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert choose(tmp_path, name="a100-80gb") == "a100"
    write_profile(tmp_path, target="a100-80gb")
    assert choose(tmp_path, name="a100-80gb") == "mine", "your own goes before what is shipped"
    assert choose(tmp_path, name="a100-80gb", cluster="a100") == "a100"
    below = tmp_path / "deep" / "inside"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert choose(below, name="a100-80gb") == "mine"


def test_a_recipe_for_whatever_is_here_goes_to_the_only_cluster_of_yours(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        RecipeError, match=r"this machine's hardware \(auto\) is not the nodes': no cluster profile fits"
    ):
        choose(tmp_path, name="auto")
    write_profile(tmp_path)
    assert choose(tmp_path, name="auto") == "mine"
    said = submit(workbench, "target=auto")
    assert said.status == 0, said.output
    assert "--partition=debug" in said.output
    write_profile(tmp_path, "other")
    with pytest.raises(RecipeError, match=r"2 profiles fit\n.*--set target.cluster=NAME, of mine, other"):
        choose(tmp_path, name="auto")


def test_your_own_profile_of_a_shipped_name_replaces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path, "a100", target="a100-80gb", partition="ours")
    assert profiles.known(tmp_path)["a100"].profile.partition == "ours"


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("a typo", {"partitoin": "gpu"}, "did you mean 'partition'"),
    ("a time that is none", {"time": "tomorrow"}, "time"),
    ("a secret", {"environment": {"WANDB_API_KEY": "abc"}}, "would be written into every job's script"),
    ("two lines in one", {"setup": ["a\nb"]}, "must be one line"),
    ("an option that is none", {"options": ["qos=long"]}, "options"),
    ("no hardware", {"target": None}, "target"),
    ("a grace of nothing", {"grace_seconds": 0}, "grace_seconds"),
    ("a name that is shell", {"environment": {"X;touch f;": "y"}}, "no variable can be called 'X;touch f;'"),
]


@pytest.mark.parametrize(("fields", "told"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_profile_is_refused_by_its_line(
    workbench: Workbench, tmp_path: Path, fields: dict[str, Any], told: str
) -> None:
    write_profile(tmp_path, **fields)
    said = submit(workbench)
    assert said.status == 2
    assert "slurm/mine.yaml:" in said.output and told in said.output
    assert not (tmp_path / "runs").exists()


def test_all_wrong_profiles_are_told_at_once(workbench: Workbench, tmp_path: Path) -> None:
    write_profile(tmp_path, "one", gres=7)
    write_profile(tmp_path, "two", memory="much")
    said = submit(workbench).output
    assert "one.yaml" in said and "two.yaml" in said


REFUSED: list[tuple[str, list[str], str]] = [
    ("no such profile", ["target.cluster=mien"], "no profile is called 'mien'"),
    (
        "other hardware",
        ["target.cluster=mine", "target.name=h200"],
        "for h200, the profile mine is of cpu",
    ),
    ("too many devices", ["target.devices=4"], "4 devices a node, and those of profile mine have 1"),
    ("no profile for it", ["target.name=t4"], "hardware t4: no cluster profile fits"),
    ("a folder that Slurm cannot name", ["--runs=a\\b"], "Slurm cannot name a folder"),
    ("what train refuses as well", ["method.rnk=4"], "method.rnk"),
]


@pytest.mark.parametrize(("settings", "told"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_submitted_is_refused(
    workbench: Workbench, tmp_path: Path, settings: list[str], told: str
) -> None:
    write_profile(tmp_path)
    options = [word for word in settings if word.startswith("--")]
    chosen = [word for setting in settings if setting not in options for word in ("--set", setting)]
    said = workbench("submit", "quickstart", "--dry-run", *options, *chosen)
    assert said.status == 2 and told in said.output, said.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("limit", "told"),
    [("0", "the limit of 0 s"), ("1", "is no longer than the grace of 120 s"), ("02:00", "no longer"),
     ("soon", "no time"), ("", "no time"), ("-1", "no time"), ("1\n#SBATCH --wrap=x", "no time")],
)  # fmt: skip
def test_a_limit_that_a_job_could_not_use_is_refused(
    workbench: Workbench, tmp_path: Path, limit: str, told: str
) -> None:
    write_profile(tmp_path)
    said = workbench("submit", "quickstart", "--dry-run", f"--time={limit}")
    assert said.status == 2 and told in said.output, said.output


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("3", 180), ("3:30", 210), ("1:00:05", 3605), ("2-1", 176_400), ("1-0:30", 88_200), ("1-01:00:01", 90_001)],
)
def test_times_are_read_as_slurm_writes_them(limit: str, seconds: int) -> None:
    assert profiles._seconds(limit) == seconds


# --- the script ------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_script_alone_and_leaves_nothing(workbench: Workbench, tmp_path: Path) -> None:
    write_profile(tmp_path, account="us", options=["--qos=long"], cpus_per_device=3, devices_per_node=2, memory="4G")
    said = submit(workbench, "target.devices=2", "target.nodes=3")
    assert said.status == 0, said.output
    assert said.output.startswith("#!/usr/bin/env bash\n")
    asked = directives(said.output)
    for option in (
        "--partition=debug", "--account=us", "--nodes=3", "--ntasks-per-node=2", "--cpus-per-task=3", "--mem=4G",
        "--time=20", "--signal=B:USR1@120", "--requeue", "--qos=long", "--open-mode=append",
    ):  # fmt: skip
        assert option in asked
    assert not any("gres" in option for option in asked)
    assert "workbench train " in said.output
    assert not (tmp_path / "runs").exists()


def test_a_limit_can_be_given_for_once(workbench: Workbench, tmp_path: Path) -> None:
    write_profile(tmp_path)
    said = workbench("submit", "quickstart", "--dry-run", "--time", "02:00:00")
    assert "--time=02:00:00" in directives(said.output)


def test_strange_names_reach_the_shell_as_they_are(workbench: Workbench, tmp_path: Path) -> None:
    """A folder and a name with what a shell, or Slurm, would take for something else."""
    write_profile(tmp_path)
    said = workbench("submit", "quickstart", "--dry-run", "--runs", "my $runs; 100%", "--set", 'name=it\'s "one"')
    assert said.status == 0, said.output
    (line,) = (line for line in said.output.splitlines() if line.startswith("run="))
    done = subprocess.run(["bash", "-c", f'{line}\nprintf %s "$run"'], capture_output=True, text=True, check=False)
    assert Path(done.stdout).parent == tmp_path / "my $runs; 100%"
    assert Path(done.stdout).name.startswith('it\'s "one"-')
    assert any("100%%" in option for option in directives(said.output)), "a lone % is Slurm's own sign"


def test_containers_stand_before_the_command(workbench: Workbench, tmp_path: Path) -> None:
    inside = {"kind": "pyxis", "image": "/images/w.sqsh", "mounts": ["/data", "/a:/b"]}
    write_profile(tmp_path, container=inside)
    said = submit(workbench).output
    mounts = f"/data:/data,/a:/b,{tmp_path}/runs:{tmp_path}/runs"
    assert f"--container-image=/images/w.sqsh --container-mounts={mounts} workbench train" in said
    assert "export PATH=" not in said, "the workbench is inside"
    write_profile(tmp_path, container={**inside, "kind": "apptainer"}, target="mi300x", gres="gpu")
    said = submit(workbench, "target=mi300x").output
    assert "srun --kill-on-bad-exit=1 apptainer exec --rocm --bind /data" in said


def test_no_secret_of_the_shell_stands_in_a_script(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    monkeypatch.setenv("HF_TOKEN", "planted-secret")
    write_profile(tmp_path)
    assert "planted-secret" not in submit(workbench).output


def scripts_of(workbench: Workbench, name: str) -> list[str]:
    """The scripts of a shipped profile: of a run, and of a study's array and verdict."""
    profile = profiles.known(ROOT)[name].profile
    hardware = ("--set", f"target.name={profile.target}", "--set", f"target.cluster={name}")
    run = workbench("submit", "quickstart", "--dry-run", *hardware)
    study = workbench("submit", "quickstart-study", "--dry-run", *hardware)
    assert (run.status, study.status) == (0, 0), run.output + study.output
    start = "#!/usr/bin/env bash\n"
    found = [start + part for said in (run, study) for part in said.output.split(start)[1:]]
    assert len(found) == 4, "one run; bases that are only scored, runs that train; the verdict"
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_the_scripts_of_every_shipped_profile_pass_shellcheck(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    monkeypatch.setenv("PATH", f"{Path(shutil.which('shellcheck') or '').parent}:/bin")
    for number, text in enumerate(scripts_of(workbench, name)):
        path = tmp_path / f"{number}.sh"
        path.write_text(text.split("sbatch: ")[0])
        # a file of the cluster's own cannot be followed here
        done = subprocess.run(["shellcheck", "-e", "SC1091", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + text


# --- what is not there -----------------------------------------------------------------------------------------------


def test_without_slurm_it_says_so_and_keeps_nothing_running(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    said = workbench("submit", "quickstart")
    assert said.status == 2
    assert "there is no Slurm on this machine" in said.output
    assert not any(tmp_path.glob("runs/*/jobs.jsonl"))


def test_inputs_that_were_not_prefetched_are_named_before_anything_is_submitted(
    workbench: Workbench, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    write_profile(tmp_path, store=str(store))
    said = submit(workbench, "target=cpu", "data.name=gsm8k", "base=qwen3-0.6b", "data.template=base",
                  "evaluation.suite=gsm8k")  # fmt: skip
    assert said.status == 2
    for what in ("Qwen/Qwen3-0.6B", "openai/gsm8k"):
        assert what in said.output
    assert "was never prefetched" in said.output and "workbench prefetch RECIPE" in said.output
    assert not (tmp_path / "runs").exists()


def test_states_without_a_scheduler_are_those_of_the_directories(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert slurm.states(["1"]) == {}
    assert workbench("train", "quickstart", "--dry-run").status == 0
    (path,) = (tmp_path / "runs").iterdir()
    found, answered = queue.look([Run(path)])
    assert answered and found[0].word == "stopped"
    said = workbench("runs", "--watch")
    assert said.status == 0 and "stopped" in said.output
    assert "has said nothing yet" in workbench("logs", "quickstart").output
    assert "neither runs nor waits" in workbench("cancel", "quickstart").output


def fake(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_scheduler_that_does_not_answer_is_not_taken_for_an_empty_queue(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed, handed in twice or called idle because nobody knows."""
    write_profile(tmp_path)
    fake(tmp_path, "sbatch", "echo 7")
    fake(tmp_path, "squeue", "exit 1")
    fake(tmp_path, "sacct", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert "job 7: quickstart-" in workbench("submit", "quickstart").output
    for command in (
        ("submit", "quickstart"),
        ("runs", "prune"),
        ("runs", "rm", "quickstart"),
        ("cancel", "quickstart"),
    ):
        said = workbench(*command)
        assert said.status == 2, said.output
        assert "Slurm: does not answer, and may hold these jobs: 7" in said.output
    assert len(list((tmp_path / "runs").glob("quickstart-*"))) == 1
    assert "Slurm does not answer" in workbench("runs").output
    fake(tmp_path, "squeue", "echo '7|PENDING|Priority||20:00'")
    assert "queued" in workbench("runs").output
    assert "waits or runs as job 7" in workbench("runs", "rm", "quickstart").output
    assert "waits as job 7, and stays" in workbench("runs", "prune").output
    fake(tmp_path, "squeue", "echo '7|COMPLETING|None||20:00'")
    assert "its job 7 is being ended" in workbench("submit", "quickstart").output


def test_one_damaged_run_does_not_hide_the_others(workbench: Workbench, tmp_path: Path) -> None:
    for name in ("whole", "torn", "odd", "odder", "locked"):
        assert workbench("train", "quickstart", "--dry-run", "--set", f"name={name}", "--set", f"seed={len(name)}",
                         "--set", f"method.rank={len(name) + ord(name[0])}").status == 0  # fmt: skip
    run = {path.name.split("-")[0]: path for path in (tmp_path / "runs").iterdir() if path.is_dir()}
    (run["torn"] / "resolved.json").write_text("{")
    (run["odd"] / "attempts.jsonl").write_text("{}\n")
    (run["odder"] / "metrics.jsonl").write_text('{"a": 1}\n')
    (run["locked"] / "lock").mkdir()
    listed = workbench("runs")
    assert listed.status == 0, listed.output
    for name, state in (("whole", "stopped"), ("torn", "damaged"), ("odd", "damaged"), ("odder", "damaged")):
        assert any(line.startswith(name + "-") and state in line for line in listed.output.splitlines()), listed.output
    assert workbench("runs", "--watch").status == 0
    for name in ("torn", "odd", "odder", "locked"):
        assert workbench("runs", "rm", run[name].name).status == 0
    assert not run["locked"].exists() and run["whole"].exists()


def test_every_field_of_a_profile_is_explained_and_read(workbench: Workbench) -> None:
    said = workbench("explain", "profile").output
    source = "".join(path.read_text() for path in (ROOT / "workbench").rglob("*.py"))
    for field, info in (profiles.Profile.model_fields | profiles.Container.model_fields).items():
        assert info.description and field in said
        assert f".{field}" in source, f"nothing reads {field}"
    assert "asked to stop" in workbench("explain", "profile.grace_seconds").output
