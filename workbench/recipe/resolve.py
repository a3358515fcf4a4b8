"""Recipe -> Resolved: the only place where names meet tables. Nothing is fetched and nothing heavy is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from workbench import documents, resources
from workbench.catalog.bases import bases, pretraining_flops
from workbench.catalog.cards import Card
from workbench.catalog.suites import LmEval, Suite
from workbench.catalog.targets import TargetRow
from workbench.errors import Problem, RecipeError, UserError
from workbench.recipe import rules
from workbench.recipe.hardware import find_target, with_stated_facts
from workbench.recipe.load import Loaded, absolute, upwards
from workbench.recipe.resolved import Resolved, ResolvedBase, ResolvedCard, ResolvedSuite
from workbench.recipe.schema import Base, Lora, Qlora, Recipe

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_Found = TypeVar("_Found")


def resolve(loaded: Loaded) -> Resolved:
    """Look up every name, write out every default, and refuse what cannot work.

    Raises:
        RecipeError: with every name that is not known, or every rule that is broken (unwise ones are not told here).
    """
    resolved = looked_up(loaded)
    illegal = rules.broken(resolved, "illegal")
    if illegal:
        told = [Problem(loaded.document.where(rule.field), rule.reason, rule.advice(resolved)) for rule in illegal]
        raise RecipeError(told)
    return resolved


def looked_up(loaded: Loaded) -> Resolved:
    """Look up every name and write out every default, whatever the rules say of the result.

    Raises:
        RecipeError: with every name that is not known.
    """
    document, recipe = loaded.document, loaded.recipe
    problems: list[Problem] = []

    def attempt(act: Callable[[], _Found]) -> _Found | None:
        try:
            return act()
        except UserError as error:
            problems.extend(error.problems)
            return None

    folder = Path(document.name).absolute().parent
    base = attempt(lambda: with_pretraining(find_base(recipe.base, document.where(("base", "name")))))
    card = attempt(lambda: find_card(recipe.data.name, folder, document.where(("data", "name"))))
    target = attempt(lambda: find_target(recipe.target.name, folder, document.where(("target", "name"))))
    name = recipe.evaluation.suite
    suite = attempt(lambda: find_suite(name, folder, document.where(("evaluation", "suite")))) if name else None
    suite = suite and with_fewshot(suite, recipe.evaluation.fewshot)
    if base is None or card is None or target is None or problems:
        raise RecipeError(problems)
    target = with_stated_facts(target, recipe.target)
    return Resolved(
        recipe=written_out(recipe, base),
        base=base,
        data=card,
        suite=suite,
        target=target,
        dtype=dtype_of(recipe, target),
    )


def known_bases() -> list[str]:
    """The names of the catalog's bases."""
    return list(bases())


def find_base(base: Base, where: str) -> ResolvedBase:
    """A catalog name, a hub repository or a directory."""
    if base.name == "embedded":
        return _directory(resources.embedded_base(), where, row="embedded", licence="apache-2.0")
    if base.name.startswith("/"):
        return _directory(Path(base.name), where, row=None, licence="unknown")
    if base.name in bases():
        row = bases()[base.name]
        revision = base.revision or row.revision
        return ResolvedBase(kind="hub", location=row.hub, revision=revision, row=row.name, licence=row.licence)
    if _HUB_NAME.fullmatch(base.name):
        known = next((row for row in bases().values() if row.hub == base.name), None)
        return ResolvedBase(
            kind="hub",
            location=base.name,
            revision=base.revision or (known.revision if known else None),
            row=known.name if known else None,
            licence=known.licence if known else "unknown",
        )
    advice = documents.did_you_mean(base.name, ["embedded", *bases()])
    raise RecipeError(
        Problem(where, f"no base is called {base.name!r}", f"{advice}; or owner/name on the hub, or ./a-directory")
    )


def with_pretraining(base: ResolvedBase) -> ResolvedBase:
    """The base with what its own pretraining cost, where the catalog knows."""
    return base.model_copy(update={"pretraining_flops": pretraining_flops(base.row) if base.row else None})


def _directory(path: Path, where: str, row: str | None, licence: str) -> ResolvedBase:
    if not path.is_dir():
        raise RecipeError(Problem(where, f"there is no directory {documents.display(path)}", "see `workbench bases`"))
    if not (path / "config.json").exists():
        raise RecipeError(
            Problem(
                where,
                f"{documents.display(path)} has no config.json",
                "a base is a folder as transformers' save_pretrained writes it",
            )
        )
    return ResolvedBase(kind="directory", location=str(path.resolve()), revision=None, row=row, licence=licence)


