"""A resolved recipe with all that its run will be called and known by, before there is a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import Problem, RunError
from workbench.recipe import pin
from workbench.recipe.identity import Contents, identity
from workbench.recipe.resolved import Resolved, ResolvedSuite
from workbench.runs import create, planner
from workbench.runs.run import Run


@dataclass(frozen=True)
class Planned:
    """One run that is to be, or is there already."""

    resolved: Resolved
    """With every revision pinned."""
    contents: Contents
    facts: dict[str, Any]
    """Its identity."""

    def with_seed(self, seed: int) -> Planned:
        """The same recipe with another seed: nothing has to be looked up again."""
        return self._with(seed=seed)

    def with_repeat(self, repeat: int) -> Planned:
        """The same recipe and seed once more."""
        return self._with(repeat=repeat)

    def _with(self, **fields: int) -> Planned:
        recipe = self.resolved.recipe.model_copy(update=fields)
        resolved = self.resolved.model_copy(update={"recipe": recipe})
        return Planned(resolved, self.contents, identity(resolved, self.contents))

    def find(self, root: Path) -> Run | None:
        """Its run under `root`, where there is one."""
        return create.find(root, self.resolved, self.facts)

    def is_done(self, root: Path) -> bool:
        """Whether its run is finished, and scored on the suite as it is now."""
        run = self.find(root)
        return run is not None and run.is_finished() and is_scored(run, self.resolved.suite)

    def open(self, root: Path) -> Run:
        """Its run's directory, made if it is not there, with what is predicted of it."""
        run = create.open_run(root, self.resolved, self.contents)
        if not run.adapter.exists():
            planner.write_plan(run, self.resolved)
        return run


def planned(resolved: Resolved, root: Path) -> Planned:
    """Pin what a recipe names.

    Raises:
        UserError: something is not there, or cannot be fetched; the run to start from was trained on another base.
    """
    resolved, contents = pin.pin(start_found(resolved, root))
    facts = identity(resolved, contents)
    _refuse_other_base(resolved, facts)
    return Planned(resolved, contents, facts)


def is_scored(run: Run, suite: ResolvedSuite | None) -> bool:
    """Whether the run was scored on the suite as it is now (else the worker looks at the items themselves)."""
    if suite is None:
        return True
    return suite.name in run.suites() and files.read_json(run.results(suite.name))["content"] == pin.suite_content(
        suite
    )


def start_found(resolved: Resolved, root: Path) -> Resolved:
    """`method.init_from` as the directory of the run that it names."""
    start = getattr(resolved.recipe.method, "init_from", None)
    if start is None or Path(start).is_absolute():
        return resolved
    method = resolved.recipe.method.model_copy(update={"init_from": str(create.named_run(root, start).path.absolute())})
    return resolved.model_copy(update={"recipe": resolved.recipe.model_copy(update={"method": method})})


def _refuse_other_base(resolved: Resolved, facts: dict[str, Any]) -> None:
    """Refuse to go on from a run on another base: of the same shape, nothing else would tell."""
    start = getattr(resolved.recipe.method, "init_from", None)
    run = Run(Path(start)) if start else None
    if run is None or not run.identity_file.exists():
        return
    if files.read_json(run.identity_file)["base"] != facts["base"]:
        raise RunError(
            Problem(
                "method.init_from", f"{run.name} was trained on another base", "name a run on the recipe's own base"
            )
        )
