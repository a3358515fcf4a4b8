"""prefetch against a small hub on this machine: what is fetched, verified and missing, and a run without a network."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, Outcome
from hub_server import Hub
from huggingface_hub import constants
from small_recipes import questions

from workbench import hub as the_hub
from workbench.recipe.load import load
from workbench.recipe.resolve import resolve
from workbench.runs import store as stores

Workbench = Callable[..., Outcome]
BASE, ROWS, ASKED = "models/tests/small", "datasets/tests/rows", "datasets/tests/asked"
SCRATCH = ("base.init=random", "method=full")


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def held(base: Path) -> dict[str, dict[str, bytes]]:
    """What the hub holds: files that are to be fetched, and others that are not."""
    model = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    model |= {"README.md": b"# small", "pytorch_model.bin": b"a pickle", "onnx/model.onnx": b"no"}
    rows = {"data/train.jsonl": as_lines(questions(16)), "data/more.jsonl": b"", "README.md": b"rows"}
    asked = {"test.jsonl": as_lines(questions(20)[16:]), "train.jsonl": as_lines(questions(16))}
    return {BASE: model, ROWS: rows, ASKED: asked}


@pytest.fixture
def hub(small_base: Path) -> Iterator[Hub]:
    made = Hub()
    for name, files in held(small_base).items():
        made.add(name, files)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def online(hub: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process with the small hub for its hub. (Its library looks at the environment once, at import.)"""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "store"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "store"


def write_recipe(folder: Path, **sections: Any) -> Path:
    """A recipe whose base, rows and evaluation set are on the hub."""
    cards = {
        "rows": {"source": {"hub": "tests/rows"}, "splits": {"train": {"files": "data/train.jsonl"}}},
        "asked": {
            "source": {"hub": "tests/asked"},
            "splits": {"test": {"files": "test.jsonl"}, "train": {"files": "train.jsonl"}},
        },
    }
    (folder / "datasets").mkdir(exist_ok=True, parents=True)
    for name, card in cards.items():
        (folder / "datasets" / f"{name}.yaml").write_text(yaml.safe_dump({"format": "prompt_completion", **card}))
    task = {"name": "generate", "id": "asked", "data": "asked", "max_new_tokens": 4, "fewshot": 1}
    (folder / "suites").mkdir(exist_ok=True)
    (folder / "suites" / "asked.yaml").write_text(yaml.safe_dump({"tasks": [task]}))
    values = {
        "base": {"name": "tests/small"},
        "method": {"name": "lora", "rank": 4},
        "data": {"name": "rows"},
        "training": {"steps": 2, "batch_size": 4, "learning_rate": 1e-2, "preflight": False},
        "evaluation": {"suite": "asked", "base": False},
        "target": {"name": "cpu", "threads": 1},
        **sections,
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    return recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "written")


def receipts(store: Path) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted((store / "prefetched").glob("*"))}


def told(recipe: Path, store: Path, *settings: str) -> list[str]:
    """What `missing` says."""
    return [str(problem) for problem in stores.missing(resolve(load(recipe, settings)), store)]


def in_store(store: Path, repository: str, name: str) -> Path:
    """A file of a snapshot."""
    kind, _, owner = repository.partition("/")
    (found,) = store.glob(f"hub/{kind}--{owner.replace('/', '--')}/snapshots/*/{name}")
    return found


# --- fetching --------------------------------------------------------------------------------------------------------


def test_all_that_a_recipe_reads_is_fetched_hashed_and_written_down(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    before = told(recipe, store)
    assert len(before) == 3 and all("was never prefetched" in line for line in before)
    assert all("workbench prefetch RECIPE" in line for line in before)
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0, outcome.output
    assert told(recipe, store) == []
    made = receipts(store)
    assert {(one["kind"], one["repository"]) for one in made.values()} == {
        ("model", "tests/small"), ("dataset", "tests/rows"), ("dataset", "tests/asked")}  # fmt: skip
    for repository in (BASE, ROWS, ASKED):
        commit = hub.repositories[repository].main
        kind, _, owner = repository.partition("/")
        one = made[f"{kind[:-1]}--{owner.replace('/', '--')}--{commit}.json"]
        assert one["commit"] == commit and commit[:12] in outcome.output
    assert outcome.output.count(" fetched") == 3
    model = next(one for one in made.values() if one["kind"] == "model")
    assert set(model["files"]) == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                                   "tokenizer_config.json", "chat_template.jinja"}  # fmt: skip
    assert not any("README" in path or "pickle" in path or path.endswith(".bin") for path in hub.fetched())


