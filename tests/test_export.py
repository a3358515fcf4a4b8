"""Exports: the forms of a result are held against each other, wrong ones are caught, and what is written is whole, says
what it is, and gives nothing away."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from conftest import Outcome
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from small_recipes import Workbench, questions, train, write_recipe
from transformers import AutoTokenizer

from workbench import bases, files, llama_cpp
from workbench.bases import Loading
from workbench.catalog.bases import bases as catalog_bases
from workbench.errors import BaseError, EvaluationError, RunError
from workbench.evaluation import agreement, equivalence, passages
from workbench.evaluation.agreement import Agreement, Asked
from workbench.evaluation.equivalence import Reference
from workbench.methods import merging, results
from workbench.methods.apply import apply
from workbench.progress import Progress
from workbench.recipe.schema import Ia3, Lora, Oft, Qlora, Vera
from workbench.recipe.section import Section
from workbench.runs import exports
from workbench.runs.run import Run
from workbench.worker.exporting.facts import Facts

METHODS: dict[str, Section] = {
    "lora": Lora(rank=4, alpha=8.0),
    "dora": Lora(rank=4, alpha=8.0, variant="dora"),
    "rslora": Lora(rank=4, alpha=8.0, variant="rslora"),
    "pissa": Lora(rank=4, alpha=8.0, variant="pissa"),
    "vera": Vera(rank=16),
    "oft": Oft(block_size=16),
    "ia3": Ia3(),
    "qlora": Qlora(rank=4, alpha=8.0),
}
ALLOWED = {
    "llama": ("lora", "dora", "rslora", "pissa", "vera", "oft", "ia3", "qlora"),
    "qwen3": ("lora", "dora", "rslora", "pissa", "vera", "oft", "ia3", "qlora"),
    "qwen3_moe": ("lora", "dora", "rslora", "pissa", "qlora"),
    "deepseek_v3": ("lora", "rslora", "qlora"),
}
"""Where each method may be used (decisions, points 16 and 19)."""
TEXT = "Once upon a time there was a little girl named Lily. She loved to play with her red ball in the park. " * 4


class Bench:
    """A base with an adapter of random weights in a folder, and the token rows that its forms are asked about."""

    def __init__(self, base: Path, method: Section, folder: Path, dtype: str = "fp32") -> None:
        self.loading = Loading(base, dtype=dtype, quantization=getattr(method, "quantization", "none"))
        self.adapter, self.merged, self.path = folder / "adapter", folder / "merged", folder / "logits"
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        ids = self.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        self.rows = [ids[at : at + 24] for at in range(0, len(ids) - 24, 24)]
        self.asked = Asked(self.rows, 0, 4, Progress())
        self._train(method, folder)
        self.floor: Agreement | None = None
        model = results.load(self.loading, self.adapter)
        agreement.record(model, self.asked, self.path, "adapter")
        with model.disable_adapter():
            self.effect = self.against(model)

    def _train(self, method: Section, folder: Path) -> None:
        model = apply(bases.load_model(self.loading), method, seed=0)
        pissa = getattr(method, "variant", "") == "pissa"
        if pissa:
            results.save_pissa_start(model, folder / "start")
        noise = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight += (0.05 * torch.randn(weight.shape, generator=noise)).to(weight.dtype)
        results.save(model, self.tokenizer, self.adapter, folder / "start" if pissa else None)

    def against(self, model: Any) -> Agreement:
        return agreement.compare(model, self.asked, self.path, "form")

    def fold(self, spoil: Callable[[Any], None] = lambda model: None) -> Agreement:
        """Merge, spoil, write, load again, compare."""
        made = merging.merge(self.loading, self.adapter, self.rows[:2], self._see)
        spoil(made.model)
        merging.export(made.model, self.tokenizer, self.merged, self.loading.dtype, made.whole)
        return self.against(bases.load_model(replace(self.loading, directory=self.merged, quantization="none")))

    def _see(self, model: Any) -> None:
        if self.loading.dtype != "fp32":
            self.floor = self.against(model)

    def judge(self, found: Agreement) -> equivalence.Judged:
        kind: equivalence.Kind = "fp32" if self.loading.dtype == "fp32" else "half"
        return equivalence.judge(kind, found, Reference(self.effect, self.floor), [])


# --- forms that agree, and forms that do not -------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in ALLOWED.items() for name in names])
def test_merged_and_adapter_are_one_model(
    family: str, name: str, family_base: Callable[[str], Path], tmp_path: Path
) -> None:
    bench = Bench(family_base(family), METHODS[name], tmp_path)
    found = bench.fold()
    assert found.agreement == 1.0 and found.largest_lead == 0.0
    assert found.mean_kl < 1e-11 and found.mean_kl < 1e-3 * bench.effect.mean_kl
    assert found.tokens == sum(map(len, bench.rows))
    assert bench.judge(found).passed


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["lora", "dora", "rslora", "pissa", "vera", "ia3", "qlora"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_merged_and_adapter_are_one_model_on_a_base_that_learnt_something(
    name: str, dtype: str, stories: Path, tmp_path: Path
) -> None:
    bench = Bench(stories, METHODS[name], tmp_path, dtype)
    found = bench.fold()
    judged = bench.judge(found)
    assert judged.passed, judged
    if dtype == "fp32":
        assert found.mean_kl < 1e-9 and found.agreement == 1.0
    else:  # a rounding of the weights more: as far as the arithmetic's own rounding, not further
        assert bench.floor is not None and 0 < found.mean_kl < 4 * bench.floor.mean_kl


@pytest.mark.shared_data
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_holding_a_merged_model_in_4_bits_again_is_another_model(dtype: str, stories: Path, tmp_path: Path) -> None:
    bench = Bench(stories, METHODS["qlora"], tmp_path, dtype)
    assert bench.judge(bench.fold()).passed
    again = bench.against(bases.load_model(replace(bench.loading, directory=bench.merged)))
    assert again.mean_kl > 0.01 and again.agreement < 0.95
    assert not bench.judge(again).passed
    assert not equivalence.judge("coarser", again, Reference(bench.effect, bench.floor), []).passed


def rescaled(model: Any, adapter: Path, factor: float) -> None:
    """The merged model as if the adapter's scale were another one."""
    base, tuned = (dict(one.named_parameters()) for one in (bases.load_model(Loading(adapter)), model))
    for name, weight in tuned.items():
        weight.data = base[name].data + factor * (weight.data - base[name].data)


