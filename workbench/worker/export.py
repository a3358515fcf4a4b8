"""`python -m workbench.worker.export RUN DIR ASKED` (ASKED: JSON): a finished run as files for others, all or none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from workbench import bench


def main() -> int:
    """Write the export; what it says is told by who asked for it."""

    def work() -> None:
        bench.quiet_libraries()
        from workbench import files
        from workbench.progress import Progress
        from workbench.runs.exports import Asked
        from workbench.runs.run import Run
        from workbench.worker.exporting.making import Making
        from workbench.worker.setup import set_up, settle

        run, target = Run(Path(sys.argv[1])), Path(sys.argv[2])
        resolved = run.resolved()
        with files.whole_directory(target) as fresh, Progress() as progress:
            settle(run, resolved)
            ready = set_up(run, resolved, resolved.suite, progress)
            Making(ready, Asked(**json.loads(sys.argv[3])), fresh).go()

    return bench.ended(work)


if __name__ == "__main__":
    sys.exit(bench.alone(main))
