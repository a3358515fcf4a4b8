"""Small recipes for the tests of training: rows, their card, a recipe; trained through the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from conftest import Outcome, write_rows

from workbench import files
from workbench.runs.run import Run

Workbench = Callable[..., Outcome]

_ANIMALS = ("cat", "dog", "ball", "park", "mat", "red cat", "red dog", "big red ball")


def questions(count: int = 16) -> list[dict[str, Any]]:
    """Prompt-completion rows of differing lengths."""
    return [
        {
            "prompt": f"where is the {_ANIMALS[at % 8]} number {at}" + " and the dog" * (at % 5) + "?",
            "completion": f"on the {_ANIMALS[at * 3 % 8]}" + " with the cat" * (at % 3),
        }
        for at in range(count)
    ]


def preferences(count: int = 8) -> list[dict[str, Any]]:
    """Pairs whose chosen answers share a word that the rejected ones lack."""
    return [
        {
            "prompt": f"where is the {_ANIMALS[at % 8]} number {at}?",
            "chosen": "the cat sat on the mat" + " with a ball" * (at % 3),
            "rejected": "ran to the park" + " and ran" * (at % 2),
        }
        for at in range(count)
    ]


def write_recipe(
    folder: Path, base: Path, rows: Sequence[dict[str, Any]], form: str = "prompt_completion", **sections: Any
) -> Path:
    """A card over the rows and a recipe of few steps over it; `sections` are laid over the recipe's own."""
    write_rows(folder / "rows" / "train.jsonl", list(rows))
    card = folder / "datasets" / "rows.yaml"
    card.parent.mkdir(exist_ok=True)
    card.write_text(yaml.safe_dump({"format": form, "splits": {"train": {"files": "../rows/train.jsonl"}}}))
    values: dict[str, Any] = {
        "base": {"name": str(base)},
        "method": {"name": "lora", "rank": 4},
        "data": {"name": "rows"},
        "training": {"steps": 8, "batch_size": 4, "learning_rate": 1e-2},
        "target": {"name": "cpu", "threads": 1},
    }
    for section, fields in sections.items():
        values[section] = {**values.get(section, {}), **fields} if isinstance(fields, dict) else fields
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    return recipe


def call(workbench: Workbench, recipe: Path, root: Path, *settings: str) -> Outcome:
    """`workbench train` with a `--set` for each setting."""
    overrides = [word for setting in settings for word in ("--set", setting)]
    return workbench("train", str(recipe), "--runs", str(root), *overrides)


def train(workbench: Workbench, recipe: Path, root: Path, *settings: str) -> Run:
    """The finished run of a recipe; the same one again where it is there already."""
    outcome = call(workbench, recipe, root, *settings)
    assert outcome.status == 0, outcome.output
    return run_of(outcome, root)


def run_of(outcome: Outcome, root: Path) -> Run:
    """The run that an outcome speaks of."""
    named = re.search(r"^run (\S+)$|^(\S+) is finished already", outcome.output, re.MULTILINE)
    assert named is not None, outcome.output
    return Run(Path(named[1]).absolute() if named[1] else root / named[2])


def losses(run: Run) -> list[float]:
    """The logged loss of every step."""
    return [row["loss"] for row in files.read_jsonl(run.metrics)]
