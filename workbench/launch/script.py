"""The script of a job: a template of `slurm/`, filled from a cluster's profile. Nothing is asked of Slurm here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from workbench import resources
from workbench.launch.profiles import Cluster, Profile
from workbench.recipe.resolved import Resolved

_VERDICT_MEMORY = "8G"
_VERDICT_TIME = "01:00:00"
_OF_NODES = ("--exclusive", "--constraint", "--gres", "--gpu", "--mem", "--cpus", "--nodes", "--ntasks", "--signal")
"""Options of a profile that a job without devices does not need; others (`--qos`) a site may demand of every job."""


@dataclass(frozen=True)
class Step:
    """What a job is called and where it writes."""

    title: str
    name: str
    folder: Path
    """Where what it prints goes."""
    log: str
    """Its file there, with Slurm's own signs for the job's number."""
    after: Sequence[str] = ()
    """Jobs that must have ended before, well or not."""
    time: str | None = None
    """Another limit than the profile's."""


def for_run(step: Step, cluster: Cluster, resolved: Resolved, run: Path) -> str:
    """The script that brings one run to its end."""
    return _run(step, cluster, resolved, run.parent, {"run": shlex.quote(str(run))}, ())


def for_array(step: Step, cluster: Cluster, resolved: Resolved, runs_file: Path, root: Path, count: int) -> str:
    """The script of an array over many runs.

    Args:
        resolved: one of them; all have its target.
        runs_file: a run's directory on each line.
        root: the folder of these directories.
    """
    limit = f"%{cluster.profile.most_at_once}" if cluster.profile.most_at_once else ""
    more = [f"--array=0-{count - 1}{limit}"]
    return _run(step, cluster, resolved, root, {"runs_file": shlex.quote(str(runs_file))}, more)


def for_verdict(step: Step, cluster: Cluster, command: Sequence[str], root: Path) -> str:
    """The script of a job that only reads what others made, and judges it."""
    profile = cluster.profile
    options = [
        *_place(profile.model_copy(update={"partition": profile.verdict_partition or profile.partition})),
        "--nodes=1",
        "--ntasks=1",
        f"--mem={_VERDICT_MEMORY}",
        f"--time={step.time or _VERDICT_TIME}",
        *_records(step),
        *(option for option in profile.options if not option.startswith(_OF_NODES)),
    ]
    container = _container(cluster, "", [*_mounts(profile, root)])
    srun = f"srun {container}" if container else ""
    return _render("verdict.sh.j2", step, cluster, options, {"command": shlex.join(command), "step": srun})


def _run(
    step: Step, cluster: Cluster, resolved: Resolved, root: Path, what: dict[str, Any], more: Sequence[str]
) -> str:
    profile, target = cluster.profile, resolved.recipe.target
    options = [
        *_place(profile),
        f"--nodes={target.nodes}",
        f"--ntasks-per-node={target.devices}",
        f"--cpus-per-task={profile.cpus_per_device}",
        *([f"--gres={profile.gres}:{target.devices}"] if profile.gres else []),
        *([f"--mem={profile.memory}"] if profile.memory else []),
        f"--time={step.time or profile.time}",
        f"--signal=B:USR1@{profile.grace_seconds}",
        "--requeue" if profile.requeue else "--no-requeue",
        *more,
        *_records(step),
        *profile.options,
    ]
    container = _container(cluster, resolved.target.backend or resolved.target.device, _mounts(profile, root))
    values = {
        "step": container,
        "requeue": profile.requeue,
        "most_restarts": profile.most_restarts,
        "nodes": target.nodes if target.nodes > 1 else None,
        **what,
    }
    return _render("run.sh.j2", step, cluster, options, values)


def _place(profile: Profile) -> list[str]:
    named = {"partition": profile.partition, "account": profile.account}
    return [f"--{option}={shlex.quote(value)}" for option, value in named.items() if value]


def _records(step: Step) -> list[str]:
    after = [f"--dependency=afterany:{':'.join(step.after)}"] if step.after else []
    return [
        *after,
        f"--job-name={shlex.quote(step.name)}",
        f"--output={shlex.quote(f'{_whole(step.folder)}/{step.log}')}",
        "--open-mode=append",
    ]


def _whole(folder: Path) -> str:
    """A folder's name as Slurm takes it whole: to it a lone % begins a sign of its own."""
    return str(folder).replace("%", "%%")


def _mounts(profile: Profile, root: Path) -> list[str]:
    asked = profile.container.mounts if profile.container else []
    return list(dict.fromkeys([*asked, str(root.absolute()), *([profile.store] if profile.store else [])]))


def _container(cluster: Cluster, backend: str, mounts: Sequence[str]) -> str:
    """What stands between `srun` and the command; nothing without a container."""
    container = cluster.profile.container
    if container is None:
        return ""
    if container.kind == "pyxis":
        pairs = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in mounts)
        return f"--container-image={shlex.quote(container.image)} --container-mounts={shlex.quote(pairs)} "
    flag = {"cuda": "--nv ", "rocm": "--rocm "}.get(backend, "")
    bound = "".join(f"--bind {shlex.quote(mount)} " for mount in mounts)
    return f"apptainer exec {flag}{bound}{shlex.quote(container.image)} "


def _render(template: str, step: Step, cluster: Cluster, options: Sequence[str], values: dict[str, Any]) -> str:
    profile = cluster.profile
    inside = profile.container is not None or bool(profile.setup)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.shipped("slurm")),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.ChainableUndefined,
        autoescape=False,  # a shell script: every value is quoted where it is made
    )
    return environment.get_template(template).render(
        title=step.title,
        options=options,
        profile=cluster.name,
        path=None if inside else shlex.quote(str(Path(sys.executable).parent)),
        modules=[shlex.quote(module) for module in profile.modules],
        setup=profile.setup,
        environment={name: _expanding(value) for name, value in profile.environment.items()},
        store=_expanding(profile.store) if profile.store else None,
        network=profile.network,
        fast_disk=_expanding(profile.fast_disk) if profile.fast_disk else None,
        **values,
    )


def _expanding(text: str) -> str:
    """A value in quotes inside which the shell still fills in variables."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`").replace("$(", "\\$(")
    return f'"{escaped}"'
