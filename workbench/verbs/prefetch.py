"""prefetch: what a recipe or a study reads from the hub into the store, while there is a network."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from workbench import files, hub
from workbench.errors import RecipeError, UserError
from workbench.launch import local, profiles
from workbench.recipe import inputs, resolve
from workbench.recipe import load as recipes
from workbench.recipe.resolved import Resolved
from workbench.runs import store as stores
from workbench.runs.planned import start_found
from workbench.study import load as studies
from workbench.study.plan import resolved_arms
from workbench.verbs import terminal
from workbench.visible import markup


def prefetch(file: Path, overrides: Sequence[str], root: Path) -> None:
    """Look up what is read from the hub, and bring it in a bench process."""
    console = terminal.console()
    found = (studies if studies.is_study(file) else recipes).find(file).absolute()
    resolved = _resolved(found, overrides)
    _say_starts(resolved, root)
    from_hub = [one for one in resolved if inputs.repositories(one) or inputs.harness_tasks(one)]
    if not from_hub:
        console.print("nothing is read from the hub: all of it lies on this machine (can the cluster's nodes see it?)")
        return
    store = _store(resolved, found.parent)
    if store == hub.home().absolute() and hub.cache_folder().absolute() != store / "hub":
        advice = f"HF_HUB_CACHE names {hub.cache_folder()}; what reads the store needs it unset and HF_HOME={store}"
        console.print(markup(advice), style="yellow")
    console.print(f"prefetching into {markup(str(store))} ...", style="dim")
    with tempfile.TemporaryDirectory() as folder:  # a command line takes only so many bytes
        asked = Path(folder) / "recipes.json"
        files.write_json(asked, {"recipes": [one.model_dump(mode="json") for one in from_hub]})
        sys.exit(local.run_bench("workbench.worker.prefetch", str(asked), environment=stores.environment(store)))


def _store(resolved: Sequence[Resolved], folder: Path) -> Path:
    """The store of the cluster that they would be submitted to; where none can be told, the shell's own."""
    try:
        cluster = profiles.choose(resolved[0].recipe.target, folder, "target")
    except RecipeError:
        if resolved[0].recipe.target.cluster is not None:
            raise
        return profiles.store_of(None)
    return profiles.store_of(cluster)


def _resolved(file: Path, overrides: Sequence[str]) -> list[Resolved]:
    """The recipe, or all arms of the study.

    Raises:
        RecipeError: with every problem of every arm.
    """
    if studies.is_study(file):
        return resolved_arms(studies.load(file), overrides)
    return [resolve.resolve(recipes.load(file, overrides))]


def _say_starts(resolved: Sequence[Resolved], root: Path) -> None:
    """Runs that training starts from and that are not there: a run is no input that could be fetched."""
    told = set()
    for one in resolved:
        try:
            start_found(one, root)
        except UserError as error:
            told |= {str(problem) for problem in error.problems}
    for text in sorted(told):
        terminal.console().print(markup(f"to be trained first: {text}"), style="yellow")
