"""Whether W&B can be reached from here, told without loading it."""

from __future__ import annotations

import netrc
import os
import urllib.parse
from pathlib import Path
from typing import Literal

from workbench import hub
from workbench.recipe.tracking import Wandb


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