def test_again_everything_is_verified_and_nothing_fetched(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    assert workbench("prefetch", str(recipe)).status == 0
    before = receipts(store)
    hub.asked.clear()
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0, outcome.output
    assert outcome.output.count("there, verified") == 3
    assert hub.fetched() == [] and receipts(store) == before
    hub.stop()
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0 and outcome.output.count("there, verified") == 3, outcome.output


def test_a_branch_that_moved_is_fetched_and_the_old_commit_stays(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    assert workbench("prefetch", str(recipe)).status == 0
    old = hub.repositories[ROWS].main
    new = hub.add(ROWS, {"data/train.jsonl": as_lines(questions(20))})
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0, outcome.output
    assert new[:12] in outcome.output and outcome.output.count("there, verified") == 2
    assert told(recipe, store) == []
    resolved = resolve(load(recipe))
    for commit in (old, new):
        source = resolved.data.card.source.model_copy(update={"revision": commit})
        card = resolved.data.model_copy(update={"card": resolved.data.card.model_copy(update={"source": source})})
        assert stores.missing(resolved.model_copy(update={"data": card}), store) == []


def test_a_study_fetches_what_its_arms_share_once(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    arms = {
        "scratch": {"recipe": recipe.name, "set": {"base.init": "random", "method": "full"}},
        "lora": {"recipe": recipe.name, "grid": {"method.rank": [2, 4]}},
        "untouched": {"recipe": recipe.name, "set": {"method": "none"}},
    }
    study = recipe.parent / "study.yaml"
    study.write_text(
        yaml.safe_dump(
            {"arms": arms, "suite": "asked", "question": "which?", "vary": ["method", "base.init"], "seeds": [0, 1]}
        )
    )
    outcome = workbench("prefetch", str(study))
    assert outcome.status == 0, outcome.output
    assert re.findall(r"^\d/\d", outcome.output, re.MULTILINE) == ["1/3", "2/3", "3/3"]
    assert len(hub.fetched()) == len(set(hub.fetched()))
    assert told(recipe, store) == [] and told(recipe, store, *SCRATCH) == []


def test_what_lies_on_this_machine_needs_no_store(
    workbench: Workbench, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = workbench("prefetch", "quickstart")
    assert outcome.status == 0
    assert len(outcome.output.strip().splitlines()) == 1 and "nothing is read from the hub" in outcome.output
    assert workbench("prefetch", "quickstart-study").status == 0
    assert told(ROOT / "recipes" / "quickstart.yaml", store) == []
    assert not store.exists()


def test_a_run_to_start_from_that_is_not_there_yet_is_said_and_is_no_error(
    workbench: Workbench, tmp_path: Path, store: Path, hub: Hub, online: None
) -> None:
    recipe = write_recipe(tmp_path / "written", method={"name": "lora", "rank": 4, "init_from": "first"})
    outcome = workbench("prefetch", str(recipe), "--runs", str(tmp_path / "runs"))
    assert outcome.status == 0, outcome.output
    assert "to be trained first" in outcome.output and "first" in outcome.output


def test_a_cache_elsewhere_is_left_alone_and_said(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(store.parent / "elsewhere"))
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0, outcome.output
    assert f"it unset and HF_HOME={store}" in outcome.output
    assert told(recipe, store) == [] and not (store.parent / "elsewhere").exists()


def test_a_store_knows_its_reader_and_not_who_is_logged_in(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    made = stores.environment(Path("/cluster/store"))
    assert made["HF_HOME"] == "/cluster/store" and made["HF_DATASETS_CACHE"] == "/cluster/store/datasets"
    assert made["HF_HUB_CACHE"] is None and made["HF_TOKEN_PATH"] == str(store / "token")


# --- what is missing -------------------------------------------------------------------------------------------------


def gone(store: Path) -> None:
    in_store(store, BASE, "tokenizer.json").unlink()


def blob_gone(store: Path) -> None:
    in_store(store, BASE, "model.safetensors").resolve().unlink()


def cut(store: Path) -> None:
    path = in_store(store, ROWS, "data/train.jsonl").resolve()
    path.write_bytes(path.read_bytes()[:-5])


def no_receipt(store: Path) -> None:
    next((store / "prefetched").glob("dataset--tests--asked--*")).unlink()


def torn_receipt(store: Path) -> None:
    path = next((store / "prefetched").glob("dataset--tests--asked--*"))
    path.write_text(path.read_text()[:50])


def no_reference(store: Path) -> None:
    (store / "hub" / "datasets--tests--asked" / "refs" / "main").unlink()


@pytest.mark.parametrize(
    ("harm", "where", "found"),
    [
        (gone, "model tests/small@main", "lacks tokenizer.json"),
        (blob_gone, "model tests/small@main", "lacks model.safetensors"),
        (cut, "dataset tests/rows@main", "another size of data/train.jsonl"),
        (no_receipt, "dataset tests/asked@main", "there is no receipt"),
        (torn_receipt, "dataset tests/asked@main", "there is no receipt"),
        (no_reference, "dataset tests/asked@main", "was never prefetched"),
    ],
)
def test_what_a_store_lacks_is_named_and_the_same_command_mends_it(
    harm: Callable[[Path], None], where: str, found: str,
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None,
) -> None:  # fmt: skip
    assert workbench("prefetch", str(recipe)).status == 0
    harm(store)
    (line,) = told(recipe, store)
    assert where in line and found in line and "workbench prefetch RECIPE" in line
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0, outcome.output
    assert outcome.output.count("there, verified") >= 2
    assert told(recipe, store) == []


def test_a_base_that_was_fetched_without_weights_is_not_enough_for_a_pretrained_one(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    assert workbench("prefetch", str(recipe), *(word for one in SCRATCH for word in ("--set", one))).status == 0
    assert not any("model.safetensors" in path for path in hub.fetched())
    assert told(recipe, store, *SCRATCH) == []
    (line,) = told(recipe, store)
    assert "was prefetched without *.safetensors" in line
    assert workbench("prefetch", str(recipe)).status == 0
    assert told(recipe, store) == [] and told(recipe, store, *SCRATCH) == []


def test_a_part_of_a_snapshot_is_not_taken_for_the_whole(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub
) -> None:
    """As `hf download` or a run leaves it: offline, nobody can tell."""
    snapshot = store / "hub" / "models--tests--small" / "snapshots" / hub.repositories[BASE].main
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    references = store / "hub" / "models--tests--small" / "refs"
    references.mkdir()
    (references / "main").write_text(hub.repositories[BASE].main)
    assert any("is not known to be whole" in line for line in told(recipe, store))
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 2
    assert "is here in part or whole, which only the hub can tell" in outcome.output
    assert receipts(store) == {}


# --- damage ----------------------------------------------------------------------------------------------------------


def flip(path: Path) -> bytes:
    """Change one bit as a disk does: neither size nor time tells."""
    real, before = path.resolve(), path.stat()
    content = real.read_bytes()
    real.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    os.utime(real, ns=(before.st_atime_ns, before.st_mtime_ns))
    return content


@pytest.mark.parametrize(("repository", "name"), [(BASE, "model.safetensors"), (ROWS, "data/train.jsonl")])
def test_a_flipped_bit_is_found_and_the_file_fetched_again(
    repository: str, name: str, workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    assert workbench("prefetch", str(recipe)).status == 0
    whole = flip(in_store(store, repository, name))
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0, outcome.output
    assert outcome.output.count("damaged, fetched again") == 1 and outcome.output.count("there, verified") == 2
    assert in_store(store, repository, name).read_bytes() == whole


def test_damage_that_was_there_before_the_first_receipt_is_found_by_what_the_hub_says(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    assert workbench("prefetch", str(recipe)).status == 0
    shutil.rmtree(store / "prefetched")
    for repository, name in ((BASE, "model.safetensors"), (ROWS, "data/train.jsonl")):
        flip(in_store(store, repository, name))
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 0, outcome.output
    assert outcome.output.count("damaged, fetched again") == 2


def test_what_is_damaged_and_cannot_be_fetched_is_an_error_and_goes_away(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workbench("prefetch", str(recipe)).status == 0
    flip(in_store(store, BASE, "model.safetensors"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 2
    assert "model.safetensors was damaged" in outcome.output and "is removed" in outcome.output
    assert outcome.output.count("there, verified") == 2
    (line,) = told(recipe, store)
    assert "lacks model.safetensors" in line


def test_what_comes_changed_over_the_network_is_refused(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    hub.spoiled = {"model.safetensors", "data/train.jsonl"}
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 2
    assert outcome.output.count("is the same when it is fetched again") == 2
    assert [one["repository"] for one in receipts(store).values()] == ["tests/asked"]
    hub.spoiled = set()
    assert workbench("prefetch", str(recipe)).status == 0


# --- errors ----------------------------------------------------------------------------------------------------------


def test_every_input_that_cannot_be_had_is_told_at_once(
    workbench: Workbench, tmp_path: Path, store: Path, hub: Hub, online: None
) -> None:
    recipe = write_recipe(tmp_path / "written", base={"name": "tests/gated"}, data={"name": "typo"})
    card = {"format": "prompt_completion", "splits": {"train": {"files": "data/train.jsonl"}}}
    for name, source in (("typo", {"hub": "tests/rwos"}), ("asked", {"hub": "tests/asked", "revision": "v9"})):
        splits = {"test": {"files": "test.jsonl"}, **card["splits"]}
        path = recipe.parent / "datasets" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**card, "source": source, "splits": splits}))
    hub.add("models/tests/gated", {"config.json": b"{}"}, gated=True)
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 2
    assert "tests/gated@main: access needs the licence to be accepted" in outcome.output
    assert "accept it at huggingface.co/tests/gated" in outcome.output
    assert "tests/rwos@main: the hub has no such repository" in outcome.output
    assert "tests/asked@v9: the repository has no such revision" in outcome.output
    assert "Traceback" not in outcome.output
    assert (
        receipts(store) == {} and not list(store.glob("hub/*/snapshots/*/*")) and not list(store.rglob("*.incomplete"))
    )


def test_a_hub_that_is_down_is_told_in_words(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    hub.stop()
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 2
    assert outcome.output.count("is not on this machine and cannot be fetched") == 3
    assert "Traceback" not in outcome.output and receipts(store) == {}


def test_inputs_that_came_and_are_of_no_use_are_told(
    workbench: Workbench, recipe: Path, store: Path, hub: Hub, online: None
) -> None:
    files = dict(hub.repositories[BASE].commits[hub.repositories[BASE].main])
    hub.add(BASE, {name: content for name, content in files.items() if name != "tokenizer.json"})
    hub.add(ASKED, {"test.jsonl": b'{"prompt": "a"}\n', "train.jsonl": as_lines(questions(16))})
    outcome = workbench("prefetch", str(recipe))
    assert outcome.status == 2
    assert "has no tokenizer file" in outcome.output and "test.jsonl" in outcome.output
    assert outcome.output.count(" fetched") >= 3, "the table says what is there all the same"


def test_a_name_that_no_repository_can_have_is_told_in_words(
    workbench: Workbench, tmp_path: Path, store: Path, hub: Hub, online: None
) -> None:
    outcome = workbench("prefetch", str(write_recipe(tmp_path / "written", base={"name": "tests/a..b"})))
    assert outcome.status == 2
    assert "tests/a..b@main: is no name of a repository" in outcome.output


# --- the environment -------------------------------------------------------------------------------------------------


def test_the_hubs_cache_is_where_the_environment_says_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert the_hub.cache_folder() == Path("~/.cache/huggingface/hub").expanduser()
    assert not the_hub.is_offline()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert the_hub.cache_folder() == tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert the_hub.cache_folder() == tmp_path / "elsewhere"
    for word, offline in (("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("", False)):
        monkeypatch.setenv("HF_HUB_OFFLINE", word)
        assert the_hub.is_offline() is offline


# --- real processes --------------------------------------------------------------------------------------------------


def has_namespaces() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run(["unshare", "-rn", "true"], check=False).returncode == 0
    )


def arc() -> dict[str, bytes]:
    """A data set in the shape in which lm-evaluation-harness's task arc_easy reads its own."""
    splits = ("train", "validation", "test")
    configs = [{"config_name": "ARC-Easy", "data_files": [{"split": s, "path": f"ARC-Easy/{s}-*"} for s in splits]}]
    files = {"README.md": f"---\n{yaml.safe_dump({'configs': configs})}---\n".encode()}
    choices = {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}
    for split in splits:
        rows = [{"id": f"{split}-{at}", "question": f"{at}?", "choices": choices, "answerKey": "B"} for at in range(4)]
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), stream)
        files[f"ARC-Easy/{split}-00000-of-00001.parquet"] = stream.getvalue()
    return files


def command(before: Sequence[str], *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`workbench` as a process of its own."""
    left_out = ("HF_DATASETS_CACHE", "HF_HUB_OFFLINE")
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return subprocess.run(
        [*before, sys.executable, "-m", "workbench", *arguments],
        env={**kept, **environment}, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_without_a_network_finishes_on_what_was_prefetched(recipe: Path, store: Path, hub: Hub) -> None:
    """Real commands: on the login node, and on a node without any network; with a task of lm-evaluation-harness."""
    pytest.importorskip("lm_eval")
    suite = recipe.parent / "suites" / "asked.yaml"
    values = yaml.safe_load(suite.read_text())
    values["tasks"].append({"name": "lm_eval", "id": "arc", "task": "arc_easy", "max_items": 3})
    suite.write_text(yaml.safe_dump(values))
    hub.add("datasets/allenai/ai2_arc", arc())
    assert any("lm_eval arc_easy: was never prefetched" in line for line in told(recipe, store))

    done = command([], "prefetch", str(recipe), cwd=recipe.parent, HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" fetched") == 4
    hub.stop()
    assert told(recipe, store) == []
    alone = ["unshare", "-rn"] if has_namespaces() else []
    done = command(alone, "train", str(recipe), cwd=recipe.parent, HF_HUB_OFFLINE="1", HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (recipe.parent / "runs").glob("recipe-*")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["base"]["revision"] == hub.repositories[BASE].main
    assert manifest["data"]["revision"] == hub.repositories[ROWS].main
    assert "arc" in done.stdout and "asked" in done.stdout

    (receipt,) = (store / "prefetched").glob("lm_eval--arc_easy.json")
    made = json.loads(receipt.read_text())
    assert len(made["files"]) == 4 and len(made["datasets"]["arc_easy"]) == 3
    receipt.write_text(json.dumps({**made, "version": "0.0.1"}))
    (line,) = told(recipe, store)
    assert "was prefetched with lm-evaluation-harness 0.0.1" in line
    receipt.write_text(json.dumps(made))
    rows = next((store / "datasets").rglob("*-test.arrow"))
    rows.write_bytes(rows.read_bytes()[:-8])
    (line,) = told(recipe, store)
    assert "another size" in line and "ai2_arc-test.arrow" in line
    hub.start()
    done = command([], "prefetch", str(recipe), cwd=recipe.parent, HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("there, verified") == 3 and done.stdout.count("damaged, fetched again") == 1
    assert told(recipe, store) == []
