"""What every bench process does first and last: logging, quiet libraries, errors in words, an exit status."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.text import Text

from workbench.errors import ExitStatus, Problem, StopSignal, UserError, WorkbenchError
from workbench.visible import visible

STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send to a job that is to stop."""
ASKING = (signal.SIGINT, *STOPPING)
"""All that asks a process to stop. They are held back while a bench process is started, until it can answer."""
_is_alone = False
"""Whether this process does nothing else."""
_LOG = logging.getLogger("workbench")
_LOG.addHandler(logging.NullHandler())  # before a run's log is opened, nothing is said twice on the terminal


class _Log(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """A full disk: logging would show a traceback for every line, and the terminal has the words already."""


def log_to(path: Path) -> None:
    """Send what is said to a log file as well."""
    handler = _Log(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    _LOG.addHandler(handler)


def quiet_libraries() -> None:
    """Keep other libraries' progress bars and advice off the terminal; warnings go to the log."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.captureWarnings(True)
    py_warnings = logging.getLogger("py.warnings")
    py_warnings.handlers = _LOG.handlers or [logging.NullHandler()]
    py_warnings.propagate = False
    for name in ("transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Inside, SIGTERM and SIGUSR1 (which schedulers send before a time limit) end the work in words. Only the first
    one: the time after it is for ending."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise StopSignal(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def alone(main: Callable[[], int]) -> int:
    """A bench process's whole work: `main`, and nothing that asks it to stop is heard after that has ended."""
    global _is_alone
    _is_alone = True
    with listening():
        return main()


def ended(act: Callable[[], None]) -> int:
    """Run a bench process's work and return its exit status; errors are shown, a defect with its traceback."""
    try:
        return _ended(act)
    finally:
        if _is_alone:  # what is left is to leave
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)


def _ended(act: Callable[[], None]) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # held back by who started us
        act()
    except UserError as error:
        report(console, error)
        return int(error.exit_status)
    except WorkbenchError as error:
        console.print(visible(str(error)), markup=False, style="red")
        _LOG.error(str(error))
        return int(error.exit_status)
    except StopSignal as asked:
        console.print(f"stopped by {asked}; the same command continues it", style="yellow")
        _LOG.info("stopped by %s", asked)
        return int(asked.exit_status)
    except KeyboardInterrupt:
        if console.is_terminal:
            console.print()  # the terminal wrote ^C on this line
        console.print("stopped; the same command continues it", style="yellow")
        _LOG.info("stopped by Ctrl-C")
        return int(ExitStatus.INTERRUPTED)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        report(console, UserError(Problem(str(error.filename or "a file"), error.strerror or str(error))))
        return int(ExitStatus.USER)
    except Exception:  # noqa: BLE001 - the last place where a defect of ours can be told
        traceback.print_exc(file=sys.stderr)
        _LOG.exception("a defect of the workbench")
        console.print("this is a defect of the workbench; please report it with the lines above", style="red")
        return int(ExitStatus.INTERNAL)
    return int(ExitStatus.DONE)


def report(console: Console, error: UserError) -> None:
    """Show every problem: where, what was found, what to do."""
    for problem in error.problems:
        where, found = visible(problem.where), visible(problem.found)
        console.print(Text.assemble(("error", "red"), " ", (where, "bold"), ": ", found))
        if problem.do:
            console.print(Text(f"      {visible(problem.do)}", style="dim"))
        _LOG.error("%s", problem)
