"""`workbench pack`: one archive with everything, the same bytes twice, judged and gone on with where nothing of the
first place is there any more; no secret in it; a damaged or hostile archive is told, and nothing is written."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome
from gate_runs import Desk, write_hub_base
from small_recipes import Workbench, questions, write_recipe
from test_reproduce import starts
from test_study import BASE, write_study, write_suite

from workbench import files
from workbench.errors import RunError
from workbench.packs import archive
from workbench.packs.archive import Digest
from workbench.recipe.load import load
from workbench.recipe.resolve import resolve
from workbench.runs import lock
from workbench.runs.planned import planned
from workbench.runs.run import Run, without_measured

STUDY = "inputs/weigh.yaml"
JUDGE = ("--runs", "runs", "--set", "target.name=cpu")


@dataclass(frozen=True)
class Place:
    """A project folder with a study in it, and the command line typed at its top."""

    folder: Path
    workbench: Workbench

    def go(self, *arguments: str, expected: int = 0) -> str:
        """Type a command here."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            outcome: Outcome = self.workbench(*arguments)
        finally:
            os.chdir(before)
        assert outcome.status == expected, outcome.output
        assert "Traceback" not in outcome.output
        return outcome.output

    def run(self, pattern: str) -> Run:
        """The one run of that name."""
        (path,) = (self.folder / "runs").glob(pattern)
        return Run(path)

    @property
    def archive(self) -> Path:
        """Where the study is packed by default."""
        return self.folder / "runs" / "packs" / "weigh.tar.gz"

    @property
    def verdict(self) -> Path:
        """What the study came to."""
        return self.folder / "runs" / "studies" / "weigh" / "verdict.json"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A study whose recipe extends another one; a base of links, as in the hub's cache; rows by an absolute path."""
    folder = tmp_path_factory.mktemp("pack")
    work = folder / "work"
    (folder / "blobs").mkdir()
    (folder / "bases" / "tiny").mkdir(parents=True)
    for path in small_base.iterdir():
        shutil.copy(path, folder / "blobs" / f"{path.name}.blob")
        (folder / "bases" / "tiny" / path.name).symlink_to(f"../../blobs/{path.name}.blob")
    work.mkdir()
    write_recipe(work, Path("../bases/tiny"), questions(), training={"steps": 4, "checkpoint_every": 1})
    recipe = yaml.safe_load((work / "small.yaml").read_text()) | {"target": {"threads": 1}}
    shutil.copy(folder / "blobs" / "chat_template.jinja.blob", folder / "brief.jinja")
    recipe["data"]["template"] = "../brief.jinja"
    (work / "common.yaml").write_text(yaml.safe_dump(recipe))
    (work / "small.yaml").write_text("# one that extends\nextends: common.yaml\nmethod: {name: lora, rank: 4}\n")
    write_suite(work)
    write_study(work, arms={"base": BASE, "lora": "small.yaml"})
    return folder