@pytest.mark.shared_data
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", ["scale", "one layer", "swapped", "base"])
def test_a_wrong_merge_is_caught(fault: str, dtype: str, stories: Path, tmp_path: Path) -> None:
    bench = Bench(stories, METHODS["rslora"], tmp_path, dtype)
    plain = dict(bases.load_model(bench.loading).named_parameters())
    layer = "model.layers.2.mlp.up_proj.weight"

    def spoil(model: Any) -> None:
        weights = dict(model.named_parameters())
        if fault == "scale":  # alpha / rank in place of alpha / sqrt(rank): half of it at rank 4
            rescaled(model, bench.loading.directory, 0.5)
        elif fault == "one layer":
            weights[layer].data = plain[layer].data.float().clone()
        elif fault == "swapped":
            one, other = (weights[f"model.layers.{at}.self_attn.q_proj.weight"] for at in (1, 2))
            one.data, other.data = other.data.clone(), one.data.clone()
        else:
            rescaled(model, bench.loading.directory, 0.0)

    found = bench.fold(spoil)
    judged = bench.judge(found)
    assert not judged.passed
    assert "above" in judged.reasons[0]


def test_a_model_that_gives_no_numbers_is_refused(small_base: Path, tmp_path: Path) -> None:
    bench = Bench(small_base, METHODS["lora"], tmp_path)
    model = bases.load_model(bench.loading)
    model.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(EvaluationError, match="not finite"):
        bench.against(model)