def find_card(name: str, folder: Path, where: str) -> ResolvedCard:
    """The card at a path, or `datasets/NAME.yaml` in the nearest folder upwards, else the shipped one.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    path = Path(absolute(name, folder))
    if not path.is_absolute():
        path = upwards(folder, Path("datasets") / f"{name}.yaml") or resources.shipped("datasets") / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in resources.shipped("datasets").glob("*.yaml"))
        names += sorted(p.stem for p in (folder / "datasets").glob("*.yaml"))
        own = f"; or write your own: {documents.display(folder / 'datasets' / f'{name}.yaml')}"
        advice = documents.did_you_mean(name, names) + own
        raise RecipeError(Problem(where, f"no dataset card is called {name!r}", advice))
    document = documents.read(path)
    card = documents.check(Card, document)
    return ResolvedCard(name=path.stem, folder=str(path.parent.resolve()), card=card)


def find_suite(name: str, folder: Path, where: str) -> ResolvedSuite:
    """The suite at a path, or `recipes/suites/NAME.yaml` nearby, else the shipped one, with its cards.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    path = Path(absolute(name, folder))
    path = folder / name if name.endswith((".yaml", ".yml")) and (folder / name).is_file() else path
    if not path.is_absolute():
        file = Path("suites") / f"{name}.yaml"
        nearby = upwards(folder, file) or upwards(folder, Path("recipes") / file)
        path = nearby or resources.shipped("recipes") / file
    if not path.is_file():
        known = sorted(p.stem for p in (resources.shipped("recipes") / "suites").glob("*.yaml"))
        raise RecipeError(Problem(where, f"no suite is called {name!r}", documents.did_you_mean(name, known)))
    document = documents.read(path)
    suite = documents.check(Suite, document)
    ids = [task.id for task in suite.tasks]
    problems = [
        Problem(document.where(("tasks", at, "id")), f"the id {name!r} stands twice", "give each task its own")
        for at, name in enumerate(ids)
        if name in ids[:at]
    ]
    cards: dict[str, ResolvedCard] = {}
    for at, task in enumerate(suite.tasks):
        if isinstance(task, LmEval):
            continue
        try:
            card = find_card(task.data, path.parent, document.where(("tasks", at, "data")))
            for key, split in task.splits().items():
                if split not in card.card.splits and card.card.source.directory is None:
                    advice = documents.did_you_mean(split, list(card.card.splits))
                    problems.append(Problem(document.where(("tasks", at, key)), f"the card has no {split!r}", advice))
            cards[task.data] = card
        except RecipeError as error:
            problems.extend(error.problems)
    if problems:
        raise RecipeError(problems)
    return ResolvedSuite(name=path.stem, folder=str(path.parent.resolve()), suite=suite, cards=cards)


def with_fewshot(suite: ResolvedSuite, fewshot: int | None) -> ResolvedSuite:
    """The suite with so many solved examples before each prompted item; as it is where that is not said."""
    if fewshot is None:
        return suite
    tasks = [task.model_copy(update={"fewshot": fewshot}) if hasattr(task, "fewshot") else task
             for task in suite.suite.tasks]  # fmt: skip
    changed = suite.suite.model_copy(update={"tasks": tasks, "fingerprint": None})  # frozen with its own examples
    return suite.model_copy(update={"name": f"{suite.name}-{fewshot}shot", "file": suite.name, "suite": changed})


def _takes_flattened(recipe: Recipe, base: ResolvedBase) -> bool:
    """Whether rows end to end are kept apart and cost no more: variable lengths in the attention, next-token training,
    and a base that is known to have no state that runs on over row borders."""
    row = bases().get(base.row or "")
    varying = recipe.target.attention == "flash_attention_2" and recipe.objective.name != "dpo"
    return varying and row is not None and row.shape.linear_attention is None and "GptOss" not in row.architecture


def written_out(recipe: Recipe, base: ResolvedBase) -> Recipe:
    """The recipe with the defaults that depend on other fields: alpha, one epoch, the sharding, the layout."""
    changes: dict[str, object] = {}
    if isinstance(recipe.method, Lora | Qlora) and recipe.method.alpha is None:
        changes["method"] = recipe.method.model_copy(update={"alpha": 2.0 * recipe.method.rank})
    target = recipe.target
    if target.sharding == "auto":
        target = target.model_copy(update={"sharding": "ddp" if target.devices * target.nodes > 1 else "none"})
    if target.layout == "auto":
        target = target.model_copy(update={"layout": "flattened" if _takes_flattened(recipe, base) else "padded"})
    changes["target"] = target
    if recipe.training.epochs is None and recipe.training.steps is None:
        changes["training"] = recipe.training.model_copy(update={"epochs": 1.0})
    return recipe.model_copy(update=changes)


def dtype_of(recipe: Recipe, target: TargetRow) -> Literal["fp32", "fp16", "bf16"]:
    """Storage of frozen weights and arithmetic: what `training.precision` becomes on a target."""
    if recipe.training.precision == "auto":
        return "bf16" if target.bf16 else "fp32"
    return recipe.training.precision
