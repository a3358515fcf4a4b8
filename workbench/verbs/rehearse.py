"""rehearse: a whole recipe in miniature before it costs anything."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from workbench import files
from workbench.errors import Problem, RunError, UserError
from workbench.launch import local
from workbench.recipe import pin, resolve
from workbench.recipe.load import load
from workbench.recipe.resolved import Resolved
from workbench.runs.planned import start_found
from workbench.verbs import terminal
from workbench.visible import markup


def rehearse(recipe: Path, overrides: Sequence[str], root: Path, keep: Path | None) -> None:
    """Look up what the recipe names (but no weights), then every stage on a twin of its base."""
    console = terminal.console()
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise RunError(Problem(str(keep), "is not empty", "name a new directory for --keep"))
    resolved = resolve.resolve(load(recipe, overrides))
    console.print(f"rehearsing {markup(resolved.name)} ...", style="dim")
    found = _looked_up(start_found(resolved, root))
    with tempfile.TemporaryDirectory() as folder:  # a command line takes only so many bytes
        asked = Path(folder) / "asked.json"
        files.write_json(asked, found.model_dump(mode="json"))
        kept = [] if keep is None else [str(_made(keep))]
        sys.exit(local.run_bench("workbench.worker.rehearse", str(asked), str(root.absolute()), *kept))


def _made(keep: Path) -> Path:
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(files.unwritable(keep, error)) from error
    return keep.absolute()


def _looked_up(resolved: Resolved) -> Resolved:
    """With every revision a commit. Base, rows and items are asked for one by one: all that cannot be fetched is said.

    Raises:
        UserError: with everything that is not to be had.
    """
    problems: list[Problem] = []

    def attempt(act: Callable[[], object]) -> None:
        try:
            act()
        except UserError as error:
            problems.extend(error.problems)

    light = pin.without_weights(resolved)
    attempt(lambda: pin.pin_base(light))
    if resolved.trains:
        attempt(lambda: pin.split_files(resolved.data, resolved.recipe.data.split))
    for card in resolved.suite.cards.values() if resolved.suite else ():
        attempt(partial(pin.pin_card, card))
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    pinned, _ = pin.pin(light)
    return pinned.model_copy(update={"recipe": resolved.recipe})
