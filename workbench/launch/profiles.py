"""A cluster's profile: how jobs are asked for on one kind of node (`slurm/NAME.yaml`), and which one is a recipe's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from workbench import documents, hub, resources, secrecy
from workbench.errors import Problem, RecipeError
from workbench.recipe.schema import Target
from workbench.recipe.section import Flag, Section

_FOLDER = "slurm"
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TIME = r"^(\d+|\d+:\d{2}|\d+:\d{2}:\d{2}|\d+-\d+|\d+-\d+:\d{2}|\d+-\d+:\d{2}:\d{2})$"


def _one_line(text: str) -> str:
    if "\n" in text or not text.strip():
        raise ValueError("must be one line, and not an empty one")
    return text


def _variables(names: dict[str, str]) -> dict[str, str]:
    odd = [name for name in names if not _VARIABLE.fullmatch(name)]
    if odd:
        raise ValueError(f"no variable can be called {', '.join(map(repr, odd))}")
    found = [name for name in names if secrecy.NAMES.search(name)]
    if found:
        raise ValueError(
            f"{', '.join(found)} would be written into every job's script; export it in your shell (Slurm passes the "
            "environment on), or put it where the tool keeps it (`hf auth login`, `wandb login`)"
        )
    return names


Line = Annotated[str, AfterValidator(_one_line)]


class Container(Section):
    """An image that the workbench runs in on the nodes; Python and the workbench are inside."""

    kind: Literal["pyxis", "apptainer"]
    """pyxis: `srun --container-image`; apptainer: `apptainer exec` in front of the command."""
    image: Line
    """The image's file, on a file system that the nodes see (a squashfs, or a .sif)."""
    mounts: list[Line] = Field(default_factory=list)
    """Folders to be seen inside (`/data` or `/outside:/inside`); the runs' folder is added."""


class Profile(Section):
    """How jobs are asked for on one kind of node of a cluster."""

    target: str
    """The hardware of its nodes, a name of `workbench targets`: recipes for it are submitted with this profile."""
    partition: Line | None = None
    """Slurm's partition. None: the cluster's default."""
    account: Line | None = None
    """What the time is charged to. None: your default."""
    devices_per_node: Annotated[int, Field(ge=1)] = 1
    """How many such devices a node has; recipes may ask for fewer (`target.devices`), and for more nodes."""
    gres: Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*(:[\w.-]+)?$")] | None = "gpu"
    """What Slurm calls a device (`gpu`, `gpu:a100`, `npu`). None: devices are not asked for (a CPU)."""
    cpus_per_device: Annotated[int, Field(ge=1)] = 8
    """CPU cores of one task; there is one task a device."""
    memory: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] | None = None
    """Memory of a node (`64G`). None: the partition's default."""
    time: Annotated[str, Field(pattern=_TIME)] = "24:00:00"
    """Time limit of one job, in quotes ("30": minutes, "HH:MM:SS", "D-HH:MM:SS"). A longer run goes on in the next."""
    grace_seconds: Annotated[int, Field(ge=10, le=3600)] = 120
    """How long before the limit a job is asked to stop: longer than one step and its checkpoint."""
    requeue: Flag = True
    """Put a job that reached its limit back into the queue, where it goes on. Else it ends with status 75."""
    most_restarts: Annotated[int, Field(ge=0)] = 50
    """How often a job is put back."""
    most_at_once: Annotated[int, Field(ge=1)] | None = None
    """How many runs of a study may run at one time. None: as many as the cluster lets."""
    modules: list[Line] = Field(default_factory=list)
    """Loaded by `module load` before anything else."""
    setup: list[Line] = Field(default_factory=list)
    """Lines of shell for the job's script, such as `source /shared/venv/bin/activate`; one that fails ends the job.
    None: the environment that `workbench submit` was called from is used."""
    environment: Annotated[dict[str, str], AfterValidator(_variables)] = Field(default_factory=dict)
    """Variables for the job. No secrets: they would stand in its script."""
    container: Container | None = None
    """An image to run in. None: the nodes' own system."""
    fast_disk: Line | None = None
    """A folder on a node's own fast disk, which may name a variable (`$TMPDIR`): tokenised rows and temporary files."""
    network: Flag = False
    """Whether the nodes reach the internet. Without it, jobs run from the store, and nothing is submitted before
    everything is in it."""
    store: Line | None = None
    """Where `workbench prefetch` puts what comes from the hub, seen by all nodes. None: HF_HOME of your shell."""
    verdict_partition: Line | None = None
    """Partition of a study's last job, which only reads. None: the same."""
    options: list[Annotated[str, Field(pattern=r"^--[a-z][\w-]*(=[^\n]*)?$")]] = Field(default_factory=list)
    """More options of sbatch, one a line (`--qos=long`, `--constraint=ib`)."""


