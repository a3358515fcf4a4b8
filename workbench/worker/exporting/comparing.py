"""The result as it was scored, and every other form of it held against that, one model in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft

from workbench import files
from workbench.errors import BaseError
from workbench.evaluation import agreement, equivalence, passages
from workbench.evaluation.agreement import Agreement, Asked
from workbench.evaluation.equivalence import Difference, Judged, Kind, Reference
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.passages import Passages
from workbench.evaluation.scoring import Row
from workbench.methods import proof
from workbench.worker import scoring
from workbench.worker.setup import Bench


@dataclass(frozen=True)
class Form:
    """One way in which the result can be had."""

    name: str
    folder: str | None
    """Where it is shipped; None: it is only looked at."""
    kind: Kind
    load: Callable[[], Any]


@dataclass(frozen=True)
class Compared:
    """What came of one form."""

    form: Form
    found: Agreement | None
    """None: it could not be loaded."""
    judged: Judged

    def as_words(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "form": self.form.name,
            "folder": self.form.folder,
            "shipped": self.form.folder is not None,
            "kind": self.form.kind,
            **(self.found.as_words() if self.found else {}),
            **self.judged.as_words(),
            "verdict": "pass" if self.judged.passed else "fail",
        }


class Comparison:
    """What forms are held against, kept on the disk while they are loaded.

    Args:
        path: of the logits; whoever makes the comparison removes it.
    """

    def __init__(self, bench: Bench, path: Path) -> None:
        self._bench, self._path = bench, path
        self.passages = Passages([], "nothing yet")
        self.reference = Reference(None, None)
        self._rows: list[Row] = []
        self._tasks: dict[str, Any] = {}

    def take(self, model: Any) -> None:
        """Remember the result as it was scored, and how far its base is from it."""
        self.passages = self._passages(model)
        agreement.record(model, self._asked, self._path, "the result's tokens")
        if isinstance(model, peft.PeftModel):
            with model.disable_adapter():
                self.reference = replace(self.reference, effect=self._against(model, "the base's tokens"))
        bench = self._bench
        if bench.suite is None:
            return
        if scoring.is_scored(bench, bench.run):
            self._rows = list(files.read_jsonl(bench.run.items(bench.suite.name)))
            self._tasks = files.read_json(bench.run.results(bench.suite.name))["tasks"]
        else:  # on another machine, by other versions: only like is held against like
            self._rows, self._tasks = self._scored(model)

    def see_fp32(self, model: Any) -> None:
        """Learn from the same adapter in fp32 arithmetic what the run's half precision moves."""
        if self._bench.loading.dtype != "fp32":
            self.reference = replace(self.reference, floor=self._against(model, "the tokens in fp32"))

    def judge(self, form: Form) -> Compared:
        """Load a form afresh, hold it against the result, and let it go."""
        try:
            model = form.load()
        except BaseError as error:
            return Compared(form, None, Judged(False, None, None, [problem.found for problem in error.problems]))
        found = self._against(model, f"{form.name}: tokens")
        scores: list[Difference] = []
        if self._bench.suite is not None:
            scores = equivalence.differences(self._rows, self._scored(model)[0], self._tasks)
        return Compared(form, found, equivalence.judge(form.kind, found, self.reference, scores))

    def _passages(self, model: Any) -> Passages:
        bench = self._bench
        most = passages.budget(int(model.config.get_text_config().vocab_size))
        found = passages.of_suite(bench.items, scoring.scorers(bench, None), most) if bench.suite else None
        if found is not None:
            return found
        rows, _ = proof.load_probe(bench.run.probe)
        why = "its suite keeps its items to itself" if bench.suite else "the run has no suite"
        return Passages(rows, f"the beginnings of {len(rows)} trained rows ({why})")

    @property
    def _asked(self) -> Asked:
        size = self._bench.resolved.recipe.evaluation.batch_size
        return Asked(self.passages.rows, self._bench.pad_id, size, self._bench.progress)

    def _against(self, model: Any, what: str) -> Agreement:
        return agreement.compare(model, self._asked, self._path, what)

    def _scored(self, model: Any) -> tuple[list[Row], dict[str, Any]]:
        bench = self._bench
        assert bench.suite is not None
        done = evaluate(bench.suite, bench.items, scoring.scorers(bench, model), {})
        return done.rows, done.results["tasks"]
