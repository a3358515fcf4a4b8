"""A recipe in miniature: the same method, objective, target and tasks on the base's twin, with few of the real rows and
items (the longest) and few steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import twins
from workbench.catalog.cards import Source, Split
from workbench.catalog.suites import Generate, Heldout, LmEval, OwnTask, Suite
from workbench.data import formats, splits
from workbench.data.formats import BadRow, Example
from workbench.recipe import hardware, pin
from workbench.recipe.resolved import Resolved, ResolvedBase, ResolvedCard, ResolvedSuite
from workbench.recipe.schema import Lora, Oft, Qlora, Recipe, Target, Vera
from workbench.recipe.section import Section
from workbench.recipe.tracking import Tracking
from workbench.training.memory import accelerator
from workbench.worker.preflight import lengths_of
from workbench.worker.setup import Bench

STEPS = 4
_BATCH_SIZE = 4
_MOST_ROWS = 32
_MOST_TOKENS = 16_384
"""Of all chosen rows together."""
_LONGEST_ROW_TOKENS = 4096
"""Longer rows are left to the pre-flight on the real device, where others are to be had."""
_WINDOW_TOKENS = 1024
"""Raw text is cut into windows of this length."""
_ITEMS = 3
_NEW_TOKENS = 48
_RANK = 8
_BLOCK_SIZE = 16


def make(bench: Bench, rows: Any, layers: Sequence[str], folder: Path) -> Resolved:
    """Write the twin and the chosen rows and items, and return the recipe over them.

    Args:
        rows: all prepared rows; None where nothing is trained.
        layers: last name parts of the layers that the real adapter sits on.
    """
    resolved = bench.resolved
    twins.make(bench.loading, folder / "base")
    card = resolved.data
    if rows is not None:
        chosen = _longest(rows)
        paths = pin.split_files(card, resolved.recipe.data.split)
        found = formats.examples(paths, card.card, resolved.recipe.data.split)
        values = (row.values for row in found if isinstance(row, Example) and _place(row.where) in chosen)
        card = _card(card, folder / "rows", {resolved.recipe.data.split: values})
    row = _target_row(resolved)
    on_cpu = row.device == "cpu"
    dtype = "fp32" if on_cpu and resolved.dtype == "fp16" else resolved.dtype
    return resolved.model_copy(
        update={
            "recipe": _recipe(resolved.recipe, folder / "base", layers, on_cpu),
            "base": ResolvedBase(
                kind="directory", location=str(folder / "base"), revision=None, row=None, licence=resolved.base.licence
            ),
            "data": card,
            "suite": _suite(resolved.suite, folder / "items") if resolved.suite else None,
            "target": row,
            "dtype": dtype,
        }
    )


def is_here(device: str) -> bool:
    """Whether torch sees such a device on this machine."""
    module = accelerator(device)
    return device == "cpu" or (module is not None and bool(module.is_available()))


def _target_row(resolved: Resolved) -> Any:
    if is_here(resolved.target.device):
        return resolved.target
    return hardware.find_target("cpu", Path(resolved.data.folder), "target")


def _longest(rows: Any) -> set[str]:
    """Where the longest rows stand in their files, some dozens of them."""
    sequences, lengths = lengths_of(rows)
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    short = [at for at in order if lengths[at] <= _LONGEST_ROW_TOKENS]
    chosen: set[str] = set()
    tokens = 0
    for at in short or order[-_BATCH_SIZE:]:
        tokens += sequences * lengths[at]
        if chosen and (tokens > _MOST_TOKENS or len(chosen) == _MOST_ROWS):
            break
        chosen.add(_place(rows[at]["row"]))
    return chosen


def _place(where: str) -> str:
    """A row's file and line without the folder: tokenised rows may have been written from another one."""
    return Path(where).name


def _card(card: ResolvedCard, folder: Path, rows: Mapping[str, Iterable[Any]]) -> ResolvedCard:
    """The card over files of our own: its rows by split, as JSONL."""
    folder.mkdir(parents=True)
    for split, values in rows.items():
        lines = (json.dumps(dict(one), ensure_ascii=False, default=str) + "\n" for one in values)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    changes = {
        "source": Source(),
        "splits": {split: Split(files=f"{split}.jsonl") for split in rows},
        "separator": None,
        "document_bytes": None,
    }
    return ResolvedCard(name=card.name, folder=str(folder), card=card.card.model_copy(update=changes))