@pytest.fixture
def place(room: Path, tmp_path: Path, workbench: Workbench) -> Place:
    """The finished study in a folder of its own."""
    if not (room / "runs").exists():
        first = Place(room, workbench)
        named_by_a_path(room)
        for rate in ("1e-3", "3e-3"):
            first.go("train", "work/small.yaml", "--set", f"training.learning_rate={rate}", "--set", "seed=9")
        first.go("study", "work/weigh.yaml")
    here = tmp_path / "first"
    shutil.copytree(room, here, symlinks=True)
    for path in [*(here / "runs").glob("*/*.json"), *(here / "runs").glob("*/*.yaml")]:
        path.write_text(path.read_text().replace(str(room), str(here)))
    named_by_a_path(here)
    return Place(here, workbench)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A folder with runs that nothing was trained for."""
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


def named_by_a_path(folder: Path) -> None:
    """The rows that are trained on lie apart, named by an absolute path."""
    apart = folder.parent / f"{folder.name}-rows" / "deep"
    apart.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "work" / "rows" / "train.jsonl", apart / "train.jsonl")
    card = {"format": "prompt_completion", "splits": {"train": {"files": f"{apart}/*.jsonl"}}}
    (folder / "work" / "datasets" / "rows.yaml").write_text(yaml.safe_dump(card))


def moved(place: Place, packed: Path, name: str = "second") -> Place:
    """Unpack somewhere else, as a person would, with nothing left of the first place."""
    there = place.folder.parent / name
    kept = shutil.copy(packed, place.folder.parent / "kept.tar.gz")
    with tarfile.open(kept) as found:
        found.extractall(there, filter="data")
    shutil.rmtree(place.folder)
    shutil.rmtree(place.folder.parent / f"{place.folder.name}-rows")
    return Place(there, place.workbench)


def members(path: Path) -> dict[str, bytes]:
    """Every member's bytes."""
    with tarfile.open(path) as found:
        return {entry.name: found.extractfile(entry).read() for entry in found}  # type: ignore[union-attr]


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_everything_is_in_it_once_with_its_hash_and_nothing_else(place: Place) -> None:
    run = place.run("lora-*-s0")
    (run.path / "wandb").mkdir()
    (run.path / "wandb" / "debug.log").write_text("x")
    said = place.go("pack", "work/weigh.yaml")
    found = members(place.archive)
    listed = json.loads(found["PACK.json"])
    assert {*listed["files"], "PACK.json"} == set(found)
    for name in ("weigh", "small", "common", "suites/words", "datasets/rows", "datasets/asks", "datasets/texts"):
        assert f"inputs/{name}.yaml" in found
    assert {"inputs/rows/asks.jsonl", "inputs/elsewhere/deep/train.jsonl"} <= set(found)
    weights = place.folder / "bases" / "tiny" / "model.safetensors"
    assert weights.is_symlink() and found["inputs/elsewhere/first/bases/tiny/model.safetensors"] == weights.read_bytes()
    assert found["inputs/elsewhere/first/brief.jinja"] == (place.folder / "brief.jinja").read_bytes()
    assert {"runs/studies/weigh/verdict.json", "runs/studies/weigh/report.html"} <= set(found)
    runs = {name.split("/")[1].split("-")[0] for name in found if name.startswith("runs/") and name.count("/") > 1}
    assert runs == {"base", "lora", "studies"}
    assert not [name for name in found if "wandb" in name or "checkpoint" in name or name.endswith("/lock")]
    assert {one["path"].split("/", 2)[2]: one["why"] for one in listed["left_out"] if run.name in one["path"]} == {
        "wandb/": "is no part of the run (what a tracker keeps, or an export)",
        "lock": "says who works on the run, or is half written",
        "checkpoints/checkpoint-4/": "the run is finished",
        "checkpoints/checkpoint-3/": "the run is finished",
    }
    assert listed["fetched_from_the_hub"] == [] and listed["versions"]["torch"]
    assert listed["settings"] == ["target.name=cpu"], "`auto` may be something else elsewhere"
    assert sorted(listed["rewritten"]) == ["inputs/common.yaml", "inputs/datasets/rows.yaml"]
    assert found["inputs/small.yaml"] == (place.folder / "work" / "small.yaml").read_bytes()
    assert "packed" in said and "sha256" in said
    assert f"workbench study {STUDY} --set target.name=cpu --runs runs --judge" in found["README.md"].decode()


def test_only_plain_files_of_nobody_and_the_same_bytes_twice(place: Place) -> None:
    place.go("pack", "work/weigh.yaml")
    with tarfile.open(place.archive) as found:
        entries = list(found)
    assert all(entry.isreg() and stat.S_IMODE(entry.mode) == 0o644 for entry in entries)
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, "", "")}
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    for path in place.folder.rglob("*.json"):
        os.utime(path)
    place.go("pack", "work/weigh.yaml", "--out", "again.tar.gz")
    assert (place.folder / "again.tar.gz").read_bytes() == place.archive.read_bytes()


