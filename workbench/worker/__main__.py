"""`python -m workbench.worker RUN`: bring a run to its end, or score a finished one on another suite. Started once for
each device of the run; the first of these processes holds the lock, writes the files and speaks."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from workbench import bench, place
from workbench.runs import lock
from workbench.runs.run import Run
from workbench.worker import companions


def main() -> int:
    """Hold the run's lock, do what is left of it, and say how it ended."""
    parser = argparse.ArgumentParser(prog="workbench.worker")
    parser.add_argument("run", type=Path)
    parser.add_argument("--suite", help="score the finished run on this suite instead of the recipe's")
    parser.add_argument(
        "--from", dest="folder", type=Path, default=Path.cwd(), help="folder the suite is looked for in"
    )
    chosen = parser.parse_args()
    run = Run(chosen.run.absolute())
    found = place.take()
    if found.world > 1:
        companions.end_with_parent()

    def go() -> None:
        bench.quiet_libraries()
        # Imported here: the lock is taken and the log opened before the seconds that the libraries take.
        from workbench.worker import stages

        stages.go(run, chosen.suite, chosen.folder)

    def work() -> None:
        with lock.held(run):
            bench.log_to(run.log)
            run.note_attempt("start", pid=os.getpid(), job=lock.own_job())
            status = bench.ended(go)
            run.note_attempt("end", status=status)
            raise SystemExit(status)

    return bench.ended(work if found.is_main else lambda: companions.follow(go, run))


if __name__ == "__main__":
    sys.exit(bench.alone(main))
