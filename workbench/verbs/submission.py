"""Handing work to Slurm: a recipe's run, and what a study's runs share with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from workbench import files
from workbench.errors import Problem, RecipeError, RunError
from workbench.launch import profiles, queue, script, slurm
from workbench.launch.profiles import Cluster
from workbench.launch.script import Step
from workbench.recipe import resolve
from workbench.recipe.load import load
from workbench.recipe.resolved import Resolved
from workbench.recipe.schema import Target
from workbench.runs import create, jobs, ledger, lock, planner
from workbench.runs import store as stores
from workbench.runs.jobs import Job
from workbench.runs.planned import planned
from workbench.runs.run import Run
from workbench.verbs import terminal
from workbench.visible import markup


@dataclass(frozen=True)
class Wish:
    """How something is to be submitted."""

    root: Path
    """Of the run directories, absolute."""
    dry_run: bool = False
    """Print the scripts, hand nothing in."""
    time: str | None = None
    """Another limit than the profile's."""


def submit_recipe(console: Console, file: Path, overrides: Sequence[str], wish: Wish) -> None:
    """Hand in the run of a recipe, unless it is finished, running or queued.

    Raises:
        UserError: the recipe is wrong, cannot fit or is worked on elsewhere; no profile; inputs that are missing.
    """
    loaded = load(file, overrides)
    folder, where = Path(loaded.document.name).absolute().parent, loaded.document.where(("target", "name"))
    cluster = profiles.choose(loaded.recipe.target, folder, where)
    if loaded.recipe.target.name == "auto":
        loaded = load(file, [*overrides, f"target.name={cluster.profile.target}"])
    resolved = resolve.resolve(loaded)
    refuse_other_nodes(resolved.recipe.target, cluster, where)
    refuse_limit(cluster, wish)
    with reading_store(cluster):
        refuse_missing([resolved], cluster)
        wanted = planned(resolved, wish.root)
        if wish.dry_run:
            place = wanted.find(wish.root) or Run(wish.root / create.directory_name(wanted.resolved, wanted.facts))
            show_script(for_run(cluster, wanted.resolved, place, wish))
            return
        planner.refuse_misfit(wanted.resolved)
        with submitting(wish):
            known = wanted.find(wish.root)
            if known and _is_on_its_way(console, known, wanted.is_done(wish.root)):
                return
            run = wanted.open(wish.root)
            number = hand_in(run.job_script, for_run(cluster, wanted.resolved, run, wish))
            note([(run, Job(number, cluster.name, str(run.job_script), str(run.path / _log(number))))], number)
    console.print(f"job {number}: {markup(run.name)}, {asked_for(wanted.resolved.recipe.target, cluster, wish)}")
    say_what_next(console, run.name, wish.root)


def _is_on_its_way(console: Console, run: Run, is_done: bool) -> bool:
    """Whether a run needs no job; says why.

    Raises:
        RunError: a process that is no job works on it.
    """
    if is_done:
        console.print(f"{markup(run.name)} is finished already; nothing to do")
        return True
    live = queue.live_jobs([run]).get(run.path)
    if live is not None and live.is_ending:
        raise RunError(Problem(run.name, f"its job {live.number} is being ended", "submit again when it has"))
    if live is not None:
        console.print(f"{markup(run.name)} is job {live.number} already; `workbench runs --watch` shows it")
    elif lock.is_held(run):
        found = f"is being worked on by {lock.read_holder(run) or 'another process'}"
        raise RunError(Problem(run.name, found, "wait for it, or `workbench cancel` it"))
    elif ledger.state(run) == "failed":
        last = run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:] if run.log.exists() else []
        console.print(markup(f"it failed last time: {' '.join(last)}"), style="yellow")
    return live is not None


def for_run(cluster: Cluster, resolved: Resolved, run: Run, wish: Wish) -> str:
    """The script of one run."""
    step = Step(f"{run.name}: one run", run.name, run.path, _log("%j"), time=wish.time)
    return script.for_run(step, cluster, resolved, run.path)


def _log(number: str) -> str:
    return f"job-{number}.log"


