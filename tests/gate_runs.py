"""Finished runs without any training: everything that the worker writes, worked out from the recipe's own rows.

What a field of a run depends on is imitated (rows left out, steps of an epoch, the seed's order), so that a change of
a recipe, a card, a base or a suite shows wherever it would show in a real run.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from conftest import write_rows
from huggingface_hub import constants

from workbench import files, fingerprint
from workbench.compare import statistics
from workbench.data import formats, splits
from workbench.data.contamination import Guard
from workbench.data.formats import Example
from workbench.data.shuffling import shuffled
from workbench.evaluation import items as suite_items
from workbench.plan.cost import Work, training_flops
from workbench.recipe import pin, resolve
from workbench.recipe.load import load
from workbench.recipe.resolved import Resolved
from workbench.runs import create, soundness
from workbench.runs.run import Run
from workbench.worker.finishing import finish

ITEMS, ROWS = 42, 60
VALUES = (1.0, 0.0, 1.0, 1.0, 0.0, 1.0)
VERSIONS = {"workbench": "0.1", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2",
            "trl": "1.16.0", "numpy": "2.4.0"}  # fmt: skip
HARDWARE = {"machine": "x86_64", "system": "Linux 6.8", "cores": 8}
CONTEXT = 64
TOKENIZER = '{"characters": 1}'
"""How many characters a token has."""
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


class Desk:
    """A folder with a base, rows, a suite and recipes, and runs made from them without training anything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "runs"
        self.base = write_base(folder / "base")
        self.rows, self.items = folder / "datasets" / "rows.jsonl", folder / "datasets" / "items.jsonl"
        write_rows(self.rows, rows())
        write_rows(self.items, [{"prompt": f"{at} + 2?", "completion": str(at + 2)} for at in range(ITEMS)])
        shares = {"train": [0, 0.9], "other": [0.05, 0.95]}
        self.card("rows", splits={name: {"files": "rows.jsonl", "share": share} for name, share in shares.items()})
        self.card("items", splits={"test": {"files": "items.jsonl"}})
        self.suite()

    def card(self, name: str, **fields: Any) -> Path:
        """A dataset card, written or changed."""
        path = self.folder / "datasets" / f"{name}.yaml"
        before = json.loads(path.read_text()) if path.exists() else {"format": "prompt_completion"}
        path.write_text(json.dumps(before | fields))
        return path

    def suite(self, name: str = "sums", **fields: Any) -> Path:
        """A suite of one task over the items."""
        task = {"name": "generate", "id": "sums", "data": "items", "max_new_tokens": 8}
        path = self.folder / "suites" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"tasks": [task | fields]}))
        return path

    def recipe(self, name: str = "small") -> Path:
        """A recipe file."""
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"base": "./base", "data": "rows", "target": "cpu"}))
        return path

    def pinned(self, *overrides: str, name: str = "small") -> Any:
        """A resolved recipe with its contents."""
        return pin.pin(resolve.resolve(load(self.recipe(name), overrides)))

    def run(self, *overrides: str, name: str = "small") -> Run:
        """Its run directory, opened."""
        return create.open_run(self.root, *self.pinned(*overrides, name=name))

    def finished(self, *overrides: str, name: str = "small", suite: str = "sums", **changes: Any) -> Run:
        """A run with everything that a finished and scored one holds.

        Args:
            changes: `values` of the items, `versions` and `hardware` laid over those of this module.
        """
        run = self.run(*overrides, name=name)
        run.note_attempt("start", pid=1)
        versions, hardware = (VERSIONS | changes.get("versions", {}), HARDWARE | changes.get("hardware", {}))
        Making(run, versions, hardware).write()
        score(run, self.folder / "suites" / f"{suite}.yaml", changes.get("values", VALUES), versions)
        finish(run)
        run.note_attempt("end", status=0)
        return run


def rows(count: int = ROWS, start: int = 0) -> list[dict[str, str]]:
    """Rows of differing lengths."""
    return [
        {"prompt": f"{at} + 1?", "completion": f"{at + 1}" + " as it was" * (at % 4)}
        for at in range(start, start + count)
    ]


def write_base(folder: Path, **contents: str) -> Path:
    """A directory with the files of a base; none of them is ever loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "config.json": "{}",
        "tokenizer.json": TOKENIZER,
        "chat_template.jinja": TEMPLATE,
        "model.safetensors": "w",
    }
    for name, content in (names | contents).items():
        (folder / name).write_text(content)
    return folder


def write_hub_base(repository: str, commit: str) -> None:
    """A base as the hub's cache lays it out, at one more commit."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    write_base(folder / "snapshots" / commit)


