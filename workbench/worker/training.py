"""From rows to a proved result in the run directory."""

from __future__ import annotations

import gc
import math
from dataclasses import asdict, replace
from typing import Any

from transformers import set_seed

from workbench import bases, files
from workbench.bases import Loading
from workbench.data.contamination import Guard
from workbench.data.prepare import Prepared, prepare
from workbench.evaluation.items import questions
from workbench.methods import counting, proof, results
from workbench.methods.apply import apply
from workbench.plan.cost import training_flops
from workbench.recipe import pin
from workbench.recipe.schema import Dpo, Full, Lora
from workbench.tracking.tracker import Tracker
from workbench.training import checkpoints, trainers
from workbench.training.callbacks import Recorder, cut_after
from workbench.training.memory import peak_memory_bytes
from workbench.training.reference import with_reference
from workbench.worker.setup import Bench

_PROBE_ROWS = 3


def train(bench: Bench, tracker: Tracker) -> None:
    """Train (or go on training), save, and prove what was saved."""
    run = bench.run
    if not run.adapter.exists():
        prepared = rows_of(bench)
        files.write_json(run.data, prepared.account)
        _walk(bench, prepared, tracker)
        gc.collect()
    _prove(bench)


def rows_of(bench: Bench) -> Prepared:
    """The recipe's rows as token ids, from the cache where they are there."""
    asked = bench.resolved.recipe.data.max_length
    max_length = min(asked, bench.context) if asked else bench.context
    guard = Guard.of(questions(bench.items))
    return prepare(bench.resolved, bench.renderer(bench.template), max_length, guard, bench.progress)


def _walk(bench: Bench, prepared: Prepared, tracker: Tracker) -> None:
    """The optimizer's walk, from the newest whole checkpoint on, to a saved result."""
    run, recipe, progress = bench.run, bench.resolved.recipe, bench.progress
    method, device = recipe.method, bench.resolved.target.device
    loading = _training_loading(bench)
    start = getattr(method, "init_from", None)
    model = bases.load_model(loading)
    model = apply(model, method, recipe.seed, pin.adapter_directory(start) if start else None)
    before = proof.digests(model)
    is_pissa = isinstance(method, Lora) and method.variant == "pissa"
    if is_pissa:
        results.save_pissa_start(model, run.pissa_start)
    rows = prepared.rows
    if isinstance(recipe.objective, Dpo):
        rows = with_reference(rows, model, bench.pad_id, recipe.evaluation.batch_size, progress)
    work, counts = counting.work_of(model), counting.parameter_counts(model)
    set_seed(recipe.seed)
    trainer: Any = trainers.build(
        recipe, model, bench.tokenizer, rows, run.checkpoints, device, bench.resolved.dtype, bench.pad_id
    )
    steps = trainers.length(recipe, len(rows)).steps
    found = checkpoints.newest(run.checkpoints, progress.say) if run.checkpoints.exists() else None
    cut_after(run.metrics, found[1] if found else 0)
    progress.say(
        f"{recipe.method.name} on {len(rows):,} examples, {steps:,} steps of {recipe.training.batch_size}: "
        f"{counts['trainable']:,} of {counts['total']:,} parameters trained"
        + (f"; going on from step {found[1]}" if found else "")
    )
    bar = progress.bar("train", steps, start=found[1] if found else 0)
    recorder = Recorder(run.metrics, bar, tracker.log, device)
    recorder.trainer = trainer
    trainer.add_callback(recorder)
    try:
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    finally:
        bar.close()
    facts = proof.prove_trained(model, before)
    probe = proof.probe_rows(_probe_ids(rows))
    proof.save_probe(run.probe, probe, proof.logits(model, probe))
    flops = training_flops(work, recorder.totals["tokens"], recorder.totals["squared_lengths"])
    cost = {
        "training_flops": flops * (4 / 3 if isinstance(recipe.objective, Dpo) else 1),
        "steps": steps,
        "examples": recorder.totals["examples"],
        "tokens": recorder.totals["tokens"],
        "counted_tokens": recorder.totals["counted_tokens"],
        "text_bytes": recorder.totals["text_bytes"],
        "device_seconds": recorder.totals["seconds"],
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    files.write_json(run.training, {"parameters": counts, "work": asdict(work), "proof": facts, "cost": cost})
    results.save(model, bench.tokenizer, run.adapter, run.pissa_start if is_pissa else None)


def _training_loading(bench: Bench) -> Loading:
    """Full training keeps fp32 weights under bf16 arithmetic; a frozen base is held in the run's own precision."""
    full = isinstance(bench.resolved.recipe.method, Full)
    return replace(bench.loading, dtype="fp32") if full else bench.loading


def _probe_ids(rows: Any) -> list[list[int]]:
    """A few rows from all over the data."""
    picked = sorted({math.floor(len(rows) * at / _PROBE_ROWS) for at in range(_PROBE_ROWS)})
    return [
        row["input_ids"] if "input_ids" in row else row["prompt_ids"] + row["chosen_ids"]
        for row in (rows[at] for at in picked)
    ]


def _prove(bench: Bench) -> None:
    """Load the saved files afresh and compare their logits with the probe that training left, and with the base's."""
    run, loading = bench.run, _training_loading(bench)
    rows, memory = proof.load_probe(run.probe)
    base = None
    if results.is_adapter(run.adapter):
        model = bases.load_model(loading)
        base = proof.logits(model, rows)
        del model
        gc.collect()
    fresh = proof.logits(results.load(loading, run.adapter), rows)
    facts = proof.prove_saved(memory, fresh, base, loading.dtype)
    files.write_json(run.proof, files.read_json(run.training)["proof"] | facts)
    bench.progress.say(
        f"proved: all {files.read_json(run.proof)['places']} trained places moved; the saved files give the trained "
        f"model's logits (within {facts['saved_against_memory']:.1g} of their spread)"
    )
