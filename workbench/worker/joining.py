"""Joining the other processes of a run: as many as were planned, each on a device of its own, or none at all."""

from __future__ import annotations

import os
import socket
from collections import Counter

from workbench import collective, place
from workbench.errors import Problem, RunError
from workbench.recipe.resolved import Resolved


def join(resolved: Resolved) -> None:
    """Meet the other processes, and check that all is as planned: a launcher that starts one process, or several that
    do not know of each other, trains something else without a word.

    Raises:
        RunError: there are more or fewer processes than the recipe says, or they share a device, or speak by other
            collectives than those of the target.
    """
    target, found = resolved.recipe.target, place.here()
    planned = target.devices * target.nodes
    if found.world != planned:
        raise RunError(
            Problem(
                "target.devices",
                f"{target.devices} on {target.nodes} node(s) make {planned} processes, and {found.world} were started",
                "start what `workbench train RECIPE --dry-run` prints, or set target.devices to what there is",
            )
        )
    if planned == 1:
        return
    collective.start(resolved.target.device)
    spoken, capabilities = collective.backend(), resolved.target.capabilities()
    if capabilities.collective is None or capabilities.collective not in (spoken or ""):
        raise RunError(
            Problem(
                "target.devices",
                f"devices of {capabilities.title} speak by {capabilities.collective}, here they would by {spoken}",
                "is the torch build the one for this hardware?",
            )
        )
    if resolved.target.device != "cpu":
        _apart(resolved)


def _apart(resolved: Resolved) -> None:
    """Every process has its own device. (A launcher may show each one device only, so their number says nothing.)"""
    variable = resolved.target.capabilities().visible_devices
    visible = os.environ.get(variable, "") if variable else ""
    devices = collective.gather(f"{socket.gethostname()} {visible} {collective.device(resolved.target.device)}")
    twice = [name for name, count in Counter(devices).items() if count > 1]
    if twice:
        raise RunError(
            Problem(
                "target.devices",
                f"several processes were given the same device ({twice[0]})",
                f"there are fewer devices than target.devices says, or {variable} hides them",
            )
        )
