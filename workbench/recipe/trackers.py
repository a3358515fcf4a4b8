"""Which trackers a recipe asks for, told without loading one."""

from __future__ import annotations

import netrc
import os
import urllib.parse
from pathlib import Path
from typing import Literal

from workbench import hub
from workbench.recipe.tracking import Tracking, Wandb

NAMES = {"wandb": "W&B", "trackio": "trackio", "tensorboard": "TensorBoard", "mlflow": "MLflow"}
"""Field of the recipe's `tracking` section -> what the tracker is called."""


def asked(tracking: Tracking) -> list[str]:
    """The fields of the trackers that are asked for."""
    return [kind for kind in NAMES if _is_asked(getattr(tracking, kind))]


def _is_asked(settings: object) -> bool:
    return settings is not None and not (isinstance(settings, Wandb) and mode(settings) == "disabled")


def mode(settings: Wandb) -> Literal["online", "offline", "disabled"]:
    """What `auto` comes to on this machine."""
    if settings.mode != "auto":
        return settings.mode
    reachable = has_key() and not hub.is_offline()  # a machine that may not ask the hub has no network
    return "online" if reachable else "offline"


def has_key() -> bool:
    """Whether W&B would find a key without asking for one (in the environment, or where `wandb login` puts it)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
