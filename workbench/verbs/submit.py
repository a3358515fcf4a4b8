"""submit: a recipe's run handed to Slurm; of a study, its missing runs as job arrays, and the job that makes its
verdict."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from workbench import files
from workbench.errors import Problem, RecipeError, RunError
from workbench.launch import profiles, queue, script, slurm
from workbench.launch.profiles import Cluster
from workbench.launch.script import Step
from workbench.recipe.schema import Target
from workbench.runs import lock, planner
from workbench.runs.jobs import Job
from workbench.runs.run import Run
from workbench.study import load as studies
from workbench.study.load import LoadedStudy
from workbench.study.plan import Plan, StudyRun, plan, refuse_confounds, resolved_arms
from workbench.verbs import submission, terminal
from workbench.verbs.submission import Wish
from workbench.visible import markup


def submit(
    file: Path, overrides: Sequence[str], root: Path, dry_run: bool, time_limit: str | None, allow_confounds: bool
) -> None:
    """Hand in what is missing; what is finished, running or queued already is said."""
    console, wish = terminal.console(), Wish(root.absolute(), dry_run, time_limit)
    if studies.is_study(file):
        _study(console, file, overrides, wish, allow_confounds)
    else:
        submission.submit_recipe(console, file, overrides, wish)


def _study(console: Console, file: Path, overrides: Sequence[str], wish: Wish, allow_confounds: bool) -> None:
    """Hand in the runs of a study that are neither finished nor on their way, and its verdict after them.

    Raises:
        UserError: of any arm: the recipe is wrong, no profile, inputs that are missing.
        ComparisonRefusedError: the arms differ in what is not declared.
    """
    loaded = studies.load(file)
    clusters, overrides = _clusters(loaded, overrides)
    cluster = next(iter(clusters.values()))  # all read one store, or the nodes could not share runs either
    with submission.reading_store(cluster):
        arms = resolved_arms(loaded, overrides)
        for arm, one in zip(loaded.arms, arms, strict=True):
            submission.refuse_other_nodes(one.recipe.target, clusters[arm.name], f"arm {arm.name} target")
            submission.refuse_limit(clusters[arm.name], wish)
        submission.refuse_missing(arms, cluster)
        for one in arms:
            planner.refuse_misfit(one)
        made = plan(loaded, wish.root, overrides)
        if not allow_confounds:
            refuse_confounds(made)
        with submission.submitting(wish):
            _hand_in(console, made, clusters, wish, _verdict(file, overrides, wish.root, allow_confounds))


def _clusters(loaded: LoadedStudy, overrides: Sequence[str]) -> tuple[dict[str, Cluster], list[str]]:
    """Arm -> the profile it is submitted with; and the overrides, with the hardware where the recipes leave it open.

    Raises:
        RecipeError: no profile fits an arm; some arms name their hardware and others do not.
    """
    targets = {arm.name: studies.loaded_recipe(arm, [], overrides).recipe.target for arm in loaded.arms}
    where = loaded.document.where(("arms",))
    found = {name: profiles.choose(target, loaded.folder, f"{where} {name}") for name, target in targets.items()}
    open_arms = [name for name, target in targets.items() if target.name == "auto"]
    if not open_arms:
        return found, list(overrides)
    if len(open_arms) < len(targets):
        told = f"{', '.join(open_arms)}: for this machine's hardware (auto), and the other arms name theirs"
        raise RecipeError(Problem(where, told, "--set target.name=NAME"))
    return found, [*overrides, f"target.name={found[open_arms[0]].profile.target}"]


def _verdict(file: Path, overrides: Sequence[str], root: Path, allow_confounds: bool) -> list[str]:
    """The command that only judges."""
    settings = [word for setting in overrides for word in ("--set", setting)]
    confounds = ["--allow-confounds"] if allow_confounds else []
    path = str(studies.find(file).absolute())
    return ["workbench", "study", path, "--judge", "--runs", str(root), *settings, *confounds]


def _hand_in(console: Console, made: Plan, clusters: dict[str, Cluster], wish: Wish, verdict: Sequence[str]) -> None:
    there = {id(one): run for one in made.runs if (run := one.find(made.root)) is not None}
    live = queue.live_jobs(there.values())
    missing, waited_for = [], []
    for one in made.runs:
        run = there.get(id(one))
        if run is not None and run.path in live and not live[run.path].is_ending:
            waited_for.append(live[run.path].number)
        elif not (one.planned.is_done(made.root) or (run is not None and lock.is_held(run))):
            missing.append(one)
    if not wish.dry_run:  # it prints scripts alone
        console.print(
            f"{len(made.runs)} runs: {len(made.runs) - len(missing) - len(waited_for)} finished or worked on, "
            f"{len(waited_for)} in the queue, {len(missing)} to hand in"
        )
    if not missing and not waited_for:
        console.print(markup(f"nothing to hand in; `workbench study {made.loaded.document.name}` judges them"))
        return
    record = made.folder / "jobs" / "verdicts.jsonl"
    judging = _live([row["job"] for row in files.read_jsonl(record)])
    if not missing and judging and not wish.dry_run:
        console.print(f"the verdict is job {judging[-1]} already")
        return
    folder = _new_folder(made.folder / "jobs", wish)
    bases: list[str] = []
    arrays: list[str] = []
    for number, group in enumerate(_groups(missing, clusters)):
        trains = group[0].planned.resolved.trains
        after = bases if trains else []
        found = _array(console, made, folder / f"array-{number}.sh", group, clusters[group[0].arm], wish, after)
        arrays += found
        bases += [] if trains else found
    done = sorted({*waited_for, *arrays})
    step = Step(f"{made.loaded.name}: the verdict", f"{made.loaded.name}-verdict", folder, "verdict-%j.log", done)
    text = script.for_verdict(step, clusters[made.runs[0].arm], verdict, made.root)
    if wish.dry_run:
        submission.show_script(text)
        return
    try:
        job = submission.hand_in(folder / "verdict.sh", text)
    except RunError as error:
        told = f"the runs are handed in ({', '.join(arrays)}), only their verdict is not"
        advice = "`workbench study STUDY --judge` makes it when they have ended"
        raise RunError([*error.problems, Problem(made.loaded.name, told, advice)]) from error
    files.append_line(record, {"job": job, "after": done})
    if judging:  # those would judge before the new runs have ended
        slurm.cancel(judging)
    console.print(f"job {job}: the verdict, when they have ended; it goes to {markup(str(made.folder))}")
    console.print(markup(f"watch: workbench runs --watch{terminal.elsewhere(made.root)}"), style="dim")


def _new_folder(folder: Path, wish: Wish) -> Path:
    """A folder for the scripts and logs of one submission, which no other one has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for name in (stamp, *(f"{stamp}-{number}" for number in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            if not wish.dry_run:
                (folder / name).mkdir(parents=True)
            return folder / name
    raise RunError(Problem(str(folder), "holds a thousand submissions of this second"))


def _live(numbers: Sequence[str]) -> list[str]:
    """Those of some jobs that run or wait."""
    states = slurm.states(numbers) or {}
    return [number for number in numbers if number in states and states[number].is_live]


def _groups(missing: Sequence[StudyRun], clusters: dict[str, Cluster]) -> list[list[StudyRun]]:
    """Runs that one array can hold: of one profile, on as many devices. Bases that are only scored come first: the
    others would each wait for them, or score them on their own time."""
    groups: dict[tuple[bool, str, int, int], list[StudyRun]] = {}
    for one in missing:
        resolved = one.planned.resolved
        target: Target = resolved.recipe.target
        key = (resolved.trains, clusters[one.arm].name, target.nodes, target.devices)
        groups.setdefault(key, []).append(one)
    return [groups[key] for key in sorted(groups)]


def _array(
    console: Console,
    made: Plan,
    path: Path,
    group: Sequence[StudyRun],
    cluster: Cluster,
    wish: Wish,
    after: Sequence[str],
) -> list[str]:
    """Hand in one array; its number (nothing in a dry run)."""
    resolved = group[0].planned.resolved
    runs_file, name = path.with_suffix(".runs"), made.loaded.name
    size = "1 run" if len(group) == 1 else f"{len(group)} runs"
    step = Step(f"{name}: {size}", name, path.parent, "run-%A_%a.log", after, wish.time)
    text = script.for_array(step, cluster, resolved, runs_file, made.root, len(group))
    if wish.dry_run:
        submission.show_script(text)
        return []
    runs: list[Run] = [one.planned.open(made.root) for one in group]
    files.write_text(runs_file, "".join(f"{run.path}\n" for run in runs))
    job = submission.hand_in(path, text)
    logs = [str(path.parent / f"run-{job}_{at}.log") for at in range(len(runs))]
    noted = [Job(f"{job}_{at}", cluster.name, str(path), log) for at, log in enumerate(logs)]
    submission.note(list(zip(runs, noted, strict=True)), job)
    asked = submission.asked_for(resolved.recipe.target, cluster, wish)
    console.print(f"job {job}: {size}, each on {asked}")
    return [job]
