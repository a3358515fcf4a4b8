"""`python -m workbench.worker.rehearse RESOLVED RUNS [DIR]` (RESOLVED: a JSON file): every stage of a run in miniature.
With DIR what was made stays there; else nothing stays (but the tokenised rows in the cache: the real run's own)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from workbench import bench
from workbench.errors import ExitStatus


def main() -> int:
    """Rehearse, a line a stage; a stage that failed is the user's to mend."""
    failed = False

    def work() -> None:
        nonlocal failed
        bench.quiet_libraries()
        from workbench import files
        from workbench.progress import Progress
        from workbench.recipe.resolved import Resolved
        from workbench.worker.rehearsal import Rehearsal

        resolved = Resolved.model_validate(files.read_json(Path(sys.argv[1])), strict=False)
        with tempfile.TemporaryDirectory(prefix="workbench-rehearsal-") as temporary, Progress() as progress:
            folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(temporary)
            failed = not Rehearsal(resolved, Path(sys.argv[2]), folder, progress).go()

    return bench.ended(work) or (ExitStatus.USER if failed else ExitStatus.DONE)


if __name__ == "__main__":
    sys.exit(main())
