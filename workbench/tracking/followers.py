"""The processes that show a run while it is worked on. The run waits for none of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from workbench import files
from workbench.launch import local, showing
from workbench.launch.showing import Shown
from workbench.recipe.trackers import NAMES, asked, mode
from workbench.recipe.tracking import Tracking
from workbench.runs import ledger
from workbench.runs.run import Run
from workbench.tracking import tracker
from workbench.tracking.tracker import Taken

_PATIENCE_SECONDS = 10.0
"""How long a run that has ended leaves a tracker that does not move."""
_GRACE_SECONDS = 3.0
"""How long one whose run was stopped is given: a scheduler waits for us, and not for ever."""
_LOOK_SECONDS = 0.1
_SECONDS_BETWEEN_LOOKS = 5.0


_LEFT: list[subprocess.Popen[bytes]] = []
"""Those that outlive the run; kept, as nobody is to wait for them."""


class Follower:
    """One such process."""

    def __init__(self, kind: str, run: Run, tracking: Tracking) -> None:
        self.kind, self._run = kind, run
        notes = run.tracked(kind)
        notes.parent.mkdir(exist_ok=True)
        notes.unlink(missing_ok=True)
        self._since = time.time()
        self._log = notes.with_suffix(".log")
        line = local.command(
            showing.MODULE, *showing.arguments(kind, tracking, [Shown(run)], run.path.parent, live=True)
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def problem(self) -> str | None:
        """Why it has ended, where it should not have."""
        if self._process.poll() in (None, 0):
            return None
        taken = self._taken()
        if taken is not None and taken.problem:
            return taken.problem
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line.removeprefix("error ") for line in said if line.startswith("error ")]
        return next(iter(errors or said[-1:]), f"it ended with status {self._process.returncode}")

    def let_go(self) -> None:
        """Nobody works on the run any more."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end_soon(self) -> None:
        """Let it say that the run was interrupted, and end it."""
        self.let_go()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> str | None:
        """Wait while it moves; returns what is to be told of a tracker that stopped moving. One that had come along
        with the run is given its patience from now on; one that hangs since long ago has had it."""
        taken = self._taken()
        came_along = taken is not None and taken.step == (ledger.last_step(self._run) or 0)
        moved = time.time() if came_along else self._moved()
        while self._process.poll() is None:
            if time.time() - max(moved, self._moved()) > _PATIENCE_SECONDS:
                return self._leave()
            time.sleep(_LOOK_SECONDS)
        return None

    def _leave(self) -> str:
        taken = self._taken()
        if taken is not None and taken.state == "closing":
            _LEFT.append(self._process)
            return f"is still sending files (process {self._process.pid})"
        self._process.kill()
        self._process.wait()
        return f"did not answer, and was left at step {taken.step if taken else 0}"

    def _moved(self) -> float:
        """When it last noted something."""
        notes = self._run.tracked(self.kind)
        return notes.stat().st_mtime if notes.exists() else self._since

    def _taken(self) -> Taken | None:
        return tracker.read(self._run.tracked(self.kind))


class Followers:
    """All trackers of a run that is worked on."""

    def __init__(self, run: Run, tracking: Tracking, say: Callable[[str], None]) -> None:
        self._run, self._tracking, self._say = run, tracking, say
        self._all: list[Follower] | None = None
        self._told: set[str] = set()
        self._looked = 0.0

    def __enter__(self) -> Followers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # stopped, or failed: they say so, and are not waited for
            for one in self._all or []:
                one.end_soon()

    def start(self) -> None:
        """Start them, once the metrics hold nothing that will be walked again."""
        if self._all is not None:
            return
        self._all = []
        for kind in asked(self._tracking):
            try:
                self._all.append(Follower(kind, self._run, self._tracking))
            except OSError as error:
                self._tell(kind, f"cannot be started: {files.unwritable(self._run.path, error).found}")
        if self._tracking.wandb is not None and mode(self._tracking.wandb) == "offline":
            self._say(f"W&B is offline; send it later: {self._later()}")

    def look(self) -> None:
        """Tell of those that failed since the last time."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        for one in self._all or []:
            if problem := one.problem():
                self._tell(one.kind, f"failed and is left out from here on: {problem}")

    def finish(self) -> None:
        """The run has ended: let them end too, but not for long."""
        self.start()
        for one in self._all or []:
            one.let_go()
        for one in self._all or []:
            if left := one.wait():
                self._tell(one.kind, left)
            elif problem := one.problem():
                self._tell(one.kind, f"failed and is left out: {problem}")

    def _tell(self, kind: str, what: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._say(f"{NAMES[kind]} {what}; send it later: {self._later()}")

    def _later(self) -> str:
        return f"workbench publish {self._run.path}"
