"""All files of an export, into one fresh directory: the result's forms, each judged, and what they say of
themselves."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench import bases, files, llama_cpp, saving, secrecy
from workbench.bases import Loading
from workbench.errors import BaseError, Problem
from workbench.evaluation.equivalence import Kind
from workbench.methods import merging, proof, results
from workbench.runs import exports, soundness
from workbench.worker.exporting import cards, ollama, report
from workbench.worker.exporting.comparing import Comparison, Form
from workbench.worker.exporting.facts import Facts
from workbench.worker.setup import Bench

_WEIGHTS = (".safetensors", ".gguf")
_LEGAL = ("LICENSE*", "NOTICE*", "USE_POLICY*")


class Making:
    """One export in the making.

    Args:
        folder: fresh and empty; it becomes the export.
    """

    def __init__(self, bench: Bench, asked: exports.Asked, folder: Path) -> None:
        self._bench, self._asked, self._folder = bench, asked, folder
        self._facts = Facts.of(bench.run, bench.resolved, bench.context)
        self._tokenizer = _as_trained(bench)
        self._loading = bench.loading
        self._adapted = results.is_adapter(bench.run.adapter)

    def go(self) -> None:
        """Write everything.

        Raises:
            MethodError: the result on the disk is not what was trained, or cannot be merged.
            RunError: the place cannot be written to, or llama.cpp refuses.
        """
        scratch = self._folder / "scratch"  # beside the result: the logits take gigabytes
        scratch.mkdir()
        comparison = Comparison(self._bench, scratch / "logits")
        if self._adapted:
            self._adapter()
        proved = self._take(comparison)
        if self._asked.merged and self._adapted:
            self._merge(comparison)
        done = []
        for form in list(self._forms()):  # all are written before the first is looked at
            self._bench.progress.say(f"comparing {form.name}")
            done.append(comparison.judge(form))
            gc.collect()  # a form is gone before the next one comes
        shutil.rmtree(scratch)
        self._write(report.words(self._facts, comparison, done, proved))

    # --- the forms ------------------------------------------------------------------------------------------------

    @property
    def _plain(self) -> str:
        """The folder of the plain model."""
        return "merged" if self._adapted else "model"

    def _adapter(self) -> None:
        target = self._folder / "adapter"
        target.mkdir()
        with saving.told(target):
            for name in soundness.proved_files(self._bench.run):  # and nothing that somebody else put there
                shutil.copyfile(self._bench.run.adapter / name, target / name)
            self._tokenizer.save_pretrained(str(target))
        path = target / "adapter_config.json"
        name, revision = self._facts.base_name, self._facts.resolved.base.revision
        files.write_json(path, files.read_json(path) | {"base_model_name_or_path": name, "revision": revision})

    def _take(self, comparison: Comparison) -> float:
        """The result as it is scored (an adapter: from the exported files); its distance from the trained model."""
        model = results.load(self._loading, self._folder / "adapter" if self._adapted else self._bench.run.adapter)
        rows, memory = proof.load_probe(self._bench.run.probe)
        proved = proof.prove_saved(memory, proof.logits(model, rows), None, self._loading.dtype)
        comparison.take(model)
        if not self._adapted:
            self._save_plain(model, merging.fp32_weights(model))
        return float(proved["saved_against_memory"])

    def _merge(self, comparison: Comparison) -> None:
        self._bench.progress.say("merging")
        rows, _ = proof.load_probe(self._bench.run.probe)
        merged = merging.merge(self._loading, self._folder / "adapter", rows, comparison.see_fp32)
        self._save_plain(merged.model, merged.whole)
        del merged
        gc.collect()

    def _save_plain(self, model: Any, whole: frozenset[str]) -> None:
        merging.export(model, self._tokenizer, self._folder / self._plain, self._loading.dtype, whole)

    def _forms(self) -> Iterator[Form]:
        """The forms beside the adapter; a GGUF file is written when its turn comes."""
        held = self._loading.quantization
        if not (self._folder / self._plain).exists():
            return
        afresh = replace(self._loading, directory=self._folder / self._plain, init="pretrained", quantization="none")
        own: Kind = "fp32" if afresh.dtype == "fp32" else "half"
        yield Form(self._plain, self._plain, own, lambda: bases.load_model(afresh))
        if held != "none":
            again = replace(afresh, quantization=held)
            yield Form(f"{self._plain}, held in {held} again", None, "coarser", lambda: bases.load_model(again))
        if self._asked.gguf is not None:
            yield self._gguf(self._asked.gguf, afresh)

    def _gguf(self, kind: str, afresh: Loading) -> Form:
        self._bench.progress.say(f"writing GGUF {kind}")
        path = self._folder / "gguf" / f"{self._facts.title}.{kind}.gguf"
        path.parent.mkdir()
        llama_cpp.convert(llama_cpp.find(kind), self._folder / self._plain, path, kind, self._facts.title)
        exact: Kind = "fp32" if afresh.dtype == "fp32" else "half"
        as_exact = kind == "f32" or (afresh.dtype != "fp32" and kind in llama_cpp.PLAIN)
        return Form(f"gguf {kind}", "gguf", exact if as_exact else "coarser", lambda: _read_gguf(path, afresh))

    # --- what they say of themselves ------------------------------------------------------------------------------

    def _write(self, words: dict[str, Any]) -> None:
        facts = self._facts
        for folder in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            for path in (path for pattern in _LEGAL for path in self._loading.directory.glob(pattern)):
                if path.is_file():
                    shutil.copyfile(path, folder / path.name)
            files.write_text(folder / "README.md", cards.card(facts, folder.name, words))
            if folder.name != "adapter":
                start = next((f"./{path.name}" for path in folder.glob("*.gguf")), ".")
                files.write_text(folder / "Modelfile", ollama.modelfile(facts, self._bench, start, folder))
        files.write_text(self._folder / "EQUIVALENCE.md", report.page(words))
        made = exports.made_from(self._bench.run, self._asked)
        files.write_json(
            self._folder / exports.REPORT, {**words, "made_from": made, "files": exports.contents(self._folder)}
        )
        texts = (path for path in self._folder.rglob("*") if path.is_file() and path.suffix not in _WEIGHTS)
        secrecy.refuse(sorted(texts), lambda path: path.relative_to(self._folder).as_posix())


def _as_trained(bench: Bench) -> Any:
    """The tokenizer; where the recipe brought a template of its own, with that."""
    if bench.resolved.recipe.data.template in ("base", "plain"):
        return bench.tokenizer
    made = copy.deepcopy(bench.tokenizer)
    made.chat_template = bench.template
    return made


def _read_gguf(path: Path, loading: Loading) -> Any:
    """A GGUF file as transformers reads it, with the merged model's configuration: weights dequantised to fp32.

    Raises:
        BaseError: it does not know the architecture, or reads it wrongly.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar that nothing else turns off
            return bases.load_model(replace(loading, gguf=path, dtype="fp32"))
    except BaseError as error:
        found = error.problems[0].found.replace(str(path), path.name)
        raise BaseError(Problem(path.name, f"transformers cannot read the file: {found}")) from error
