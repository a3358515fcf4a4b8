"""Tasks of lm-evaluation-harness on the model that is loaded already, turned into our rows.

Its own request cache is not keyed by the model (a base would be given the adapter's scores), so it is never used; its
standard errors are left aside too: our comparison works on the rows.
"""

from __future__ import annotations

import contextlib
import copy
import math
from pathlib import Path
from typing import Any

from workbench import documents
from workbench.catalog.suites import LOWER_IS_BETTER, LmEval
from workbench.errors import EvaluationError, Problem
from workbench.evaluation.scoring import Row, Scorer
from workbench.recipe import pin

_SHOWN_CHARACTERS = 2000


def run(task: LmEval, folder: Path, scorer: Scorer) -> tuple[list[Row], str]:
    """One row a document, and a hash over the documents and prompts (part of the results' fingerprint).

    Raises:
        EvaluationError: the extra is not installed, there is no such task, or its metric is not one value a document.
    """
    manager, name = find(task, folder)
    # Imported here: an optional extra, and seconds of import for whoever does not use it.
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    local = folder / task.task
    language_model = HFLM(
        pretrained=scorer.model,
        tokenizer=_templated(scorer),
        batch_size=scorer.batch_size,
        max_length=scorer.max_length,
    )
    try:
        # Paths in a task file are relative to it; the library takes them as relative to the working directory.
        with contextlib.chdir(local.parent) if task.is_file else contextlib.nullcontext():
            found = lm_eval.simple_evaluate(
                model=language_model,
                tasks=[name],
                num_fewshot=task.fewshot,
                limit=task.max_items,
                task_manager=manager,
                system_instruction=scorer.renderer.system,
                apply_chat_template=scorer.renderer.template is not None,
                log_samples=True,
                bootstrap_iters=0,
            )
    except (KeyError, ValueError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise EvaluationError(
            Problem(f"task {task.id}", f"lm-evaluation-harness cannot run it: {first[:200]}")
        ) from None
    _refuse_other_direction(task, found["higher_is_better"])
    return _rows(task, found["samples"])


def find(task: LmEval, folder: Path) -> tuple[Any, str]:
    """The library's index of tasks, and what it calls this one.

    Args:
        folder: of the suite; a path to a task file is relative to it.

    Raises:
        EvaluationError: the extra is not installed, or there is no such task.
    """
    # Imported here: an optional extra, and seconds of import for whoever does not use it.
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise EvaluationError(
            Problem(f"task {task.id}", "lm-evaluation-harness is not installed", "pip install 'workbench[lm-eval]'")
        ) from None
    if task.is_file:
        local = pin.task_file(task, folder)
        manager = TaskManager(include_path=str(local.parent), include_defaults=False)
        return manager, _name_in(manager, local)
    manager = TaskManager()
    if not manager.match_tasks([task.task]):
        advice = documents.did_you_mean(task.task, manager.all_tasks)
        raise EvaluationError(Problem(f"task {task.id}", f"lm-evaluation-harness has no task {task.task!r}", advice))
    return manager, task.task


def _refuse_other_direction(task: LmEval, directions: dict[str, dict[str, bool]]) -> None:
    """A metric of which less is better, unbeknown to us, would be read the wrong way round."""
    metric = task.primary.partition(",")[0]
    for name, known in directions.items():
        if metric in known and known[metric] is not (metric not in LOWER_IS_BETTER):
            raise _refused(task, f"of {metric} in {name} less is better, which cannot be told here", "take another one")


def _name_in(manager: Any, local: Path) -> str:
    """What the task or group in a file is called; the file itself where another one beside it has that name."""
    names = [name for name, entry in manager.task_index.items() if entry.yaml_path == local.resolve()]
    return str(names[0] if names else local)


def _templated(scorer: Scorer) -> Any:
    """The tokenizer with the template that the run was trained with (the library takes it from there)."""
    tokenizer = copy.deepcopy(scorer.renderer.tokenizer)
    tokenizer.chat_template = scorer.renderer.template
    return tokenizer


def _rows(task: LmEval, samples: dict[str, list[dict[str, Any]]]) -> tuple[list[Row], str]:
    metric, _, wanted = task.primary.partition(",")
    filters = sorted({str(sample["filter"]) for found in samples.values() for sample in found})
    if not wanted and len(filters) > 1:
        raise _refused(
            task,
            f"the task extracts answers in several ways: {', '.join(filters)}",
            f"name one, such as primary: {metric},{filters[0]}",
        )
    rows: dict[str, Row] = {}
    hashes = []
    for name, found in sorted(samples.items()):
        for sample in found:
            key = str(sample["doc_id"]) if len(samples) == 1 else f"{name}:{sample['doc_id']}"
            if key in rows or (wanted and sample["filter"] != wanted):
                continue
            value, weight = _value(task, metric, sample)
            rows[key] = {
                "id": key,
                "cluster": key,
                "value": value,
                "weight": weight,
                "state": "ok",
                "question": _question(sample),
                "output": str(sample["filtered_resps"])[:_SHOWN_CHARACTERS],
                "expected": str(sample["target"]),
            }
            hashes.append([key, sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]])
    if not rows:
        raise _refused(task, f"the task has no filter {wanted!r}", f"it has: {', '.join(filters)}")
    return list(rows.values()), str(hashes)


def _question(sample: dict[str, Any]) -> str:
    """The end of the prompt, where the question stands (solved examples come before it); of several, the first."""
    return str(sample["arguments"][0][0])[-_SHOWN_CHARACTERS:]


def _value(task: LmEval, metric: str, sample: dict[str, Any]) -> tuple[float, float]:
    """One document's value and its weight in the metric."""
    if metric not in sample["metrics"]:
        raise _refused(task, f"the task has no metric {metric!r}", f"it has: {', '.join(sorted(sample['metrics']))}")
    value = sample[metric]
    if metric == "bits_per_byte":  # of rolling log-likelihoods: (nats, bytes)
        return -value[0] / value[1] / math.log(2.0), float(value[1])
    if not isinstance(value, int | float) or metric.endswith("perplexity"):
        raise _refused(
            task,
            f"{metric!r} is no mean over documents, so there is nothing to pair two models by",
            "take a metric with a value a document, such as acc, exact_match or bits_per_byte",
        )
    return float(value), 1.0


def _refused(task: LmEval, found: str, do: str) -> EvaluationError:
    return EvaluationError(Problem(f"task {task.id} primary", found, do))
