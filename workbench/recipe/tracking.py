"""The sections of a recipe that say where a run is shown. No logic, as in the rest of the schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workbench.recipe.section import Flag, Section

Said = Annotated[str, Field(min_length=1)]
"""A text that says something."""


class Wandb(Section):
    """Weights & Biases."""

    project: Annotated[str, Field(pattern=r"^[^/\\#?%:]{1,128}$")] = "workbench"
    """Project the run appears in."""
    entity: Said | None = None
    """User or team; None: the account's default."""
    group: Said | None = None
    """Group in the project's table; None: the recipe's (or arm's) name, so that the seeds of one stand together."""
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    """Tags of the run, before those that say its base, method, target and suite."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online where a key is set up and HF_HUB_OFFLINE is not, else offline (kept in the run's directory)."""
    upload_adapter: Flag = True
    """Send the adapter's (or model's) files; else only a reference to where they are, with their hashes."""


class Trackio(Section):
    """trackio: a dashboard on this machine, without an account (`trackio show`)."""

    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "workbench"
    """Project the run appears in."""
    directory: Said | None = None
    """Where its database is, on a disk of this machine. None: TRACKIO_DIR, else `trackio` beside the runs."""


class Tensorboard(Section):
    """TensorBoard event files (`tensorboard --logdir DIRECTORY`)."""

    directory: Said | None = None
    """Where they are written, a folder a run. None: `tensorboard` beside the runs."""


class Mlflow(Section):
    """MLflow: parameters and metrics of every run."""

    experiment: Said = "workbench"
    """Experiment the run appears in."""
    uri: Said | None = None
    """Tracking server (`http://...`), folder (`./mlruns`), or database (`sqlite:///...`, which needs sqlalchemy and
    alembic). None: MLFLOW_TRACKING_URI, else the folder `mlruns` beside the runs."""


class Tracking(Section):
    """Where the run is shown beside its own directory. Each is followed by a process of its own: a tracker that fails,
    hangs or is slow neither ends a run nor slows it, and `workbench publish` sends later what it did not take."""

    wandb: Wandb | None = None
    """Show it in Weights & Biases."""
    trackio: Trackio | None = None
    """Show it in trackio."""
    tensorboard: Tensorboard | None = None
    """Show it in TensorBoard."""
    mlflow: Mlflow | None = None
    """Show it in MLflow."""
