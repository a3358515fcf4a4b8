"""From rows to a proved result in the run directory."""

from __future__ import annotations

import gc
import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from workbench import bases, collective, files, place, saving
from workbench.bases import Loading
from workbench.data.prepare import Prepared
from workbench.evaluation.items import suite_fingerprint
from workbench.methods import counting, proof, results
from workbench.methods.apply import apply
from workbench.plan.cost import Work, forward_flops, training_flops
from workbench.progress import Progress
from workbench.recipe import pin
from workbench.recipe.schema import Dpo, Full, Lora, Qlora
from workbench.runs import planner, soundness
from workbench.runs.run import Run
from workbench.tracking.followers import Followers
from workbench.training import checkpoints, energy, memory, sharding, speed, trainers
from workbench.training.callbacks import Recorder, cut_after
from workbench.training.reference import reference_lengths, with_reference
from workbench.training.stopping import Stopper
from workbench.worker import continuing
from workbench.worker.preflight import Preflight
from workbench.worker.setup import Bench, rows_of


def train(bench: Bench, followers: Followers) -> None:
    """Train (or go on training), save, and prove what was saved."""
    run = bench.run
    if collective.from_main(lambda: not run.adapter.exists()):
        with collective.main_first():
            prepared = rows_of(bench)
        known = suite_fingerprint(bench.suite, bench.items) if bench.suite else None
        collective.from_main(lambda: files.write_json(run.data, prepared.account | {"suite_items": known}))
        collective.from_main(lambda: planner.write_plan(run, bench.resolved))  # again: now the rows are known
        _walk(bench, prepared, followers)
        gc.collect()
    collective.from_main(lambda: _prove(bench))
    collective.from_main(lambda: shutil.rmtree(run.pissa_start, ignore_errors=True))


def _walk(bench: Bench, prepared: Prepared, followers: Followers) -> None:
    """The optimizer's walk, from the newest whole checkpoint on, to a saved result."""
    run, recipe, progress = bench.run, bench.resolved.recipe, bench.progress
    method, device = recipe.method, bench.resolved.target.device
    loading = _training_loading(bench)
    start = getattr(method, "init_from", None)
    model = bases.load_model(loading)
    model = apply(model, method, recipe.seed, pin.adapter_directory(start) if start else None)
    before = proof.digests(model)
    if _is_pissa(method) and place.here().is_main:
        results.save_pissa_start(model, run.pissa_start)
    rows, dtype = prepared.rows, bench.resolved.dtype
    if isinstance(recipe.objective, Dpo):
        rows = with_reference(rows, model, dtype, bench.pad_id, recipe.evaluation.batch_size, progress)
    work, counts = counting.work_of(model), counting.parameter_counts(model)
    choices = speed.chosen(bench.resolved, work)
    set_seed(recipe.seed)
    found = collective.from_main(lambda: _kept(run, progress))
    conditions = collective.from_main(
        lambda: continuing.held_against(run, found, continuing.now(run, bench.resolved, prepared.account), progress)
    )
    trainer: Any = trainers.build(
        recipe,
        model,
        bench.tokenizer,
        rows,
        run.checkpoints,
        device,
        dtype,
        bench.pad_id,
        choices,
        conditions.beside(bench.resolved),
    )
    steps = trainers.length(recipe, len(rows)).steps
    progress.say(
        f"{recipe.method.name} on {len(rows):,} examples, {steps:,} steps of "
        f"{min(recipe.training.batch_size, len(rows)):,}: "
        f"{counts['trainable']:,} of {counts['total']:,} parameters trained"
        + (f"; going on from step {found[1]}" if found else "")
    )
    if recipe.training.router_loss:
        progress.say("training.router_loss is taken per micro-batch: target.micro_batch_tokens matters to the result")
    if not place.here().is_main:
        torch.manual_seed(recipe.seed + place.here().rank)  # else every process would drop out the same
    if recipe.training.preflight and not found:
        trainer.add_callback(Preflight(bench, trainer, steps))
    stopper = Stopper()
    walk = Walk(trainer, work, steps, found)
    recorder = _steps(bench, walk, followers, stopper)
    facts = proof.prove_trained(model, before)
    cost = {"training_flops": _flops(work, recorder.totals, rows), "steps": steps, **_cost(recorder, device)}
    kept = {"parameters": counts, "work": asdict(work), "choices": asdict(choices), "proof": facts, "cost": cost}
    _save(bench, trainer, model, rows, kept)
    collective.wait()
    stopper.raise_if_asked(steps, steps)  # asked in the last step: what it came to is saved now


def _save(bench: Bench, trainer: Any, model: Any, rows: Any, kept: dict[str, Any]) -> None:
    """Leave what the saved files must give again, what is known of the walk, and the result itself, last."""
    run, method = bench.run, bench.resolved.recipe.method
    # The trainer leaves its bf16 arithmetic around the forward; the saved files are loaded without it.
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    probe = proof.probe_rows(_probe_ids(rows))
    logits = proof.logits(model, probe)
    weights = sharding.whole_weights(model) if sharding.is_spread(model.parameters()) else None
    if place.here().is_main:
        proof.save_probe(run.probe, probe, logits)
        files.write_json(run.training, kept)
        start = run.pissa_start if _is_pissa(method) else None
        results.save(model, bench.tokenizer, run.adapter, start, weights)


