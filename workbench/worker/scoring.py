"""Scores into run directories: of the run itself, and of the untouched base as a run of its own."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import torch

from workbench import bases, collective, files, place
from workbench.errors import Problem, RunError
from workbench.evaluation.evaluate import Evaluation, evaluate, prompt_fingerprint
from workbench.evaluation.items import suite_fingerprint
from workbench.evaluation.scoring import Scorer
from workbench.methods import results
from workbench.recipe import pin
from workbench.recipe.identity import base_reference
from workbench.runs import create, lock, manifest
from workbench.runs.run import Run
from workbench.worker.finishing import finish
from workbench.worker.setup import Bench, device_name, set_up, write_manifest


def score(bench: Bench) -> None:
    """Score the run on the bench's suite, unless that is done."""
    if bench.suite is None or collective.from_main(lambda: is_scored(bench, bench.run)):
        return
    model = results.load(bench.loading, bench.run.adapter if bench.resolved.trains else None)
    _score_model(bench, bench.run, model)


def score_base(bench: Bench) -> None:
    """Score the base that the run starts from, as a run of its own beside it; once, whatever is trained on it."""
    if bench.suite is None:
        return
    resolved = base_reference(bench.resolved)
    _, contents = pin.pin(resolved)
    base_run = collective.from_main(lambda: create.open_run(bench.run.path.parent, resolved, contents))
    if collective.from_main(lambda: is_scored(bench, base_run)):
        return
    with contextlib.ExitStack() as stack:
        if not collective.from_main(lambda: _taken(base_run, stack)):
            bench.progress.say(f"{base_run.name} is being scored by another run")
            return
        base_bench = set_up(base_run, resolved, bench.suite, bench.progress)
        collective.from_main(lambda: write_manifest(base_bench, torch.get_num_threads()))
        _score_model(base_bench, base_run, results.load(base_bench.loading, None))
        collective.from_main(lambda: finish(base_run))


def _taken(run: Run, stack: contextlib.ExitStack) -> bool:
    """Hold the run's lock until the stack is left; False where another process holds it."""
    try:
        stack.enter_context(lock.held(run))
    except RunError:
        if not lock.is_held(run):
            raise
        return False
    return True


def is_scored(bench: Bench, run: Run) -> bool:
    """Whether the run's scores are those of these items under these conditions."""
    assert bench.suite is not None
    path = run.results(bench.suite.name)
    if not path.exists():
        return False
    found = files.read_json(path)
    own = {task.id for task in bench.suite.suite.tasks if task.name != "lm_eval"}
    content = pin.suite_content(bench.suite)
    same_items = found["items_fingerprint"] == suite_fingerprint(bench.suite, bench.items)
    templates = {name: prompt_fingerprint(bench.renderer(template)) for name, template in _templates(bench).items()}
    scored = bool(
        same_items
        and found["templates"] == templates
        and found["conditions"] == _conditions(bench)
        and own <= found["tasks"].keys()
    )
    if scored and found["content"] != content:  # the same items in other words or another place: the desk need not ask
        files.write_json(path, found | {"content": content})
    return scored


def _conditions(bench: Bench) -> dict[str, Any]:
    """What scores depend on beside the model and the items. The batch size is harmless on a CPU in fp32 only."""
    exact = bench.resolved.target.device == "cpu" and bench.resolved.dtype == "fp32"
    return {
        "dtype": bench.resolved.dtype,
        "device": bench.resolved.target.device,
        "device_name": device_name(bench.resolved.target.device),
        "batch_size": None if exact else bench.resolved.recipe.evaluation.batch_size,
        "attention": None if exact else bench.resolved.recipe.target.attention,
        "versions": manifest.versions(),
    }


def _templates(bench: Bench) -> dict[str, str | None]:
    """The template by task id: the recipe's own, the base's, or none."""
    assert bench.suite is not None
    found: dict[str, str | None] = {}
    for task in bench.suite.suite.tasks:
        chosen = getattr(task, "template", "as_trained")
        found[task.id] = bench.template if chosen == "as_trained" else bases.chat_template(bench.tokenizer, chosen)
    return found


def scorers(bench: Bench, model: Any) -> dict[str, Scorer]:
    """A model by the id of each task that asks it."""
    base = Scorer(
        model=model,
        renderer=bench.renderer(bench.template),
        max_length=bench.context,
        pad_id=bench.pad_id,
        batch_size=bench.resolved.recipe.evaluation.batch_size,
        progress=bench.progress,
    )
    return {name: replace(base, renderer=bench.renderer(template)) for name, template in _templates(bench).items()}


def _score_model(bench: Bench, run: Run, model: Any) -> None:
    assert bench.suite is not None
    done = evaluate(bench.suite, bench.items, scorers(bench, model), _conditions(bench))
    if place.here().is_main:
        _write(bench, run, done)
    collective.wait()


def _write(bench: Bench, run: Run, done: Evaluation) -> None:
    assert bench.suite is not None
    # The results mark the folder as complete: older ones go before their items are replaced.
    run.results(bench.suite.name).unlink(missing_ok=True)
    files.write_jsonl(run.items(bench.suite.name), done.rows)
    if all(facts["states"].get("error", 0) == facts["items"] for facts in done.results["tasks"].values()):
        raise RunError(
            Problem(run.name, "every item of the suite ended in an error", f"see {run.items(bench.suite.name)}")
        )
    asked = bench.resolved.recipe.evaluation.model_dump(mode="json", include={"batch_size", "fewshot"})
    more = {"evaluation": asked, "content": pin.suite_content(bench.suite)}
    files.write_json(run.results(bench.suite.name), done.results | more)
    for task, facts in done.results["tasks"].items():
        bench.progress.say(
            f"{run.name}  {task}: {facts['metric']} {facts['value']:.4f}  [{facts['low']:.4f}, {facts['high']:.4f}]"
        )
