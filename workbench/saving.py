"""What a library could not write, in words: full disks and lost mounts come out of them as several kinds of error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from workbench import files
from workbench.errors import Problem, RunError

_TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "unexpected pos")


@contextlib.contextmanager
def placed(where: Callable[[], str]) -> Iterator[None]:
    """Say where in the work something could not be read or written.

    Args:
        where: asked when it happens (`step 17`).

    Raises:
        RunError: the same problems, each with that place.
    """
    try:
        yield
    except RunError as error:
        raise RunError([replace(one, where=f"{where()}: {one.where}") for one in error.problems]) from error
    except OSError as error:
        problem = files.unwritable(Path(error.filename or "a file"), error)
        raise RunError(replace(problem, where=f"{where()}: {problem.where}")) from error


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn a library's failure to write under `path` into one problem.

    Raises:
        RunError: says what could not be written and why.
    """
    try:
        yield
    except OSError as error:
        raise RunError(files.unwritable(path, error)) from error
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _TORCH_WRITER):
            raise
        reason = str(error).splitlines()[0][:200]
        raise RunError(Problem(str(path), f"cannot be written: {reason}", "is the disk full?")) from error
