"""`python -m workbench.worker.prefetch RECIPES` (a JSON file of resolved recipes): what they read from the hub into
the store that the environment names (HF_HOME), hashed, with receipts, and proved to be of use."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import bench
from workbench.errors import Problem, UserError

if TYPE_CHECKING:
    from workbench.catalog.suites import LmEval
    from workbench.progress import Progress
    from workbench.recipe.resolved import Resolved
    from workbench.worker.fetching import Brought


def main() -> int:
    """Fetch, verify, prove; a table of what is there now, and every problem of every input."""

    def work() -> None:
        if sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0")  # the bars of the hub's own library
        bench.quiet_libraries()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        from workbench import files
        from workbench.progress import Progress
        from workbench.recipe.resolved import Resolved

        asked = files.read_json(Path(sys.argv[1]))["recipes"]
        recipes = [Resolved.model_validate(values, strict=False) for values in asked]
        with Progress() as progress:
            brought, problems = _fetch(recipes, progress)
            _show(brought, progress)
        if problems:
            raise UserError(problems)

    return bench.ended(work)


def _fetch(recipes: Sequence[Resolved], progress: Progress) -> tuple[list[Brought], list[Problem]]:
    """Every input once, then the proof of those that are there."""
    from workbench import hub
    from workbench.recipe import inputs
    from workbench.worker import fetching

    store, tasks = hub.home(), _harness_tasks(recipes)
    wanted = inputs.union(one for resolved in recipes for one in inputs.repositories(resolved))
    brought: list[Brought] = []
    problems: list[Problem] = []

    def attempt(at: int, shown: str, act: Callable[[], Brought]) -> bool:
        step = f"{at}/{len(wanted) + len(tasks)} {shown}"
        progress.say(f"{step} ...")
        try:
            brought.append(act())
        except UserError as error:
            problems.extend(error.problems)
            progress.say(f"{step}: not to be had")
            return False
        return True

    lacking = [
        one for at, one in enumerate(wanted, 1) if not attempt(at, one.shown, partial(fetching.bring, one, store))
    ]
    proofs = []
    if tasks:
        from workbench.worker import harness_data  # `datasets` and more, which few suites need

        for at, (name, (task, folder)) in enumerate(tasks.items(), len(wanted) + 1):
            if attempt(at, f"lm_eval {name}", partial(harness_data.bring, task, folder, store)):
                proofs.append(partial(harness_data.build, task, folder))
    if brought:
        from workbench.worker import proving  # seconds of imports that nothing needs where nothing came

        progress.say("reading what is there, without the network ...")
        problems += proving.prove(recipes, lacking, proofs)
    return brought, problems


def _harness_tasks(recipes: Sequence[Resolved]) -> dict[str, tuple[LmEval, Path]]:
    """The tasks of lm-evaluation-harness, each once, with their suite's folder."""
    from workbench.recipe import inputs

    found: dict[str, tuple[LmEval, Path]] = {}
    for resolved in recipes:
        for task in inputs.harness_tasks(resolved):
            assert resolved.suite is not None, "it is one of the suite's"
            found.setdefault(task.task, (task, Path(resolved.suite.folder)))
    return found


def _show(brought: Sequence[Brought], progress: Progress) -> None:
    from rich.table import Table

    from workbench.visible import markup

    if not brought:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("what", "name", "commit", "files", "size", "state"):
        table.add_column(heading, justify="right" if heading in ("files", "size") else "left", no_wrap=True)
    for one in brought:
        commit = one.commit[:12] if one.what != "lm_eval" else one.commit
        state = f"[yellow]{one.state}[/]" if "damaged" in one.state else one.state
        size = f"{one.num_bytes / 1e6:,.1f} MB" if one.num_bytes >= 1e5 else f"{one.num_bytes:,} bytes"
        table.add_row(one.what, markup(one.name), commit, f"{one.num_files:,}", size, state)
    progress.console.print(table)


if __name__ == "__main__":
    sys.exit(main())