def edit(path: Path, *place: str, to: Any) -> None:
    """Change one value of a JSON file."""
    value = whole = files.read_json(path)
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = to
    files.write_json(path, whole)


class Making:
    """The files of one run, as a worker on this machine would leave them."""

    def __init__(self, run: Run, versions: Mapping[str, str], hardware: Mapping[str, Any]) -> None:
        self.run, self.resolved = run, run.resolved()
        self.versions, self.hardware = versions, hardware

    def write(self) -> None:
        """All but the scores, and what comes after them."""
        files.write_json(self.run.manifest, self._manifest())
        if self.resolved.trains:
            files.write_json(self.run.data, self._account)
            files.write_jsonl(self.run.metrics, self._steps)
            self._save()
            proof = {"places": 4, "moved": 4, "trained_parameters": self._trained, "saved_against_memory": 0.0}
            files.write_json(self.run.proof, proof | {"files": soundness.result_files(self.run)})

    def _manifest(self) -> dict[str, Any]:
        resolved, recipe = self.resolved, self.resolved.recipe
        base, content = pin.pin_base(resolved)
        paths = pin.split_files(resolved.data, recipe.data.split) if resolved.trains else []
        device = {"cpu": "cpu", "cuda": "NVIDIA H100"}[resolved.target.device]
        return {
            "base": {"location": base.location, "revision": base.revision, "init": recipe.base.init, "files": content,
                     "licence": base.licence},
            "data": {"card": resolved.data.name, "split": recipe.data.split, "licence": None, "revision": None,
                     "files": {path.name: fingerprint.of_file(path) for path in paths}} if paths else None,
            "template": fingerprint.of_text(template(resolved)),
            "tokenizer": fingerprint.of_text(self._tokenizer),
            "seed": recipe.seed,
            "versions": dict(self.versions),
            "git_commit": None,
            "hardware": {"device": device, "threads": recipe.target.threads or 2, **self.hardware},
        }  # fmt: skip

    @cached_property
    def _texts(self) -> list[str]:
        """The rows that are trained on, rendered; `_left_out` counts the others."""
        resolved, data = self.resolved, self.resolved.recipe.data
        self._guard = Guard.of(suite_items.questions(suite_items.load(resolved.suite)) if resolved.suite else [])
        paths = pin.split_files(resolved.data, data.split)

        def read() -> Any:
            return formats.examples(paths, resolved.data.card, data.split)

        self._left_out: Counter[str] = Counter()
        texts = []
        for row in shuffled(read, data.fraction) if data.shuffle_labels else read():
            if not isinstance(row, Example):
                self._left_out["unusable"] += 1
            elif splits.in_fraction(formats.content_key(row.values), data.fraction):
                text = (data.system or "") + "".join(message.content for message in row.messages)
                if self._guard.meet(row.prompt_text(), row.where) and data.contamination == "drop":
                    self._left_out["contaminated"] += 1
                elif self._tokens(text) > (data.max_length or CONTEXT):
                    self._left_out["too long"] += 1
                else:
                    texts.append(text)
        return texts

    @cached_property
    def _tokenizer(self) -> str:
        return (pin.base_directory(self.resolved) / "tokenizer.json").read_text()

    def _tokens(self, text: str) -> int:
        return math.ceil(len(text) / json.loads(self._tokenizer)["characters"])

    @property
    def _account(self) -> dict[str, Any]:
        texts, known = self._texts, None
        lengths = [self._tokens(text) for text in texts]
        if self.resolved.suite:
            known = suite_items.suite_fingerprint(self.resolved.suite, suite_items.load(self.resolved.suite))
        return {
            "rows_in": len(texts) + sum(self._left_out.values()), "rows_trained": len(texts), "rows_cut": 0,
            "rows_dropped": dict(self._left_out), "examples": len(texts),
            "tokens": sum(lengths), "counted_tokens": sum(lengths) // 2,
            "counted_text_bytes": sum(map(len, texts)) // 2, "longest_tokens": max(lengths),
            "lengths_up_to": {"64": len(texts)},
            "fingerprint": fingerprint.of_value([self._tokenizer, template(self.resolved), texts]),
            "contamination": self._guard.report(), "suite_items": known,
        }  # fmt: skip

    @cached_property
    def _steps(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: every epoch in an order of its own."""
        training, texts = self.resolved.recipe.training, self._texts
        per_epoch = math.ceil(len(texts) / training.batch_size)
        steps = training.steps or math.ceil((training.epochs or 1.0) * per_epoch)
        found: list[dict[str, Any]] = []
        totals: Counter[str] = Counter()
        for step in range(steps):
            epoch, place = divmod(step, per_epoch)
            order = random.Random(f"{self.resolved.recipe.seed} {epoch}").sample(texts, len(texts))
            chosen = order[place * training.batch_size :][: training.batch_size]
            lengths = [self._tokens(text) for text in chosen]
            totals += Counter(examples=len(lengths), tokens=sum(lengths), counted_tokens=sum(lengths) // 2)
            totals += Counter(text_bytes=sum(map(len, chosen)) // 2)
            totals += Counter(squared_lengths=sum(length**2 for length in lengths))
            found.append({"step": step + 1, "loss": 1 + 1 / (step + 1), **totals, "seconds": 0.5 * (step + 1)})
        return found

    @property
    def _trained(self) -> int:
        return int(1234 * getattr(self.resolved.recipe.method, "rank", 100))

    def _save(self) -> None:
        """The adapter, and what training ended with."""
        work, last = Work(1e6, self._trained, 64, 2), self._steps[-1]
        counts = {name: last[name] for name in ("examples", "tokens", "counted_tokens", "text_bytes")}
        cost = {
            "training_flops": training_flops(work, last["tokens"], last["squared_lengths"]), "steps": last["step"],
            **counts, "device_seconds": last["seconds"], "peak_memory_bytes": 2**30,
            "joules": None, "energy_source": "none", "energy_note": "nothing counts here",
        }  # fmt: skip
        parameters = {"trainable": self._trained, "total": 10**6 + self._trained}
        files.write_json(self.run.training, {"parameters": parameters, "work": asdict(work), "proof": {}, "cost": cost})
        files.write_text(self.run.probe, "what the trained model answered")
        files.write_text(self.run.adapter / "adapter_config.json", "{}")
        files.write_text(self.run.adapter / "adapter_model.safetensors", f"trained by {self.run.name}")


def template(resolved: Resolved) -> str:
    """The text that `data.template` stands for."""
    chosen = resolved.recipe.data.template
    if chosen == "plain":
        return chosen
    path = pin.base_directory(resolved) / "chat_template.jinja" if chosen == "base" else Path(chosen)
    return path.read_text()


def score(
    run: Run, suite: Path, values: Sequence[float] = VALUES, versions: Mapping[str, str] = VERSIONS, **changes: Any
) -> None:
    """The scores of a suite of one task; `values` begin anew where there are more items."""
    resolved = run.resolved()
    found = resolve.find_suite(str(suite), suite.parent, "--suite")
    loaded = suite_items.load(found)
    task, asked = loaded[0].task, loaded[0].items
    made = [
        {"task": task.id, "id": item.id, "cluster": item.cluster, "value": values[at % len(values)], "weight": 1.0,
         "state": "ok", "tokens": 8, "question": item.question, "expected": item.expected,
         "answer": item.expected, "output": ""}
        for at, item in enumerate(asked)
    ]  # fmt: skip
    estimate = statistics.mean([row["value"] for row in made], [1.0] * len(made), [row["cluster"] for row in made])
    prompts = fingerprint.of_text(template(resolved))
    system, exact = resolved.recipe.data.system, resolved.target.device == "cpu" and resolved.dtype == "fp32"
    known = suite_items.suite_fingerprint(found, loaded)
    results = {
        "suite": found.name, "fingerprint": known, "items_fingerprint": known,
        "questions_fingerprint": suite_items.questions_fingerprint(loaded),
        "metric_version": suite_items.METRIC_VERSION,
        "templates": {task.id: prompts if system is None else fingerprint.of_value([prompts, system])},
        "conditions": {
            "dtype": resolved.dtype, "device": resolved.target.device,
            "device_name": files.read_json(run.manifest)["hardware"]["device"],
            "batch_size": None if exact else resolved.recipe.evaluation.batch_size,
            "attention": None if exact else resolved.recipe.target.attention,
            "versions": dict(versions),
        },
        "evaluation": resolved.recipe.evaluation.model_dump(mode="json", include={"batch_size", "fewshot"}),
        "tasks": {task.id: {"metric": task.primary, "role": task.role, "higher_is_better": True, **estimate.as_words(),
                            "long_tokens": 8, "states": {"ok": len(made)}}},
        "evaluation_seconds": 0.5, "content": pin.suite_content(found),
    }  # fmt: skip
    files.write_jsonl(run.items(found.name), made)
    files.write_json(run.results(found.name), results | changes)