def test_a_study_without_runs_and_unknown_names_are_refused(place: Place) -> None:
    assert "names nothing" in place.go("pack", expected=2)
    assert "is no run" in place.go("pack", "nothing-like-it", expected=2)
    assert "frozen" in place.go("pack", "base", "--set", "seed=1", expected=2)
    assert "none of its runs" in place.go("pack", "work/weigh.yaml", "--set", "training.precision=bf16", expected=2)
    assert not place.archive.exists()


def test_a_run_that_is_being_worked_on_is_refused(place: Place) -> None:
    with lock.held(place.run("lora-*-s1")):
        assert "is being worked on by" in place.go("pack", "work/weigh.yaml", expected=2)


def test_what_would_not_be_found_again_is_refused(place: Place) -> None:
    cards = place.folder / "work" / "datasets"
    elsewhere = place.folder.parent / "cards" / "of" / "mine"
    shutil.copytree(cards, elsewhere)
    shutil.rmtree(cards)
    cards.symlink_to(elsewhere)
    shutil.copytree(place.folder / "work" / "rows", elsewhere.parent / "rows")
    assert "links to folders" in place.go("pack", "work/weigh.yaml", expected=2)
    assert not place.archive.exists()


def test_what_is_missing_is_told_at_once(place: Place) -> None:
    (place.folder / "brief.jinja").unlink()
    (place.folder / "work" / "rows" / "asks.jsonl").unlink()
    (place.folder / "bases" / "tiny" / "config.json").rename(place.folder / "config.json")
    shutil.rmtree(place.folder / "bases")
    said = place.go("pack", place.run("lora-*-s0").name, expected=2)
    assert all(words in said for words in ("asks.jsonl", "brief.jinja", "the base's directory is not there"))


# --- elsewhere -------------------------------------------------------------------------------------------------------


def test_elsewhere_the_verdict_is_the_same_to_the_byte(place: Place) -> None:
    verdict = place.verdict.read_bytes()
    assert json.loads(verdict)["arms"][1]["tuning"]["learning_rates_tried"] == 3
    place.go("pack", "work/weigh.yaml")
    there = moved(place, place.archive)
    there.verdict.unlink()
    there.go("study", STUDY, *JUDGE, "--judge")
    assert there.verdict.read_bytes() == verdict
    assert starts(there.run("lora-*-s0")) == 1


def test_elsewhere_exactly_what_is_gone_is_trained_again_and_comes_out_the_same(place: Place) -> None:
    before = files.read_json(place.verdict)
    place.go("pack", "work/weigh.yaml")
    there = moved(place, place.archive)
    gone, stays = there.run("lora-*-s1"), there.run("lora-*-s0")
    was = {name: read(gone) for name, read in READ.items()}
    shutil.rmtree(gone.path)
    said = there.go("study", STUDY, *JUDGE)
    assert "1 of 3 runs to do" in said and f"run 3 of 3: lora, seed 1 ({gone.name})" in said
    assert starts(stays) == 1 and starts(gone) == 1
    assert {name: read(gone) for name, read in READ.items()} == was
    after = files.read_json(there.verdict)
    for key in ("sentence", "contrasts", "tiers", "suite", "transfer", "noise_floor"):
        assert after[key] == before[key], key
    assert [arm["scores"] for arm in after["arms"]] == [arm["scores"] for arm in before["arms"]]


READ: dict[str, Callable[[Run], Any]] = {
    "adapter": lambda run: (run.adapter / "adapter_model.safetensors").read_bytes(),
    "metrics": lambda run: [without_measured(row) for row in files.read_jsonl(run.metrics)],
    "items": lambda run: run.items("words").read_bytes(),
    "status": lambda run: files.read_json(run.status),
    "identity": lambda run: run.identity_file.read_bytes(),
}


