"""Files are written whole or not at all: to a temporary name beside the target, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import Problem, RunError


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader (or a crash) sees the old file or the new one, never a half.

    Raises:
        RunError: the folder cannot be written to, or the disk is full; the target keeps what it held.
    """
    with whole_file(path) as fresh:
        fresh.write_bytes(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A fresh name to write a file under, flushed and renamed to `path` at the end; on any error `path` stays as it is.

    Raises:
        RunError: the place cannot be written to.
    """
    temporary = _temporary(path)
    try:
        if path.exists() and not path.is_file():  # the renaming would put a device or a pipe out of the world
            raise RunError(Problem(str(path), "is there, and is no plain file", "name another file"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise RunError(unwritable(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def unwritable(path: Path, error: OSError) -> Problem:
    """The problem of a path that could not be written, in words."""
    advice = (
        "choose another place with --runs (of a pack or an export: --out; of the cache: environment variable "
        "WORKBENCH_CACHE)"
    )
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = f"free some space, or {advice}"
    reason = error.strerror or str(error)
    if error.errno is None:  # numpy's words
        reason += " (is the disk full?)"
    return Problem(str(path), f"cannot be written: {reason}", advice)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_bytes` of an indented JSON object. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`write_bytes` of one JSON object a line."""
    write_text(path, "".join(json_line(row) for row in rows))


def json_line(row: Mapping[str, Any]) -> str:
    """One line of a JSONL file, its newline included."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line in a single write, so that a crash leaves at most one torn last line; a torn line that is
    there already is cut off first, or the two would make one unreadable line together."""
    try:
        with path.open("ab+") as stream:
            stream.truncate(_whole_lines_bytes(stream))
            stream.write(json_line(row).encode())
            stream.flush()
    except OSError as error:
        raise RunError(unwritable(path, error)) from error


def _whole_lines_bytes(stream: BinaryIO) -> int:
    end = stream.seek(0, os.SEEK_END)
    for start in range(end - 1, -1, -1):
        stream.seek(start)
        if stream.read(1) == b"\n":
            return start + 1
    return 0


DAMAGED = "put it back as it was, or remove what it belongs to and make that again"
"""What to do about a damaged file, where nothing more is known of it."""


class _Object(dict[str, Any]):
    """An object of a file of ours. A key that is not there is damage of the file, and no defect of who asks for it."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__(values)
        self._place = place

    def __missing__(self, key: str) -> Any:
        raise RunError(Problem(self._place, f"is damaged: it has no {key!r}", DAMAGED))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file written by `write_json`.

    Raises:
        RunError: the file is missing or holds no JSON object; also when a key is asked of it that it does not have.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(Problem(str(path), f"cannot be read: {error.strerror}", DAMAGED)) from error
    return parse_object(content, str(path))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, none where there is no file; a torn last line (a crash while appending) is left out.

    Raises:
        RunError: the file cannot be read, or a line is no JSON object; also when a row is asked for a key that it does
            not have.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    return
                yield parse_object(line, f"{path}:{number}")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(Problem(str(path), f"cannot be read: {error.strerror}", DAMAGED)) from error


def parse_object(content: bytes, place: str) -> dict[str, Any]:
    """The JSON object that a file, or a line of one, holds.

    Args:
        place: what the file or line is called in messages.

    Raises:
        RunError: it holds none; also when a key is asked of it that it does not have.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RunError(Problem(place, f"is damaged: {error}", DAMAGED)) from error
    if not isinstance(value, dict):
        raise RunError(Problem(place, "is damaged: it holds no JSON object", DAMAGED))
    return _Object(value, place)


@contextlib.contextmanager
def whole_directory(path: Path, keep: bool = False) -> Iterator[Path]:
    """A fresh directory to fill, renamed to `path` at the end; on any error `path` does not come to be.

    Args:
        keep: what came to be at `path` meanwhile (another process did the same work) stays, and ours is dropped.

    Raises:
        RunError: the place cannot be written to.
    """
    temporary = _temporary(path)
    try:
        _remove_leftovers(path)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise RunError(unwritable(temporary, error)) from error
    try:
        yield temporary
        mode = temporary.stat().st_mode & 0o666  # what the user's mask leaves; libraries write weights for us alone
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(mode)
                flush(file)
        if path.exists() and not keep:
            shutil.rmtree(path)
        try:
            temporary.rename(path)
        except OSError:
            if not (keep and path.exists()):
                raise
    except OSError as error:
        about = Path(error.filename or path)
        if not (about.is_relative_to(temporary) or about.is_relative_to(path)):
            raise  # something else could not be read
        raise RunError(unwritable(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.parent / f"{_leftover_prefix(path)}{os.getpid()}"


def _leftover_prefix(path: Path) -> str:
    return f".{path.name}.tmp-{socket.gethostname()}-"


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine left half made when they were killed; one that is at work on the same
    directory now (a second run filling the same cache) keeps its own."""
    prefix = _leftover_prefix(path)
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*"):
        process = leftover.name.removeprefix(prefix)
        # not digits: another machine, whose name begins with this one's
        if process.isdigit() and (int(process) == os.getpid() or not is_alive(int(process))):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def is_alive(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def flush(path: Path) -> None:
    """Ask the system to put a file's bytes on the disk before anything depends on them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