def test_divergence_is_that_of_the_formula(small_base: Path, tmp_path: Path) -> None:
    """Row by row with plain torch, without padding or files."""
    bench = Bench(small_base, METHODS["lora"], tmp_path)
    ours, theirs = results.load(bench.loading, bench.adapter), bases.load_model(bench.loading)
    total, largest, same, tokens = 0.0, 0.0, 0, 0
    for row in bench.rows:
        with torch.no_grad():
            p, q = (torch.log_softmax(m(torch.tensor([row])).logits[0].double(), -1) for m in (ours, theirs))
        kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        total, largest = total + float(kl.sum()), max(largest, float(kl.max()))
        same, tokens = same + int((p.argmax(-1) == q.argmax(-1)).sum()), tokens + len(row)
    assert bench.effect.mean_kl == pytest.approx(total / tokens, rel=1e-4)
    assert bench.effect.largest_kl == pytest.approx(largest, rel=1e-4)
    assert bench.effect.agreement == same / tokens and bench.effect.tokens == tokens


# --- scores ----------------------------------------------------------------------------------------------------------


def rows_of(values: list[float]) -> list[dict[str, Any]]:
    return [
        {"task": "t", "id": str(at), "cluster": str(at), "value": value, "weight": 1.0}
        for at, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("metric", "ours", "theirs", "word"),
    [
        ("exact_match", [1.0, 0.0] * 200, [1.0, 0.0] * 200, "equivalent"),
        ("exact_match", [1.0, 0.0] * 5, [1.0, 0.0] * 5, "unresolved"),  # ten answers exclude nothing
        ("exact_match", [1.0] * 100, [1.0] * 80 + [0.0] * 20, "different"),
        ("bits_per_byte", [1.0, 1.2] * 50, [1.001, 1.201] * 50, "equivalent"),  # proved, and too small to matter
        ("bits_per_byte", [1.0, 1.2] * 50, [1.1, 1.31] * 50, "different"),
    ],
)
def test_scores_are_equivalent_only_within_the_margin(
    metric: str, ours: list[float], theirs: list[float], word: str
) -> None:
    found = equivalence.differences(rows_of(ours), rows_of(theirs), {"t": {"metric": metric}})
    assert [one.word for one in found] == [word]
    assert found[0].difference == pytest.approx(sum(theirs) / len(theirs) - sum(ours) / len(ours))


def test_a_coarser_form_needs_a_proof_and_an_exact_one_no_more_items() -> None:
    near, far = Agreement(100, 1.0, 1e-9, 1e-8, 0.0), Agreement(100, 0.9, 0.05, 0.5, 0.3)
    reference = Reference(Agreement(100, 0.5, 1.0, 3.0, 2.0), None)
    few = equivalence.differences(rows_of([1.0] * 10), rows_of([1.0] * 10), {"t": {"metric": "exact_match"}})
    many = equivalence.differences(rows_of([1.0] * 300), rows_of([1.0] * 300), {"t": {"metric": "exact_match"}})
    other = equivalence.differences(rows_of([1.0] * 300), rows_of([0.0] * 300), {"t": {"metric": "exact_match"}})
    assert equivalence.judge("fp32", near, reference, few).passed
    assert not equivalence.judge("fp32", far, reference, many).passed
    assert not equivalence.judge("coarser", far, reference, few).passed
    assert equivalence.judge("coarser", far, reference, many).passed
    assert not equivalence.judge("coarser", near, reference, other).passed
    assert "no suite" in equivalence.judge("coarser", far, reference, []).reasons[-1]


def test_logits_of_a_large_vocabulary_do_not_fill_the_disk() -> None:
    for vocabulary in (512, 32_000, 151_936, 262_144):
        assert passages.budget(vocabulary) * vocabulary * 4 <= passages.MOST_BYTES
    assert passages.budget(512) == passages.MOST_TOKENS