def test_elsewhere_a_run_is_reproduced_from_the_packs_own_inputs(place: Place) -> None:
    place.go("pack", "work/weigh.yaml")
    there = moved(place, place.archive)
    name = there.run("lora-*-s0").name
    said = there.go("reproduce", f"runs/{name}", "--runs", "again")
    assert "bit-equal, as expected" in said
    (copy,) = (there.folder / "again").glob("lora-*-s0-r1")
    assert files.read_json(Run(copy).reproduction)["inside"]
    assert str(there.folder) in Run(copy).resolved().base.location


def test_runs_that_were_made_from_another_copy_of_the_inputs_find_them_in_the_pack(place: Place) -> None:
    run = place.run("lora-*-s0")
    for path in (place.folder / "runs").glob("*/resolved.json"):
        path.write_text(path.read_text().replace(str(place.folder / "work"), "/once/upon/a/time"))
    place.go("pack", "work/weigh.yaml")
    there = moved(place, place.archive)
    assert "bit-equal" in there.go("reproduce", f"runs/{run.name}", "--runs", "again")


def test_an_unfinished_run_goes_on_elsewhere_from_its_newest_whole_checkpoint(place: Place) -> None:
    run = place.run("lora-*-s1")
    whole = {name: read(run) for name, read in READ.items()}
    for path in (run.adapter, run.evaluation("words")):
        shutil.rmtree(path)
    for path in (run.proof, run.training, run.probe, run.cost, run.status):
        path.unlink()
    damaged = next((run.checkpoints / "checkpoint-4").glob("*.safetensors"))
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    said = place.go("pack", run.name, "--out", "one.tar.gz")
    assert f"not finished, goes on from its newest checkpoint if any: {run.name}" in said
    found = members(place.folder / "one.tar.gz")
    kept = {name.split("/")[3] for name in found if "/checkpoints/" in name}
    assert kept == {"checkpoint-3"}
    (left,) = [one for one in json.loads(found["PACK.json"])["left_out"] if "checkpoint-4" in one["path"]]
    assert left["why"].endswith("is damaged")
    there = moved(place, place.folder / "one.tar.gz")
    said = there.go("train", f"inputs/{run.name}.yaml", *JUDGE)
    assert "going on from step 3" in said
    assert {name: read(there.run("lora-*-s1")) for name, read in READ.items()} == whole


def test_a_trained_run_is_scored_elsewhere(place: Place) -> None:
    run = place.run("lora-*-s1")
    items = run.items("words").read_bytes()
    shutil.rmtree(run.evaluation("words"))
    run.status.unlink()
    place.go("pack", "work/weigh.yaml")
    there = moved(place, place.archive)
    there.go("study", STUDY, *JUDGE)
    assert there.run("lora-*-s1").items("words").read_bytes() == items


def test_a_run_that_starts_from_another_brings_it_along(place: Place) -> None:
    first = place.run("lora-*-s0")
    place.go("train", "work/small.yaml", "--set", f"method.init_from={first.path}", "--set", "name=after",
             "--set", "evaluation.suite=work/suites/words.yaml")  # fmt: skip
    after = place.run("after-*")
    place.go("pack", after.name)
    there = moved(place, place.folder / "runs" / "packs" / f"{after.name}.tar.gz")
    said = there.go("train", f"inputs/{after.name}.yaml", *JUDGE)
    assert "is finished already" in said
    assert there.run("lora-*-s0").is_finished()


# --- secrets ---------------------------------------------------------------------------------------------------------

TOKEN = "hf_WmYq7Bd93kTz0planted"
PASSWORD = 'p"ss\\w\u00f6rd-91c'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of our own, with a netrc that holds a password."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("NETRC", raising=False)
    (folder / ".netrc").write_text(f"machine api.wandb.ai login user password {PASSWORD}\n")
    yield folder


