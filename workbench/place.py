"""Which of a run's processes this is: told by torchrun, or by srun where the launcher says where the first one is."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One process among those of a run."""

    rank: int = 0
    local_rank: int = 0
    """Among the processes of this machine."""
    world: int = 1
    """Processes of the run."""
    local_world: int = 1
    """Processes of the run on this machine."""

    @property
    def is_main(self) -> bool:
        """The one that holds the lock, writes the files and speaks."""
        return self.rank == 0


_SLURM = {
    "RANK": "SLURM_PROCID",
    "LOCAL_RANK": "SLURM_LOCALID",
    "WORLD_SIZE": "SLURM_NTASKS",
    "LOCAL_WORLD_SIZE": "SLURM_NTASKS_PER_NODE",
}
"""torchrun's names -> srun's."""


def in_step() -> bool:
    """Whether srun started this process as one of a run's. Without an address to meet at, or outside of a step, its
    names only say that somebody called us inside of a job."""
    return "RANK" not in os.environ and "MASTER_ADDR" in os.environ and "SLURM_STEP_ID" in os.environ


def take() -> Place:
    """This process's place, written into the environment under torchrun's names, where torch and accelerate look."""
    if in_step():
        known = {ours: os.environ[theirs] for ours, theirs in _SLURM.items() if theirs in os.environ}
        # one alone meets nobody: told of a place, torch and accelerate would open a port for it
        os.environ.update(known if "RANK" in known and known.get("WORLD_SIZE") != "1" else {})
    return here()


def here() -> Place:
    """This process's place."""
    if "RANK" not in os.environ:
        return Place()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return Place(
        rank=int(os.environ["RANK"]),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        world=world,
        local_world=int(os.environ.get("LOCAL_WORLD_SIZE", world)),
    )