# --- the verb --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, small_base: Path) -> Path:
    """A folder with a suite, whose runs and exports the tests below share."""
    folder = tmp_path_factory.mktemp("export")
    write_recipe(folder, small_base, questions(40), evaluation={"suite": "./asked.yaml"})
    card = yaml.safe_load((folder / "datasets" / "rows.yaml").read_text())
    card["splits"]["test"] = {"files": "../rows/test.jsonl"}
    (folder / "datasets" / "rows.yaml").write_text(yaml.safe_dump(card))
    asked = [row | {"prompt": "and " + row["prompt"]} for row in questions(40)]
    (folder / "rows" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    tasks = [
        {"name": "generate", "id": "answers", "data": "rows", "max_new_tokens": 8},
        {"name": "choice", "id": "picks", "data": "rows", "primary": "answer_bits_per_byte"},
    ]
    (folder / "asked.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    return folder


def trained(workbench: Workbench, room: Path, *settings: str) -> Run:
    return train(workbench, room / "small.yaml", room / "runs", *settings)


def export(workbench: Workbench, run: Run, *more: str) -> tuple[Outcome, Path]:
    outcome = workbench("export", run.name, "--runs", str(run.path.parent), *more)
    out = Path(more[more.index("--out") + 1]) if "--out" in more else run.path.parent / "exports" / run.name
    return outcome, out


def snippet(card: Path) -> str:
    return re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)[0]


def executed(code: str, folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a snippet leaves, run in its card's folder."""
    script = scratch / "snippet.py"
    script.write_text(code)
    monkeypatch.chdir(folder)
    return runpy.run_path(str(script))


def test_an_export_is_whole_says_what_it_is_and_can_be_loaded(
    workbench: Workbench, room: Path, small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secretsecretsecretsecretsecretsecret1234")
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecretsecret")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password netrcsecretnetrcsecret\n")
    run = trained(workbench, room)
    outcome, out = export(workbench, run)
    assert outcome.status == 0, outcome.output
    assert re.search(r"merged +100\.00% .*pass", outcome.output) and "licence is UNKNOWN" in outcome.output
    report = files.read_json(out / exports.REPORT)
    assert report["verdict"] == "pass" and report["compared"]["suite"] == "asked"
    assert [one["form"] for one in report["forms"]] == ["merged"]
    assert {one["task"] for one in report["forms"][0]["differences"]} == {"answers", "picks"}
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert {"adapter/README.md", "adapter/adapter_model.safetensors", "merged/model.safetensors", "merged/Modelfile",
            "merged/README.md", "EQUIVALENCE.md", "equivalence.json"} <= set(names)  # fmt: skip
    assert report["files"].keys() == set(names) - {"equivalence.json"}
    for name in names:
        content = (out / name).read_bytes()
        for word in ("secretsecret", str(room), str(small_base), "netrcsecret", ".tmp-"):
            assert word.encode() not in content, (name, word)
    config = files.read_json(out / "adapter" / "adapter_config.json")
    assert config["base_model_name_or_path"] == small_base.name

    for folder, library in (("adapter", "peft"), ("merged", "transformers")):
        card = ModelCard.load(out / folder / "README.md", ignore_metadata_errors=False)
        assert card.data.library_name == library and card.data.license == "unknown"
        assert {one.dataset_config for one in card.data.eval_results} == {"answers", "picks"}
        for word in ("UNKNOWN", "mean KL", "PASS", "FLOPs", "places moved", "method:", "95 % interval", "its base"):
            assert word in card.content, word
    base_score = card.content[card.content.index("| asked/answers") :].splitlines()[0]
    assert "not scored" not in base_score
    (out / "adapter" / small_base.name).symlink_to(small_base)
    try:
        left = executed(snippet(out / "adapter" / "README.md"), out / "adapter", tmp_path, monkeypatch)
    finally:
        (out / "adapter" / small_base.name).unlink()
    assert isinstance(left["model"], peft.PeftModel)
    plain = executed(snippet(out / "merged" / "README.md"), out / "merged", tmp_path, monkeypatch)
    assert torch.equal(left["made"], plain["made"])


def test_a_second_export_finds_the_first_and_replaces_another(workbench: Workbench, room: Path) -> None:
    run = trained(workbench, room)
    _, out = export(workbench, run)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    outcome, _ = export(workbench, run)
    assert outcome.status == 0 and "is exported already" in outcome.output and "pass" in outcome.output
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    (out / "merged" / "model.safetensors").unlink()
    outcome, _ = export(workbench, run)
    assert outcome.status == 0 and "already" not in outcome.output
    assert (out / "merged" / "model.safetensors").stat().st_size > 1000
    outcome, _ = export(workbench, run, "--adapter-only")
    assert outcome.status == 0, outcome.output
    assert not (out / "merged").exists() and files.read_json(out / exports.REPORT)["forms"] == []


def test_what_no_export_wrote_is_left_alone(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    run = trained(workbench, room)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    outcome, _ = export(workbench, run, "--out", str(mine))
    assert outcome.status == 2 and "is no export" in outcome.output
    _, out = export(workbench, run, "--out", str(tmp_path / "out"), "--adapter-only")
    (out / "notes.txt").write_text("mine")
    outcome, _ = export(workbench, run, "--out", str(out))
    assert outcome.status == 2 and "notes.txt" in outcome.output and (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    card = out / "adapter" / "README.md"
    card.write_text(card.read_text() + "\n## What I found\n")
    outcome, _ = export(workbench, run, "--out", str(out))
    assert outcome.status == 2 and "adapter/README.md" in outcome.output and "What I found" in card.read_text()


def test_only_what_the_run_wrote_is_shipped(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    run = trained(workbench, room)
    (run.adapter / ".env").write_text("HF_TOKEN=hf_planted")
    try:
        (tmp_path / "larger").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "larger")
        outcome, out = export(workbench, run, "--out", str(tmp_path / "link"), "--adapter-only")
    finally:
        (run.adapter / ".env").unlink()
    assert outcome.status == 0, outcome.output
    assert (tmp_path / "link").is_symlink()
    found = [path for path in out.rglob("*") if path.is_file()]
    assert {path.name for path in found} >= {"adapter_model.safetensors", "README.md"}
    assert ".env" not in {path.name for path in found}
    assert {path.stat().st_mode & 0o777 for path in found} == {(tmp_path / "larger").stat().st_mode & 0o666}


def test_a_secret_in_the_recipe_does_not_leave_in_a_card(
    workbench: Workbench, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(workbench, room, "data.system=the cat says hf_planted_in_words", "evaluation.base=false")
    monkeypatch.setenv("HF_TOKEN", "hf_planted_in_words")
    outcome, out = export(workbench, run, "--adapter-only")
    assert outcome.status == 2 and "adapter/README.md: holds a secret" in outcome.output, outcome.output
    assert "hf_planted" not in outcome.output and not out.exists()


def test_a_base_that_changed_since_is_told(workbench: Workbench, room: Path, small_base: Path, tmp_path: Path) -> None:
    shutil.copytree(small_base, tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    files.write_json(path, files.read_json(path) | {"rms_norm_eps": 1e-4})  # another base than other tests train
    run = trained(workbench, room, f"base.name={tmp_path / 'base'}", "evaluation.base=false")
    files.write_json(path, files.read_json(path) | {"rms_norm_eps": 0.1})
    outcome, out = export(workbench, run)
    assert outcome.status == 2 and "changed since the run was made: the base's files" in outcome.output
    assert not out.exists()


def test_what_cannot_be_exported_is_said_before_anything_starts(
    workbench: Workbench, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(workbench, room)
    half = Run(tmp_path / "half" / run.name)
    shutil.copytree(run.path, half.path)
    half.status.unlink()
    outcome, out = export(workbench, half)
    assert outcome.status == 2 and "is not finished" in outcome.output and not out.exists()
    base = next(run.path.parent.glob("base-*"))
    outcome, _ = export(workbench, Run(base))
    assert outcome.status == 2 and "nothing to export" in outcome.output
    monkeypatch.delenv(llama_cpp.CHECKOUT, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome, _ = export(workbench, run, "--gguf", "q8_0")
    assert outcome.status == 2 and "convert_hf_to_gguf.py" in outcome.output and "LLAMA_CPP" in outcome.output
    outcome, _ = export(workbench, run, "--gguf", "q8")
    assert outcome.status == 2 and "did you mean 'q8_0'" in outcome.output
    outcome, _ = export(workbench, run, "--gguf", "")
    assert outcome.status == 2 and "--gguf" in outcome.output
    outcome, _ = export(workbench, run, "--out", str(run.adapter / "mine"))
    assert outcome.status == 2 and "in the run's own directory" in outcome.output
    outcome, _ = export(workbench, run, "--gguf", "q8_0", "--adapter-only")
    assert outcome.status == 2 and "merged model" in outcome.output


def test_a_form_that_fails_is_shipped_loudly(
    workbench: Workbench, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(workbench, room)
    honest = merging.export

    def wrong(model: Any, *more: Any) -> None:
        model.model.layers[1].mlp.up_proj.weight.data.mul_(1.1)
        honest(model, *more)

    monkeypatch.setattr(merging, "export", wrong)
    for _ in range(2):  # found again, it still fails
        outcome, out = export(workbench, run, "--out", str(tmp_path / "out"))
        assert outcome.status == 3 and re.search(r"FAIL merged: mean KL .* above", outcome.output), outcome.output
    for name in ("EQUIVALENCE.md", "merged/README.md", "adapter/README.md"):
        assert "**FAIL: merged" in (out / name).read_text(), name


def test_a_place_that_cannot_be_written_to(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    run = trained(workbench, room)
    (tmp_path / "file").write_text("")
    outcome, _ = export(workbench, run, "--out", str(tmp_path / "file" / "out"))
    assert outcome.status == 2 and "cannot be written" in outcome.output
    assert "Traceback" not in outcome.output


_LIMITED = """
import resource, signal, sys
from workbench.worker import export
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
sys.exit(export.main())
"""


def bench_process(code: str, run: Run, out: Path) -> subprocess.Popen[str]:
    line = [sys.executable, *(["-c", code] if code else ["-m", "workbench.worker.export"])]
    return subprocess.Popen(
        [*line, str(run.path), str(out), "{}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half(workbench: Workbench, room: Path, tmp_path: Path) -> None:
    run = trained(workbench, room)
    process = bench_process(_LIMITED, run, tmp_path / "place" / "out")
    said, _ = process.communicate()
    assert process.returncode == 2 and "cannot be written" in said and "Traceback" not in said, said
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_export_leaves_nothing_half(
    number: signal.Signals, workbench: Workbench, room: Path, tmp_path: Path
) -> None:
    run = trained(workbench, room)
    place = tmp_path / "place"
    process = bench_process("", run, place / "out")
    while not list(place.glob(".out.tmp-*/scratch")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else 75) and "stopped" in said, said
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "forms", "folders"),
    [
        (("method={name: qlora, rank: 4}",), {"merged", "merged, held in nf4 again"}, {"adapter", "merged"}),
        (("training.precision=bf16",), {"merged"}, {"adapter", "merged"}),
        (("method={name: full}",), {"model"}, {"model"}),
        (("method={name: full}", "base.init=random", "training.precision=bf16"), {"model"}, {"model"}),
        (("method={name: lora, rank: 4, variant: pissa}", "evaluation.suite=null"), {"merged"}, {"adapter", "merged"}),
    ],
)
def test_every_kind_of_result_is_exported(
    workbench: Workbench, room: Path, tmp_path: Path, settings: tuple[str, ...], forms: set[str], folders: set[str]
) -> None:
    run = trained(workbench, room, *settings)
    outcome, out = export(workbench, run, "--out", str(tmp_path / "out"))
    assert outcome.status == 0, outcome.output
    report = files.read_json(out / exports.REPORT)
    assert {one["form"] for one in report["forms"]} == forms
    assert {path.name for path in out.iterdir() if path.is_dir()} == folders
    if "model" in folders:
        assert report["forms"][0]["mean_kl"] == 0.0 and report["forms"][0]["agreement"] == 1.0
    if "evaluation.suite=null" in settings:
        assert "the run has no suite" in report["compared"]["source"]
    for card in out.glob("*/README.md"):
        ast.parse(snippet(card))
    if run.resolved().dtype == "bf16":
        weights = next(out.glob("m*/model.safetensors"))
        assert {str(value.dtype) for value in load_file(weights).values()} == {"torch.bfloat16"}


# --- licences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "title", "said"),
    [
        ("llama-3.2-1b-instruct", "Llama-small", ('must begin with "Llama"', "Built with Llama")),
        ("deepseek-r1-distill-llama-8b", "Llama-small", ("Built with Llama",)),
        ("qwen3-0.6b", "small", ()),
    ],
)
def test_what_follows_from_a_licence(
    workbench: Workbench, room: Path, base: str, title: str, said: tuple[str, ...]
) -> None:
    run = trained(workbench, room)
    facts = Facts.of(run, run.resolved(), 512)
    row = catalog_bases()[base]
    named = facts.resolved.base.model_copy(
        update={"kind": "hub", "location": row.hub, "row": row.name, "revision": "a" * 40, "licence": row.licence}
    )
    facts = replace(facts, resolved=facts.resolved.model_copy(update={"base": named}), licences=row.licences())
    assert facts.title.startswith(title)
    notes = " ".join(facts.notes())
    assert all(words in notes for words in said) and ("UNKNOWN" in notes) == ("rows" in notes)
    assert facts.base_name == row.hub and f"name: {row.hub}" in facts.recipe()


# --- GGUF ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def converter() -> None:
    try:
        llama_cpp.find("q8_0")
    except RunError:
        pytest.skip(f"no llama.cpp: {llama_cpp.CHECKOUT} names no checkout")


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_gguf_file_is_read_back_and_judged(
    workbench: Workbench, converter: None, stories: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, stories, questions(), data={"name": "rows", "template": "plain"})
    run = train(workbench, recipe, tmp_path / "runs")
    for kind, least in (("f32", 1.0), ("q8_0", 0.9)):
        outcome, out = export(workbench, run, "--gguf", kind)
        report = files.read_json(out / exports.REPORT)
        one = report["forms"][-1]
        assert one["form"] == f"gguf {kind}" and one["agreement"] >= least, outcome.output
        assert outcome.status == (3 if one["verdict"] == "fail" else 0)
        assert list((out / "gguf").glob("*.gguf")) and "FROM ./" in (out / "gguf" / "Modelfile").read_text()


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen3_moe", "deepseek_v3"])
def test_gguf_files_of_other_architectures(
    family: str, converter: None, family_base: Callable[[str], Path], tmp_path: Path
) -> None:
    bench = Bench(family_base(family), METHODS["lora"], tmp_path)
    bench.fold()
    for kind, most in (("f32", 1e-12), ("q8_0", 1e-5)):
        path = tmp_path / f"{kind}.gguf"
        llama_cpp.convert(llama_cpp.find(kind), bench.merged, path, kind, "tiny")
        read = replace(bench.loading, directory=bench.merged, gguf=path)
        if family == "deepseek_v3":  # llama.cpp knows it, transformers' reader does not
            with pytest.raises(BaseError, match="not supported"):
                bases.load_model(read)
        else:
            assert bench.against(bases.load_model(read)).mean_kl < most


def test_what_llama_cpp_says_when_it_refuses_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(llama_cpp.CHECKOUT, str(tmp_path))
    (tmp_path / "convert_hf_to_gguf.py").write_text("raise NotImplementedError('no such tokenizer')")
    tools = llama_cpp.find("q8_0")
    assert tools.quantizer is None
    with pytest.raises(RunError, match="no such tokenizer"):
        llama_cpp.convert(tools, tmp_path, tmp_path / "out.gguf", "q8_0", "tiny")
    with pytest.raises(RunError, match=r"(?s)llama-quantize is neither .* cmake"):
        llama_cpp.find("q4_k_m")
    (tmp_path / "build" / "bin").mkdir(parents=True)
    (tmp_path / "build" / "bin" / "llama-quantize").write_text("")
    assert llama_cpp.find("q4_k_m").quantizer == tmp_path / "build" / "bin" / "llama-quantize"