PLANTS: dict[str, Callable[[Run, Path], Path]] = {
    "a job's script": lambda run, _: run.job_script,
    "a log": lambda run, _: run.log,
    "a checked-in recipe": lambda _, folder: folder / "work" / "common.yaml",
    "a card": lambda _, folder: folder / "work" / "datasets" / "texts.yaml",
    "the report": lambda _, folder: folder / "runs" / "studies" / "weigh" / "report.html",
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_token_is_found_in_any_file_and_never_shown(
    place: Place, plant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = PLANTS[plant](place.run("lora-*-s0"), place.folder)
    before = path.read_bytes() if path.exists() else b""
    path.write_bytes(before + f"\n# export HF_TOKEN={TOKEN}\n".encode())
    monkeypatch.setenv("MY_HF_TOKEN", TOKEN)
    said = place.go("pack", "work/weigh.yaml", expected=2)
    assert path.name in said and "the value of MY_HF_TOKEN" in said
    assert TOKEN not in said
    assert not place.archive.exists() and list(place.archive.parent.glob("*")) == []
    path.write_bytes(before)
    if not before:
        path.unlink()
    place.go("pack", "work/weigh.yaml")
    assert not [name for name, content in members(place.archive).items() if TOKEN.encode() in content]


def test_passwords_of_netrc_are_found_as_json_writes_them(place: Place, home: Path) -> None:
    run = place.run("lora-*-s0")
    files.append_line(run.attempts, {"event": "end", "time": "", "host": "", "status": 0, "note": PASSWORD})
    said = place.go("pack", "work/weigh.yaml", expected=2)
    assert "attempts.jsonl" in said and "from .netrc" in said and 'p"ss' not in said


@pytest.mark.parametrize("kept", ["token", "stored_tokens", "settings", "named"])
def test_tokens_that_tools_keep_are_found(place: Place, home: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    path = {"token": home / "hf" / "token", "stored_tokens": home / "hf" / "stored_tokens"}.get(kept, home / kept)
    path.parent.mkdir(exist_ok=True)
    path.write_text({"token": TOKEN, "named": f"{TOKEN}\n"}.get(kept, f"[default]\napi_key = {TOKEN}\n"))
    if kept == "named":
        monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", str(path))
    place.run("lora-*-s0").log.write_text(f"token {TOKEN}")
    said = place.go("pack", "work/weigh.yaml", expected=2)
    assert f"from {path.name}" in said or "that WANDB_IDENTITY_TOKEN_FILE names" in said
    assert TOKEN not in said


def test_a_secret_in_a_setting_is_found_in_what_the_pack_itself_says(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_KEY", "lora-is-my-secret")
    setting = "tracking.wandb={project: lora-is-my-secret, mode: offline}"
    said = place.go("pack", "work/weigh.yaml", "--set", setting, expected=2)
    assert "README.md" in said and "DEPLOY_KEY" in said and "lora-is-my-secret" not in said


# --- damage and hostility --------------------------------------------------------------------------------------------


def built(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], listed: dict[str, bytes]) -> Path:
    """An archive of one's own making."""
    facts = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in listed.items()
    }
    manifest = json.dumps({"files": facts}).encode()
    with tarfile.open(path, "w:gz") as made:
        for entry, content in [(tarfile.TarInfo("PACK.json"), manifest), *entries]:
            if entry.isreg():
                entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


HOSTILE: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], dict[str, bytes], str]] = {
    "another name of the same file": (
        [(entry("a"), b"x"), (entry("./a"), b"y")],
        {"a": b"x", "./a": b"y"},
        "is no plain name of a file",
    ),
    "upwards": ([(entry("../out"), b"x")], {"../out": b"x"}, "is no plain name of a file"),
    "inside upwards": (
        [(entry("a/../../out"), b"x")],
        {"a/../../out": b"x"},
        "is no plain name of a file",
    ),
    "absolute": ([(entry("/etc/out"), b"x")], {"/etc/out": b"x"}, "is no plain name of a file"),
    "backwards": ([(entry("..\\out"), b"x")], {"..\\out": b"x"}, "is no plain name of a file"),
    "a link": ([(entry("a", tarfile.SYMTYPE, "/etc/passwd"), b"")], {"a": b""}, "is no plain file"),
    "a hard link": ([(entry("a", tarfile.LNKTYPE, "PACK.json"), b"")], {"a": b""}, "is no plain file"),
    "a device": ([(entry("a", tarfile.CHRTYPE), b"")], {"a": b""}, "is no plain file"),
    "twice": ([(entry("a"), b"x"), (entry("a"), b"x")], {"a": b"x"}, "is there twice"),
    "the list twice": ([(entry("PACK.json"), b"{}")], {}, "is there and not listed"),
    "extra": ([(entry("a"), b"x")], {}, "is there and not listed"),
    "missing": ([], {"a": b"x"}, "is listed and not there"),
    "other bytes": ([(entry("a"), b"x")], {"a": b"y"}, "its sha256 is another one"),
    "other size": ([(entry("a"), b"xx")], {"a": b"x"}, "has 2 bytes, 1 are listed"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_told_and_nothing_is_written(tmp_path: Path, workbench: Workbench, kind: str) -> None:
    entries, listed, words = HOSTILE[kind]
    path = built(tmp_path / "x.tar.gz", entries, listed)
    outcome = workbench("pack", "--check", str(path))
    assert outcome.status == 2 and words in outcome.output, outcome.output
    assert [one.name for one in tmp_path.iterdir()] == ["x.tar.gz"]


def test_a_whole_archive_is_said_to_be_whole_and_any_damage_is_found(place: Place) -> None:
    place.go("pack", "work/weigh.yaml")
    assert "whole" in place.go("pack", "--check", str(place.archive))
    content = place.archive.read_bytes()
    bad = place.folder / "bad.tar.gz"
    for at in (0, 5000, len(content) // 2, len(content) - 6):
        bad.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        said = place.go("pack", "--check", "bad.tar.gz", expected=2)
        assert "damaged" in said or "sha256" in said or "not there" in said, (at, said)
    for size in (0, 100, len(content) // 2, len(content) - 4):
        bad.write_bytes(content[:size])
        place.go("pack", "--check", "bad.tar.gz", expected=2)


@pytest.mark.parametrize("content", [b"none", gzip.compress(b"none"), gzip.compress(b"")], ids=["text", "gz", "empty"])
def test_what_is_no_pack_is_told(tmp_path: Path, workbench: Workbench, content: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(content)
    outcome = workbench("pack", "--check", "x.tar.gz")
    assert outcome.status == 2 and "no pack" in outcome.output
    assert workbench("pack", "--check", "none.tar.gz").status == 2


def test_a_list_that_never_ends_is_no_list(tmp_path: Path, workbench: Workbench) -> None:
    content = b"[" * 100_000
    made = entry("PACK.json")
    made.size = len(content)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(made, io.BytesIO(content))
    outcome = workbench("pack", "--check", "x.tar.gz")
    assert outcome.status == 2 and "is no list of files" in outcome.output


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_to_is_told(place: Place) -> None:
    (place.folder / "file").write_text("")
    said = place.go("pack", "work/weigh.yaml", "--out", "file/x.tar.gz", expected=2)
    assert "cannot be written" in said and "--out" in said


def test_a_disk_that_is_full_leaves_the_old_archive_and_no_half_one(place: Place) -> None:
    place.archive.parent.mkdir()
    place.archive.write_bytes(b"an older one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        said = place.go("pack", "work/weigh.yaml", expected=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written" in said and "free some space" in said
    assert [path.name for path in place.archive.parent.iterdir()] == [place.archive.name]
    assert place.archive.read_bytes() == b"an older one"


def test_ctrl_c_leaves_no_half_archive(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "_write_one", interrupted)
    place.go("pack", "work/weigh.yaml", expected=130)
    assert list(place.archive.parent.iterdir()) == []


@pytest.mark.parametrize("now", [b"other", b"lon", b"longer"], ids=["changed", "shorter", "longer"])
def test_a_file_that_changes_while_it_is_packed_is_refused(tmp_path: Path, now: bytes) -> None:
    (tmp_path / "a").write_bytes(b"known")
    known = archive.digests({"a": tmp_path / "a"}, [], lambda _: None)
    assert known == {"a": Digest(hashlib.sha256(b"known").hexdigest(), 5)}
    (tmp_path / "a").write_bytes(now)
    with pytest.raises(RunError, match="changed while it was packed"):
        archive.write(tmp_path / "x.tar.gz", {"a": tmp_path / "a"}, known, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_to_nothing_is_refused(place: Place) -> None:
    (place.run("lora-*-s0").path / "eval" / "gone").symlink_to("nowhere")
    assert "is a link to nowhere" in place.go("pack", "work/weigh.yaml", expected=2)


def test_a_single_run_is_packed_with_its_base(place: Place) -> None:
    run = place.run("lora-*-s0")
    place.go("pack", "lora-", expected=2)
    place.go("pack", run.name)
    found = members(place.folder / "runs" / "packs" / f"{run.name}.tar.gz")
    listed = json.loads(found["PACK.json"])
    assert [name.split("-")[0] for name in listed["runs"]] == ["base", "lora"]
    recipe = yaml.safe_load(found[f"inputs/{run.name}.yaml"])
    assert recipe["base"]["name"] == "./elsewhere/first/bases/tiny" and recipe["data"]["name"] == "./datasets/rows.yaml"


def test_a_run_whose_inputs_changed_since_is_refused(place: Place) -> None:
    run = place.run("lora-*-s0")
    (place.folder / "brief.jinja").write_text("{{ messages }}")
    assert "changed since the run was made: the template's file" in place.go("pack", run.name, expected=2)


# --- what is fetched, and what is shipped ----------------------------------------------------------------------------


def test_what_lies_on_the_hub_is_named_by_its_commit_and_not_packed(desk: Desk, workbench: Workbench) -> None:
    write_hub_base("org/packed", "c" * 40)
    run = desk.finished("base=org/packed", name="hub")
    outcome = workbench("pack", run.name, "--out", "hub.tar.gz")
    assert outcome.status == 0, outcome.output
    assert f"not in it, from the hub: model org/packed@{'c' * 40}" in outcome.output
    found = members(desk.folder / "hub.tar.gz")
    listed = json.loads(found["PACK.json"])
    (fetched,) = listed["fetched_from_the_hub"]
    assert fetched["repository"] == "org/packed" and fetched["commit"] == "c" * 40
    assert listed["settings"] == ["target.threads=2", f"base.revision={'c' * 40}"], "as they were, if not said"
    assert "c" * 40 in found["README.md"].decode()
    assert not [name for name in found if "safetensors" in name and name.startswith("inputs/")]


def test_shipped_files_travel_as_if_they_lay_beside_ones_own(
    tmp_path: Path, workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "base: embedded\nmethod: lora\ndata: {name: world-questions, template: plain}\n"
        "evaluation: {suite: world}\ntarget: cpu\n"
    )
    run = planned(resolve(load(recipe)), tmp_path / "runs").open(tmp_path / "runs")
    outcome = workbench("pack", run.name, "--out", "mine.tar.gz")
    assert outcome.status == 0, outcome.output
    found = members(tmp_path / "mine.tar.gz")
    for name in ("datasets/world-questions.yaml", "datasets/world/questions-train.jsonl", "recipes/suites/world.yaml"):
        assert f"inputs/{name}" in found
    assert not [name for name in found if "embedded" in name and name.startswith("inputs/")]
    with tarfile.open("mine.tar.gz") as packed:
        packed.extractall(tmp_path / "there", filter="data")
    monkeypatch.chdir(tmp_path / "there")
    here = planned(resolve(load(Path("inputs") / f"{run.name}.yaml")), Path("runs"))
    found_run = here.find(Path("runs"))
    assert found_run is not None and found_run.name == run.name
    assert here.resolved.data.folder == str(tmp_path / "there" / "inputs" / "datasets")
