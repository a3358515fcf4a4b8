"""Tasks of lm-evaluation-harness on the model that is loaded already, turned into our rows.

Its own request cache is not keyed by the model (a base would be given the adapter's scores), so it is never used; its
standard errors are left aside too: our comparison works on the rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.catalog.suites import LmEval
from workbench.errors import EvaluationError, Problem
from workbench.evaluation.scoring import Row, Scorer


def run(task: LmEval, folder: Path, scorer: Scorer) -> tuple[list[Row], str]:
    """One row a document, and a hash over the documents and prompts (part of the results' fingerprint).

    Raises:
        EvaluationError: the extra is not installed, there is no such task, or it has no such metric.
    """
    # Imported here: an optional extra, and seconds of import for whoever does not use it.
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise EvaluationError(
            Problem(f"task {task.id}", "lm-evaluation-harness is not installed", "pip install 'workbench[lm-eval]'")
        ) from None
    local = folder / task.task
    manager, wanted = _tasks(TaskManager, task, local)
    language_model = HFLM(
        pretrained=scorer.model,
        tokenizer=scorer.renderer.tokenizer,
        batch_size=scorer.batch_size,
        max_length=scorer.max_length,
    )
    try:
        found = lm_eval.simple_evaluate(
            model=language_model,
            tasks=[wanted],
            num_fewshot=task.fewshot,
            limit=task.max_items,
            task_manager=manager,
            apply_chat_template=scorer.renderer.template is not None,
            log_samples=True,
            bootstrap_iters=0,
        )
    except (KeyError, ValueError, OSError) as error:
        raise EvaluationError(
            Problem(f"task {task.id}", f"lm-evaluation-harness cannot run it: {str(error).splitlines()[0][:200]}")
        ) from None
    samples = [sample for rows in found["samples"].values() for sample in rows]
    return _rows(task, samples)


def _tasks(manager_class: Any, task: LmEval, local: Path) -> tuple[Any, Any]:
    if task.task.endswith((".yaml", ".yml")):
        if not local.is_file():
            raise EvaluationError(Problem(f"task {task.id}", f"there is no task file {local}"))
        return manager_class(include_path=str(local.parent), include_defaults=False), local.stem
    return manager_class(), task.task


def _rows(task: LmEval, samples: list[dict[str, Any]]) -> tuple[list[Row], str]:
    rows: list[Row] = []
    seen: set[tuple[Any, Any]] = set()
    hashes = []
    for sample in samples:
        key = (sample["doc_id"], sample.get("filter"))
        if key in seen:
            continue
        seen.add(key)
        if task.primary not in sample:
            names = ", ".join(sorted(sample["metrics"]))
            raise EvaluationError(
                Problem(f"task {task.id} primary", f"the task has no metric {task.primary!r}", f"it has: {names}")
            )
        value = sample[task.primary]
        weight = 1.0
        if isinstance(value, tuple | list):  # rolling log-likelihoods: (log-probability, bytes)
            value, weight = -value[0] / value[1], float(value[1])
        name = f"{sample['doc_id']}" + (f":{sample['filter']}" if sample.get("filter") not in (None, "none") else "")
        rows.append(
            {
                "id": name,
                "cluster": str(sample["doc_id"]),
                "value": float(value),
                "weight": weight,
                "state": "ok",
                "output": str(sample["filtered_resps"])[:2000],
                "expected": str(sample["target"]),
            }
        )
        hashes.append([sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]])
    return rows, str(hashes)