@contextlib.contextmanager
def submitting(wish: Wish) -> Iterator[None]:
    """One submission at a time under a root, so that two at once do not hand in the same run twice."""
    if wish.dry_run:
        yield
        return
    path = wish.root / ".submitting"
    try:
        wish.root.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    except OSError as error:
        raise RunError(files.unwritable(path, error)) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def hand_in(path: Path, text: str) -> str:
    """Write a job's script, hand it to Slurm, and return its number.

    Raises:
        RunError: a line of the profile is no shell, or Slurm refuses it.
    """
    slurm.refuse_absence()
    files.write_text(path, text)
    read = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    if read.returncode:
        raise RunError(Problem(str(path), f"is no shell script: {' '.join(read.stderr.split())}", "mend the profile"))
    return slurm.submit(path)


def note(handed: Sequence[tuple[Run, Job]], number: str) -> None:
    """Record a job with its runs; one that cannot be recorded is taken back, or nobody would know of it."""
    try:
        for run, job in handed:
            jobs.note(run, job)
    except RunError:
        slurm.cancel([number])
        raise


def show_script(text: str) -> None:
    """Print a script alone, to be piped; what Slurm says of it goes to standard error."""
    sys.stdout.write(text)
    if slurm.is_here():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "job.sh"
            files.write_text(path, text)
            print(slurm.would_take(path), file=sys.stderr)


def refuse_limit(cluster: Cluster, wish: Wish) -> None:
    """Refuse a time limit that a job could not use, and a folder that Slurm cannot name.

    Raises:
        UserError: says which.
    """
    where = f"profile {cluster.name} time" if wish.time is None else "--time"
    profiles.refuse_short(cluster.profile.time if wish.time is None else wish.time, cluster.profile, where)
    if any(sign in str(wish.root) for sign in ("\\", "\n")):
        raise RunError(Problem(str(wish.root), "Slurm cannot name a folder with a backslash or a line break", "--runs"))


def refuse_other_nodes(target: Target, cluster: Cluster, where: str) -> None:
    """Refuse a recipe for other hardware than a profile's, or for more devices than its nodes have.

    Raises:
        RecipeError: says which.
    """
    profile, problems = cluster.profile, []
    if target.name != profile.target:
        found = f"the recipe is for {target.name}, the profile {cluster.name} is of {profile.target}"
        problems.append(Problem(where, found, f"--set target.name={profile.target}, or another target.cluster"))
    if target.devices > profile.devices_per_node:
        found = f"{target.devices} devices a node, and those of profile {cluster.name} have {profile.devices_per_node}"
        advice = f"--set target.devices={profile.devices_per_node} with more target.nodes"
        problems.append(Problem(where, found, advice))
    if problems:
        raise RecipeError(problems)


def refuse_missing(resolved: Sequence[Resolved], cluster: Cluster) -> None:
    """Refuse what a node without network could not read.

    Raises:
        RunError: names everything that was not prefetched.
    """
    if not cluster.profile.network:
        store = profiles.store_of(cluster)
        problems = [problem for one in resolved for problem in stores.missing(one, store)]
        if problems:
            raise RunError(problems)


@contextlib.contextmanager
def reading_store(cluster: Cluster) -> Iterator[None]:
    """Inside, names are looked up as the nodes will: in the cluster's store, and without a network where they have
    none."""
    changes: dict[str, str | None] = {}
    if cluster.profile.store:
        changes |= stores.environment(profiles.store_of(cluster))
    if not cluster.profile.network:
        changes["HF_HUB_OFFLINE"] = "1"
    with _environment(changes):
        yield


@contextlib.contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def asked_for(target: Target, cluster: Cluster, wish: Wish) -> str:
    """A job's size in words."""
    devices = "1 task" if target.devices == 1 else f"{target.devices} tasks"
    nodes = f"1 node with {devices}" if target.nodes == 1 else f"{target.nodes} nodes with {devices} each"
    return f"{nodes}, limit {wish.time or cluster.profile.time} (profile {cluster.name})"


def say_what_next(console: Console, name: str, root: Path) -> None:
    """How it is watched, read and ended."""
    more = terminal.elsewhere(root)
    console.print(markup(f"watch: workbench runs --watch{more}"), style="dim")
    console.print(markup(f"log:   workbench logs {name}{more} -f"), style="dim")
    console.print(markup(f"end:   workbench cancel {name}{more}"), style="dim")
