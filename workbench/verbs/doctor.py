"""doctor: what this machine can train with. The looking is a bench process's, for torch must be asked."""

from __future__ import annotations

import sys

from workbench.launch import local


def doctor(as_json: bool, thorough: bool) -> None:
    """Examine the machine and show what was found."""
    flags = [flag for flag, chosen in (("--json", as_json), ("--thorough", thorough)) if chosen]
    sys.exit(local.run_bench("workbench.worker.doctor", *flags))
