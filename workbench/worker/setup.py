"""What all stages of a run share: the process settled, the tokenizer and the suite's items in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from workbench import bases, collective, files, fingerprint, place
from workbench.bases import Loading
from workbench.data.contamination import Guard
from workbench.data.prepare import Prepared, prepare
from workbench.data.rendering import Renderer
from workbench.errors import Problem, RunError
from workbench.evaluation import items as suite_items
from workbench.evaluation.items import TaskItems, questions
from workbench.progress import Progress
from workbench.recipe import pin
from workbench.recipe.resolved import Resolved, ResolvedSuite
from workbench.runs import manifest
from workbench.runs.run import Run
from workbench.training import speed
from workbench.training.memory import accelerator

_LOOK_SECONDS = 0.5
_BUSY_PERCENT = 50.0


@dataclass(frozen=True)
class Bench:
    """A run with what all its stages share."""

    run: Run
    resolved: Resolved
    loading: Loading
    """How the base is loaded for scoring."""
    tokenizer: Any
    template: str | None
    """The chat template that the recipe trains with; None: plain."""
    pad_id: int
    context: int
    """Longest sequence of the base, tokens."""
    suite: ResolvedSuite | None
    items: list[TaskItems]
    progress: Progress

    def renderer(self, template: str | None) -> Renderer:
        """A renderer with the recipe's system message and turns."""
        turns = getattr(self.resolved.recipe.objective, "turns", "all")
        return Renderer(self.tokenizer, template, self.resolved.recipe.data.system, turns)


def settle(run: Run, resolved: Resolved) -> int:
    """Fix what a result depends on in this process: the threads (kept when a run continues) and the device."""
    before = files.read_json(run.manifest)["hardware"]["threads"] if run.manifest.exists() else None
    threads = int(before or resolved.recipe.target.threads or _free_threads())
    torch.set_num_threads(threads)
    speed.settle_products(resolved)
    device = resolved.target.device
    module = accelerator(device)
    if device != "cpu" and (module is None or not module.is_available()):
        raise RunError(
            Problem(
                "target",
                f"is {resolved.target.name}, but torch {torch.__version__} sees no {device} device here",
                "install the torch build for it, or run with --set target=cpu",
            )
        )
    return threads


def _free_threads() -> int:
    """As many as there are idle cores. Of several processes on a machine each has the share that its launcher gave it:
    the others, which are starting as well, look busy."""
    given = torch.get_num_threads()
    return given if place.here().local_world > 1 else min(given, _idle_cores())


def _idle_cores() -> int:
    """Cores that nobody else is using now (at least one). More threads than that wait for each other by spinning: two
    runs of two threads on two cores were seen to go twenty times slower than two of one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    busy = psutil.cpu_percent(interval=_LOOK_SECONDS, percpu=True)
    return max(1, len([core for core in allowed if busy[core] < _BUSY_PERCENT]))


def set_up(run: Run, resolved: Resolved, suite: ResolvedSuite | None, progress: Progress) -> Bench:
    """Load the tokenizer and the suite's items."""
    recipe = resolved.recipe
    loading = Loading(
        directory=pin.base_directory(resolved),
        init=recipe.base.init,
        dtype=resolved.dtype,
        quantization=getattr(recipe.method, "quantization", "none"),
        double_quantization=getattr(recipe.method, "double_quantization", True),
        attention=recipe.target.attention,
        storage=_stated(getattr(recipe.method, "storage", "auto")),
        device=collective.device(resolved.target.device),
        seed=recipe.seed,
        trust_remote_code=recipe.base.trust_remote_code,
    )
    config = bases.load_config(loading)
    tokenizer = bases.load_tokenizer(loading)
    return Bench(
        run=run,
        resolved=resolved,
        loading=loading,
        tokenizer=tokenizer,
        template=bases.chat_template(tokenizer, recipe.data.template) if _is_asked(resolved, suite) else None,
        pad_id=_pad_id(tokenizer),
        context=bases.context_length(config),
        suite=suite,
        items=suite_items.load(suite) if suite else [],
        progress=progress,
    )


def _stated(storage: str) -> str:
    """The type that 4-bit weights lie in while nothing is sharded."""
    return "uint8" if storage == "auto" else storage


def rows_of(bench: Bench) -> Prepared:
    """The recipe's rows as token ids, from the cache where they are there."""
    asked = bench.resolved.recipe.data.max_length
    max_length = min(asked, bench.context) if asked else bench.context
    guard = Guard.of(questions(bench.items))
    return prepare(bench.resolved, bench.renderer(bench.template), max_length, guard, bench.progress)


def _is_asked(resolved: Resolved, suite: ResolvedSuite | None) -> bool:
    """Whether prompts are rendered at all: raw text needs no template."""
    trained = resolved.trains and resolved.recipe.objective.name != "pretrain"
    return trained or (suite is not None and any(getattr(t, "template", "") == "as_trained" for t in suite.suite.tasks))


def _pad_id(tokenizer: Any) -> int:
    """A token to fill rows with; masked everywhere, so any will do."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _data_facts(resolved: Resolved) -> dict[str, Any]:
    """The rows' card, licence, revision and file hashes."""
    paths = pin.split_files(resolved.data, resolved.recipe.data.split)
    return {
        "card": resolved.data.name,
        "split": resolved.recipe.data.split,
        "licence": resolved.data.card.licence,
        "revision": resolved.data.card.source.revision,
        "files": pin.row_hashes(paths),
    }


def device_name(device: str) -> str:
    """The model of the device, such as `NVIDIA H200`; its kind where it has no name."""
    module = accelerator(device)
    return str(module.get_device_name()) if module is not None and hasattr(module, "get_device_name") else device


def write_manifest(bench: Bench, threads: int) -> None:
    """What the run is made of. Once training has ended nothing later changes it: a suite that is scored on another day,
    by other versions or elsewhere, has its own conditions in its results."""
    run, resolved = bench.run, bench.resolved
    if run.manifest.exists() and (run.adapter.exists() or not resolved.trains):
        return
    kept = files.read_json(run.manifest) if run.manifest.exists() else {}
    _, base_content = pin.pin_base(resolved)
    name = device_name(resolved.target.device)
    files.write_json(
        run.manifest,
        kept
        | {
            "base": {
                "location": resolved.base.location,
                "revision": resolved.base.revision,
                "init": resolved.recipe.base.init,
                "files": base_content,
                "licence": resolved.base.licence,
            },
            "data": _data_facts(resolved) if resolved.trains else None,
            "template": bases.template_fingerprint(bench.template),
            "tokenizer": fingerprint.of_text(bench.tokenizer.backend_tokenizer.to_str()),
            "seed": resolved.recipe.seed,
            "versions": manifest.versions(),
            "git_commit": manifest.git_commit(),
            "hardware": manifest.hardware(name, threads),
        },
    )
