"""publish: show finished runs, and a study's verdict, in the trackers that the recipe names."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workbench import documents, files
from workbench.compare.folder import is_judged, verdict_in
from workbench.errors import ExitStatus, Problem, RunError
from workbench.launch import local, showing
from workbench.launch.showing import Shown
from workbench.recipe.load import tracking_over
from workbench.recipe.trackers import NAMES, asked, mode
from workbench.recipe.tracking import Tracking, Wandb
from workbench.runs import create, ledger, soundness
from workbench.runs.run import Run
from workbench.study import load as studies
from workbench.study.plan import resolved_arms
from workbench.verbs import terminal
from workbench.visible import markup

VIEWS = "workbench.tracking.views"
SPECIFICATION = "wandb-views.json"
"""A study's comparison views, as W&B's own library writes them down."""


@dataclass(frozen=True)
class _Wanted:
    """What is to be shown, and where."""

    tracking: Tracking
    shown: Sequence[Shown]
    study: Path | None = None
    """The folder of the verdict."""


def publish(name: str, overrides: Sequence[str], dry_run: bool, root: Path) -> None:
    """Show a finished run, or a judged study with all its runs; a dry run only writes down a study's views."""
    console = terminal.console()
    path = Path(name)
    wanted = _of_study(path, overrides, root) if studies.is_study(path) else _of_run(name, overrides, root)
    if not dry_run:
        _show(console, wanted, root)
    if wanted.study is not None and wanted.tracking.wandb is not None:
        _views(console, wanted.study, wanted.tracking.wandb, root, dry_run)
    elif dry_run:
        _list(console, wanted)


def _of_run(name: str, overrides: Sequence[str], root: Path) -> _Wanted:
    run = create.named_run(root, name)
    _refuse_unready([run])
    return _Wanted(_first_named([tracking_over(run.resolved().recipe.tracking, overrides)]), [Shown(run)])


def _of_study(path: Path, overrides: Sequence[str], root: Path) -> _Wanted:
    """A study's runs are those of its verdict.

    Raises:
        RunError: it has none yet, or its runs are gone.
    """
    loaded = studies.load(path)
    folder = root / "studies" / loaded.name
    if not is_judged(folder):
        advice = f"workbench study {documents.display(path)}{terminal.elsewhere(root)}"
        raise RunError(Problem(loaded.name, "has no verdict yet", advice))
    arms = verdict_in(folder)["arms"]
    shown = [Shown(Run(root / run), loaded.name, arm["name"]) for arm in arms for run in arm["runs"]]
    _refuse_unready([one.run for one in shown])
    return _Wanted(_first_named(one.recipe.tracking for one in resolved_arms(loaded, overrides)), shown, folder)


def _first_named(several: Iterable[Tracking]) -> Tracking:
    """The first in which a tracker is named; where none is at all, W&B.

    Raises:
        RunError: the only one that is named is disabled.
    """
    named = (tracking for tracking in several if any(getattr(tracking, kind) is not None for kind in NAMES))
    tracking = next(named, Tracking(wandb=Wandb()))
    if not asked(tracking):
        found, advice = (
            "is disabled, and no other tracker is named",
            "--set tracking.wandb.mode=offline, or another one",
        )
        raise RunError(Problem("tracking.wandb.mode", found, advice))
    return tracking


def _refuse_unready(runs: Sequence[Run]) -> None:
    """Only what is finished and sound can be shown."""
    problems = []
    for run in runs:
        state = ledger.state(run) if run.path.is_dir() else "missing"
        if state == "running":
            problems.append(Problem(run.name, "is running", "its trackers follow it; publish it when it has ended"))
        elif state != "finished":
            problems.append(Problem(run.name, f"is {state}", "only a finished run can be published"))
    if problems:
        raise RunError(problems)
    soundness.refuse_damaged(runs)


def _show(console: Console, wanted: _Wanted, root: Path) -> None:
    """Hand everything to every tracker.

    Raises:
        SystemExit: one of them failed (the others were asked all the same), or it was stopped.
    """
    status = 0
    for kind in asked(wanted.tracking):
        line = showing.arguments(kind, wanted.tracking, wanted.shown, root, study=wanted.study)
        failed = local.run_bench(showing.MODULE, *line)
        if failed in (ExitStatus.INTERRUPTED, ExitStatus.PREEMPTED):
            sys.exit(failed)
        status = status or failed
        if not failed:
            _tell(console, kind, wanted)
    if status:
        sys.exit(status)


def _tell(console: Console, kind: str, wanted: _Wanted) -> None:
    """Where it can be looked at now."""
    addresses = [files.read_json(one.run.tracked(kind))["address"] for one in wanted.shown]
    count = f"{len(addresses)} runs and the verdict" if wanted.study else wanted.shown[0].run.name
    if kind == "wandb" and wanted.tracking.wandb is not None and mode(wanted.tracking.wandb) == "offline":
        console.print(f"W&B: {markup(count)}, kept in their directories: no key is set up here, or no network is meant")
        console.print("where there is a key, the same command sends all of it (wandb sync would too)", style="dim")
    else:
        console.print(f"{NAMES[kind]} has {markup(count)}: {markup(str(addresses[-1]))}")


def _list(console: Console, wanted: _Wanted) -> None:
    """What would be shown where."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", no_wrap=True)
    table.add_column("would be shown in")
    where = ", ".join(NAMES[kind] for kind in asked(wanted.tracking)) or "nothing"
    for one in wanted.shown:
        table.add_row(markup(one.run.name), where)
    console.print(table)


def _views(console: Console, study: Path, settings: Wandb, root: Path, dry_run: bool) -> None:
    """Save a study's comparison views on the server, or write them down."""
    save = not dry_run and mode(settings) == "online"
    target = study / SPECIFICATION
    line = [str(study), str(root.absolute()), settings.project, settings.entity or "", str(target), str(int(save))]
    status = local.run_bench(VIEWS, *line)
    if status:
        sys.exit(status)
    if not save:
        console.print(f"the comparison views, for when they can be saved: {markup(documents.display(target))}")
