"""Weights & Biases. Offline where no key is set up; any failure of it is said once and never ends the run."""

from __future__ import annotations

import netrc
import os
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wandb

from workbench import hub
from workbench.recipe.resolved import Resolved
from workbench.recipe.tracking import Wandb
from workbench.runs.run import Run

_AXES = {"train/*": "train/tokens", "eval/*": "train/tokens"}


class WandbTracker:
    """One W&B run a workbench run; a continued run goes on under the same id."""

    def __init__(self, run: Run, resolved: Resolved, settings: Wandb, say: Callable[[str], None]) -> None:
        self._say = say
        self._run: Any = None
        self._guarded(lambda: self._start(run, resolved, settings))

    def _start(self, run: Run, resolved: Resolved, settings: Wandb) -> None:
        reachable = _has_key() and not hub.is_offline()  # a machine that may not ask the hub has no network
        mode = settings.mode if settings.mode != "auto" else ("online" if reachable else "offline")
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or resolved.name,
            tags=settings.tags,
            name=run.name,
            id=run.name,
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(run.path),
            config=resolved.recipe.model_dump(mode="json"),
            job_type="train",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        for pattern, axis in _AXES.items():
            self._run.define_metric(pattern, step_metric=axis)
        if mode == "offline":
            self._say(f"W&B is offline; send it later: wandb sync {run.path}/wandb/offline-run-*")

    def log(self, row: dict[str, Any]) -> None:
        """One metrics row, under `train/`."""
        self._guarded(lambda: self._run.log({f"train/{key}": value for key, value in row.items()}, step=row["step"]))

    def finish(self, summary: dict[str, Any]) -> None:
        """Final numbers into the summary, and the end."""

        def end() -> None:
            self._run.summary.update(summary)
            self._run.finish()

        self._guarded(end)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever a tracker does, the run goes on
            self._say(f"W&B failed and is left out from here on: {type(error).__name__}: {error}")
            self._guarded = lambda act: None  # type: ignore[method-assign]


def _has_key() -> bool:
    """Whether W&B would find a key without asking for one (in the environment, or where `wandb login` puts it)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