def _suite(suite: ResolvedSuite, folder: Path) -> ResolvedSuite:
    """The tasks with the longest few of their items each."""
    tasks: list[Any] = []
    cards = {}
    for task in suite.suite.tasks:
        if isinstance(task, LmEval):
            tasks.append(task.model_copy(update={"max_items": min(task.max_items or 2, 2)}))
            continue
        card = suite.cards[task.data]
        rows = {split: list(_few(task, card, split)) for split in set(task.splits().values())}
        cards[task.id] = _card(card, folder / task.id, rows)
        changes: dict[str, Any] = {"data": task.id, "max_items": None}
        if isinstance(task, Generate):
            changes["max_new_tokens"] = min(task.max_new_tokens, _NEW_TOKENS)
        tasks.append(task.model_copy(update=changes))
    few = Suite(description=suite.suite.description, tasks=tasks)
    return suite.model_copy(update={"suite": few, "cards": cards})


def _few(task: OwnTask, card: ResolvedCard, split: str) -> Iterator[dict[str, Any]]:
    """The longest rows of a split; of solved examples those that come first."""
    found = formats.examples(pin.split_files(card, split), card.card, split)
    rows = [row for row in found if not isinstance(row, BadRow)]
    rows.sort(key=lambda row: (-len(row.prompt_text()), row.where))
    chosen = rows[:_ITEMS]
    shots = getattr(task, "fewshot", 0)
    if shots and split == getattr(task, "fewshot_split", None):
        ranked = sorted(rows, key=lambda row: splits.position(formats.content_key(row.values), 0, "items"))
        chosen += [row for row in ranked[: shots + _ITEMS] if row not in chosen]
    column = card.card.columns.get("text", "text")
    for row in chosen:
        values = dict(row.values)
        if isinstance(task, Heldout) and column in values:
            values[column] = values[column][: 2 * task.max_bytes]
        yield values


def _recipe(recipe: Recipe, base: Path, layers: Sequence[str], on_cpu: bool) -> Recipe:
    training, data = recipe.training, recipe.data
    paged = on_cpu and training.optimizer.startswith("paged")
    window = min(data.max_length or _WINDOW_TOKENS, _WINDOW_TOKENS)
    return recipe.model_copy(
        update={
            "name": "rehearsal",
            "base": recipe.base.model_copy(update={"name": str(base), "revision": None}),
            "method": _method(recipe.method, layers),
            "training": training.model_copy(
                update={
                    "epochs": None,
                    "steps": STEPS,
                    "batch_size": min(training.batch_size, _BATCH_SIZE),
                    "checkpoint_every": 2,
                    "optimizer": "adamw_8bit" if paged else training.optimizer,
                }
            ),
            "data": data.model_copy(
                update={
                    "fraction": 1.0,
                    "max_length": window if recipe.objective.name == "pretrain" else data.max_length,
                }
            ),
            "evaluation": recipe.evaluation.model_copy(update={"batch_size": min(recipe.evaluation.batch_size, 2)}),
            "target": _target(recipe.target, on_cpu),
            "tracking": Tracking(),
        }
    )


def _target(target: Target, on_cpu: bool) -> Target:
    """One process; on a CPU without what only accelerators have."""
    changes: dict[str, Any] = {"devices": 1, "nodes": 1, "sharding": "none"}
    if on_cpu:
        flash = target.attention == "flash_attention_2"
        changes |= {"name": "cpu", "kernels": "torch", "compile": False}
        changes |= {"attention": "auto" if flash else target.attention}
    return target.model_copy(update=changes)


def _method(method: Section, layers: Sequence[str]) -> Any:
    """The method at a size that fits the twin, on layers of the same names."""
    changes: dict[str, Any] = {}
    if isinstance(method, Lora | Qlora):
        rank = min(method.rank, _RANK)
        changes = {"rank": rank, "alpha": (method.alpha or 2.0 * method.rank) * rank / method.rank, "init_from": None}
    elif isinstance(method, Vera):
        changes = {"rank": min(method.rank, _RANK)}
    elif isinstance(method, Oft):
        changes = {"block_size": 1 << (min(method.block_size, _BLOCK_SIZE).bit_length() - 1)}
    if isinstance(getattr(method, "targets", None), list):  # a glob may name layers that the twin does not have
        changes["targets"] = list(layers)
    return method.model_copy(update=changes)