def _is_pissa(method: Any) -> bool:
    return isinstance(method, Lora) and method.variant == "pissa"


def _kept(run: Run, progress: Progress) -> tuple[Path, int] | None:
    """The checkpoint to go on from, with its step; metrics are cut back to it."""
    found = checkpoints.newest(run.checkpoints, progress.say) if run.checkpoints.exists() else None
    cut_after(run.metrics, found[1] if found else 0)
    return found


@dataclass(frozen=True)
class Walk:
    """What the optimizer is about to do."""

    trainer: Any
    work: Work
    steps: int
    """Up to which step."""
    found: tuple[Path, int] | None
    """The checkpoint to go on from, with its step."""


def _steps(bench: Bench, walk: Walk, followers: Followers, stopper: Stopper) -> Recorder:
    """Take the steps after the checkpoint that was found (or all of them), and return what was recorded of all."""
    trainer, steps, found = walk.trainer, walk.steps, walk.found
    start = found[1] if found else 0
    bar = bench.progress.bar("train", steps, start=start)
    device = bench.resolved.target.device
    counts = device != "cpu" or place.here().local_rank == 0
    meter = energy.meter(device) if counts else energy.counted_elsewhere()
    recorder = Recorder(bench.run.metrics, bar, walk.work, device, meter, followers.look)
    followers.start()
    recorder.trainer = trainer
    trainer.add_callback(recorder)
    trainer.add_callback(stopper)
    try:
        with (
            stopper,
            saving.placed(lambda: f"after step {trainer.state.global_step}"),
            memory.told(lambda: f"step {trainer.state.global_step + 1}", bench.resolved.recipe, device),
        ):
            if found and start >= steps:  # stopped between the last step and the save: the trainer would take one more
                trainer._load_from_checkpoint(str(found[0]))
            else:
                trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
            if trainer.state.global_step < steps:
                stopper.raise_if_asked(trainer.state.global_step, steps)
    finally:
        bar.close()
    return recorder


def _cost(recorder: Recorder, device: str) -> dict[str, Any]:
    """What all steps took."""
    return {
        **{name: recorder.totals[name] for name in ("examples", "tokens", "counted_tokens", "text_bytes")},
        "device_seconds": recorder.totals["device_seconds"],
        "devices": place.here().world,
        "peak_memory_bytes": recorder.peak_memory_bytes,
        **_energy(recorder, device),
    }


def _energy(recorder: Recorder, device: str) -> dict[str, Any]:
    """The measured joules of all steps with their source, or why there are none."""
    if recorder.joules is not None:
        return {"joules": recorder.joules, "energy_source": energy.SOURCES[device], "energy_note": None}
    note = recorder.meter.note or "some steps were walked where nothing counted"
    return {"joules": None, "energy_source": "none", "energy_note": note}


def _flops(work: Work, totals: dict[str, float], rows: Any) -> float:
    """Operations of all steps, and of the reference's one pass over the pairs."""
    flops = training_flops(work, totals["tokens"], totals["squared_lengths"])
    if "ref_chosen_logps" in rows.column_names:
        lengths = reference_lengths(rows)
        flops += forward_flops(work, sum(lengths), sum(length**2 for length in lengths))
    return flops


def _training_loading(bench: Bench) -> Loading:
    """Full training keeps fp32 weights under bf16 arithmetic; a frozen base is held in the run's own precision, and in
    what can be spread where it is to be."""
    recipe, loading = bench.resolved.recipe, bench.loading
    if isinstance(recipe.method, Full):
        loading = replace(loading, dtype="fp32")
    if recipe.target.sharding != "fsdp":
        return loading
    if isinstance(recipe.method, Qlora) and recipe.method.storage == "auto":
        loading = replace(loading, storage=loading.dtype)
    if bench.resolved.target.device == "cpu":
        return loading
    sharding.announce(bench.resolved.target.device)
    return replace(loading, device=None)


def _probe_ids(rows: Any) -> list[list[int]]:
    """A few rows from all over the data."""
    picked = sorted({math.floor(len(rows) * at / proof.PROBE_ROWS) for at in range(proof.PROBE_ROWS)})
    return [
        row["input_ids"] if "input_ids" in row else row["prompt_ids"] + row["chosen_ids"]
        for row in (rows[at] for at in picked)
    ]


def _prove(bench: Bench) -> None:
    """Load the saved files afresh and compare their logits with the probe that training left, and with the base's."""
    run, loading = bench.run, replace(_training_loading(bench), device=bench.loading.device)
    rows, trained = proof.load_probe(run.probe)
    base = None
    if results.is_adapter(run.adapter):
        model = bases.load_model(loading)
        base = proof.logits(model, rows)
        del model
        gc.collect()
    fresh = proof.logits(results.load(loading, run.adapter), rows)
    facts = proof.prove_saved(trained, fresh, base, loading.dtype) | {"files": soundness.result_files(run)}
    files.write_json(run.proof, files.read_json(run.training)["proof"] | facts)
    error = facts["saved_against_memory"]
    close = "exactly" if error == 0 else f"within {error:.1g} of their spread"
    places = files.read_json(run.proof)["places"]
    bench.progress.say(
        f"proved: all {places} trained places moved; the saved files give the trained model's logits {close}"
    )