def refuse_short(limit: str, profile: Profile, where: str) -> None:
    """Refuse a time limit that is none, or no longer than the grace before it: a job would be asked to stop at once.

    Raises:
        RecipeError: says which.
    """
    if not re.fullmatch(_TIME, limit):
        raise RecipeError(Problem(where, f"{limit!r} is no time", "minutes, HH:MM:SS, or D-HH:MM:SS"))
    seconds = _seconds(limit)
    if seconds <= profile.grace_seconds:
        found = f"the limit of {seconds} s is no longer than the grace of {profile.grace_seconds} s before it"
        raise RecipeError(Problem(where, found, "give more time, or lower grace_seconds in the profile"))


def _seconds(limit: str) -> int:
    """Of a time as Slurm writes it: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return int(days) * 86_400 + hours * 3600 + minutes * 60 + seconds
    if len(parts) == 1:
        return parts[0] * 60
    hours, minutes, seconds = [0, *parts][-3:]
    return hours * 3600 + minutes * 60 + seconds


@dataclass(frozen=True)
class Cluster:
    """A profile by its name."""

    name: str
    profile: Profile
    is_shipped: bool


def known(folder: Path) -> dict[str, Cluster]:
    """All profiles by name: your own, in the nearest `slurm/` upwards from here and from a recipe's folder, over those
    that are shipped.

    Raises:
        RecipeError: with every problem of every file.
    """
    shipped = resources.shipped(_FOLDER)
    own = [place for start in (folder, Path.cwd()) if (place := _nearest(start, shipped)) is not None]
    found: dict[str, Cluster] = {}
    problems: list[Problem] = []
    for place in dict.fromkeys([shipped, *own]):
        for path in sorted(place.glob("*.yaml")):
            try:
                profile = documents.check(Profile, documents.read(path))
            except RecipeError as error:
                problems += error.problems
                continue
            found[path.stem] = Cluster(path.stem, profile, place == shipped)
    if problems:
        raise RecipeError(problems)
    return found


def _nearest(start: Path, shipped: Path) -> Path | None:
    start = start.resolve()
    places = (place / _FOLDER for place in (start, *start.parents))
    return next((place for place in places if place != shipped.resolve() and any(place.glob("*.yaml"))), None)


def store_of(cluster: Cluster | None) -> Path:
    """Where a cluster's jobs find what comes from the hub."""
    stated = cluster.profile.store if cluster else None
    return Path(os.path.expandvars(stated)).expanduser() if stated else hub.home().absolute()


def choose(target: Target, folder: Path, where: str) -> Cluster:
    """The profile that a recipe is submitted with: the one it names, else the one that is made for its hardware; of a
    recipe for `auto`, which says nothing of the nodes, the only one of your own.

    Args:
        folder: of the recipe.
        where: the recipe's target stands there.

    Raises:
        RecipeError: there is none, or several.
    """
    profiles = known(folder)
    if target.cluster is not None:
        if target.cluster in profiles:
            return profiles[target.cluster]
        advice = documents.did_you_mean(target.cluster, sorted(profiles))
        raise RecipeError(Problem(f"{where} cluster", f"no profile is called {target.cluster!r}", advice))
    fitting = [one for one in profiles.values() if target.name in ("auto", one.profile.target)]
    mine = [one for one in fitting if not one.is_shipped]
    fitting = mine or ([] if target.name == "auto" else fitting)
    if len(fitting) == 1:
        return fitting[0]
    names = [one.name for one in fitting or profiles.values()]
    wanted = "this machine's hardware (auto) is not the nodes'" if target.name == "auto" else f"hardware {target.name}"
    found = f"{len(fitting)} profiles fit" if fitting else "no cluster profile fits"
    advice = f"--set target.cluster=NAME, of {', '.join(sorted(names))}; or write your own slurm/NAME.yaml"
    raise RecipeError(Problem(where, f"{wanted}: {found}", advice))
