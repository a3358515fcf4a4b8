"""A whole run in miniature: first what can be found out about the real one without a step, over all its rows and items;
then every stage on the base's twin, by the same worker as the real run's."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.data.prepare import Prepared
from workbench.errors import EvaluationError, Problem
from workbench.evaluation import asking
from workbench.methods import merging, proof, results
from workbench.plan import steps
from workbench.progress import Progress
from workbench.recipe import pin
from workbench.recipe.resolved import Resolved
from workbench.runs import create
from workbench.runs.run import Run
from workbench.worker import disk, inspection, miniature, scoring, watching
from workbench.worker.setup import Bench, rows_of, set_up
from workbench.worker.stage_lines import Lines


class Rehearsal:
    """One recipe, its runs' root, and a folder to rehearse in."""

    def __init__(self, resolved: Resolved, root: Path, folder: Path, progress: Progress) -> None:
        self.resolved, self.root, self.folder, self.progress = resolved, root, folder, progress
        self.lines = Lines(progress)
        self.bench: Bench | None = None
        """The real base's tokenizer and context; with the suite's items once they are read."""
        self.model: Any = None
        """The real base at its real widths, without weights; with the method on it."""
        self.layers: list[str] = []
        self.prepared: Prepared | None = None

    def go(self) -> bool:
        """All stages; whether every one ended well."""
        began = time.monotonic()
        self._inspect()
        if self.lines.failed:
            self.lines.skip("the run", "not rehearsed on the base's twin before what stands above is mended")
        else:
            self._run()
        seconds = time.monotonic() - began
        failed = ", ".join(self.lines.failed)
        self.progress.say(f"failed in {failed}, after {seconds:.0f} s" if failed else f"rehearsed in {seconds:.0f} s")
        return not failed

    # --- the real run, without a step -----------------------------------------------------------------------------

    def _inspect(self) -> None:
        lines = self.lines
        lines.attempt("runs folder", self._place)
        self.bench = lines.attempt("tokenizer", self._set_up)
        if self.bench is None:
            return
        self.model = lines.attempt("base", self._base)
        self.bench = lines.attempt("items", self._items) or self.bench
        if self.resolved.trains:
            if self.model is not None:
                self.model = lines.attempt("method", self._method)
            self.prepared = lines.attempt("rows", self._rows)
            if not lines.failed:
                lines.attempt("disk", self._disk)

    def _place(self) -> None:
        inspection.writable(self.root)
        self.lines.note = inspection.free_note(self.root)

    def _set_up(self) -> Bench:
        """Tokenizer, template and context of the real base; its weights are not needed and not fetched."""
        light = pin.without_weights(self.resolved)
        bench = set_up(Run(self.folder), light, None, self.progress)
        loading = replace(bench.loading, init=self.resolved.recipe.base.init)
        self.lines.note = f"{len(bench.tokenizer):,} tokens, context {bench.context:,}"
        return replace(bench, resolved=self.resolved, loading=loading)

    def _base(self) -> Any:
        loading = self._ready.loading
        model = inspection.shape_of(loading, self.resolved)
        size = sum(weight.numel() for weight in model.parameters())
        missing = loading.init == "pretrained" and not inspection.has_weights(loading)
        self.lines.note = f"{size:,} parameters" + ("; its weights are not on this machine yet" if missing else "")
        return model

    def _items(self) -> Bench:
        """Every item of the suite, asked as its scoring asks."""
        suite = self.resolved.suite
        if suite is None:
            self.lines.note = "no suite"
            return self._ready
        read = set_up(Run(self.folder), pin.without_weights(self.resolved), suite, self.progress)
        bench = replace(self._ready, suite=suite, items=read.items, template=read.template)
        scorers = scoring.scorers(bench, None)
        problems: list[Problem] = []
        for one in bench.items:
            try:
                asking.check(one, Path(suite.folder), scorers[one.task.id])
            except EvaluationError as error:
                problems.extend(error.problems)
        if problems:
            raise EvaluationError(problems)
        self.lines.note = f"{sum(len(one.items) for one in bench.items):,} in {len(bench.items)} tasks"
        return bench

    def _method(self) -> Any:
        self.layers = inspection.layers(self.model, self.resolved)
        model = inspection.applied(self.model, self.resolved)
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        self.lines.note = f"{self.resolved.recipe.method.name} trains {trained:,} parameters"
        return model

    def _rows(self) -> Prepared:
        """All rows, by the real tokenizer; the real run finds them in the cache."""
        prepared = rows_of(self._ready)
        account = prepared.account
        self.lines.note = (
            f"{account['rows_in']:,} rows, {account['examples']:,} examples, longest {account['longest_tokens']:,} "
            f"of {self._ready.context:,} tokens"
        )
        return prepared

    def _disk(self) -> None:
        assert self.prepared is not None
        training = self.resolved.recipe.training
        num_examples = len(self.prepared.rows)
        length = steps.length(num_examples, training.batch_size, training.epochs, training.steps)
        room = disk.planned(self._ready, self.model, length.steps)
        disk.check(room, inspection.existing(self.root))
        self.lines.note = f"{disk.shown(room.needed_bytes)} needed for {length.steps:,} steps"

    @property
    def _ready(self) -> Bench:
        assert self.bench is not None, "asked for after the tokenizer only"
        return self.bench

    # --- the same on the twin -------------------------------------------------------------------------------------

    def _run(self) -> None:
        lines, resolved = self.lines, self.resolved
        run = lines.attempt("twin", self._twin)
        if run is None:
            return
        small, suite = run.resolved(), resolved.suite.name if resolved.suite else None
        if not resolved.trains:
            assert suite is not None, "a rule"
            watching.follow(run, self.folder, [("evaluate", run.results(suite).exists)], lines, kill=False)
            return
        base = suite is not None and resolved.recipe.evaluation.base and resolved.recipe.base.init == "pretrained"
        if not watching.follow(run, self.folder, watching.first_half(run, base), lines, kill=True):
            return
        if not watching.follow(run, self.folder, watching.second_half(run, suite), lines, kill=False):
            return
        self._merge_and_export(run, small)

    def _twin(self) -> Run:
        rows = self.prepared.rows if self.prepared else None
        small = miniature.make(self._ready, rows, self.layers, self.folder / "twin")
        small, contents = pin.pin(small)
        run = create.open_run(self.folder / "runs", small, contents)
        notes = [f"{small.dtype} on {small.target.device}"]
        if small.target.device != self.resolved.target.device:
            notes.append(f"this machine has no {self.resolved.target.device}")
        if getattr(self.resolved.recipe.method, "init_from", None):
            notes.append("init_from is left out: it does not fit the twin")
        self.lines.note = ", ".join(notes)
        return run

    def _merge_and_export(self, run: Run, small: Resolved) -> None:
        """The adapter folded into the twin, the whole written as a plain model and loaded again."""
        loading = set_up(run, small, None, self.progress).loading
        rows, _ = proof.load_probe(run.probe)

        def merge() -> Any:
            if not results.is_adapter(run.adapter):
                self.lines.note = "nothing to merge: every weight was trained"
                return results.load(loading, run.adapter)
            merged = merging.merge(loading, run.adapter, rows)
            self.lines.note = f"logits within {merged.distance:.1g} of their spread"
            return merged.model

        def export() -> None:
            target = self.folder / "exported"
            merging.export(model, self._ready.tokenizer, target, small.dtype)
            merging.prove_exported(loading, target, model, rows)
            size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
            self.lines.note = f"{disk.shown(size)} of safetensors, loaded again"

        model = self.lines.attempt("merge", merge)
        if model is not None:
            self.lines.attempt("export", export)
