"""The archive itself: written whole or not at all, the same bytes for the same files, checked without unpacking."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from workbench import files, secrecy
from workbench.errors import Problem, RunError
from workbench.runs.places import MANIFEST
from workbench.secrecy import Search, Secret

_BLOCK_BYTES = 1 << 22
_LEVEL = 6
_FIRST_SECOND = 315532800
"""1980: some programs take the years before for a mistake."""
_SECONDS = 1 << 28
_LARGEST_MANIFEST_BYTES = 1 << 28


@dataclass(frozen=True)
class Digest:
    """What is known of one member."""

    sha256: str
    size: int


Read = Callable[[int], None]
"""Told how many bytes went by."""


def digests(members: Mapping[str, Path | bytes], secrets: Sequence[Secret], read: Read) -> dict[str, Digest]:
    """Every member's hash and size, after a look for secrets in its name and in all its bytes.

    Raises:
        RunError: a file cannot be read or holds a secret; names every one.
    """
    found: dict[str, Digest] = {}
    problems: list[Problem] = []
    for name, content in members.items():
        search, digest, size = Search(secrets), hashlib.sha256(), 0
        search.look(f"{name}\n".encode(errors="surrogateescape"))
        try:
            for block in _blocks(content):
                search.look(block)
                digest.update(block)
                size += len(block)
                read(len(block))
        except OSError as error:
            problems.append(Problem(str(content), f"cannot be read: {error.strerror or error}"))
        shown = str(content) if isinstance(content, Path) else name
        problems += [secrecy.problem(shown, secret) for secret in search.found]
        found[name] = Digest(digest.hexdigest(), size)
    if problems:
        raise RunError(problems)
    return found


def write(path: Path, members: Mapping[str, Path | bytes], known: Mapping[str, Digest], read: Read) -> None:
    """Write the archive. What is written is what was hashed: a file that changed since is refused.

    Raises:
        RunError: the place cannot be written to, or a file changed.
    """
    with (
        files.whole_file(path) as fresh,
        fresh.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(members):
            _write_one(archive, name, members[name], known[name], read)


def _write_one(archive: tarfile.TarFile, name: str, content: Path | bytes, known: Digest, read: Read) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = known.size, 0o644
    # Of each content its own: hashes are remembered by path, size and time, and packs are unpacked over each other.
    entry.mtime = _FIRST_SECOND + int(known.sha256, 16) % _SECONDS
    shown = str(content) if isinstance(content, Path) else name
    try:
        with _opened(content) as stream:
            source = _Hashed(stream, read)
            archive.addfile(entry, source)  # type: ignore[arg-type]
            same = source.digest.hexdigest() == known.sha256 and not stream.read(1)
    except _SourceError as error:
        raise RunError(Problem(shown, f"cannot be read: {error}")) from None
    if not same:
        raise RunError(Problem(shown, "changed while it was packed", "let it come to rest, then pack again"))


class _SourceError(Exception):
    """A file to be packed cannot be read, which is not the archive's fault."""


def _opened(content: Path | bytes) -> IO[bytes]:
    try:
        return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    except OSError as error:
        raise _SourceError(error.strerror or str(error)) from None


class _Hashed:
    """A member's content, hashed as it is read."""

    def __init__(self, stream: IO[bytes], read: Read) -> None:
        self.digest = hashlib.sha256()
        self._stream, self._read = stream, read

    def read(self, size: int) -> bytes:
        """The next bytes; at the end too few, which a size that was promised turns into a change."""
        try:
            block = self._stream.read(size)
        except OSError as error:
            raise _SourceError(error.strerror or str(error)) from None
        self.digest.update(block)
        self._read(len(block))
        return block + b"\0" * (size - len(block))


def _blocks(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block


@dataclass(frozen=True)
class Checked:
    """What an archive was found to hold."""

    manifest: dict[str, Any]
    problems: list[Problem]


def check(path: Path, read: Read) -> Checked:
    """Hold every member of an archive against the list in it; nothing is written anywhere.

    Raises:
        RunError: it is no pack, or is damaged so that it cannot be read on.
    """
    try:
        with gzip.open(path, "rb") as packed:
            with tarfile.open(fileobj=packed, mode="r|") as archive:
                found = _held_against_the_list(path, archive, read)
            while rest := packed.read(_BLOCK_BYTES):  # the checksum of the whole stands at its end
                if rest.strip(b"\0"):
                    raise tarfile.TarError("there is more after its end")
            return found
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(Problem(str(path), f"is damaged, or no pack: {error}", "get it again")) from None
    except OSError as error:
        raise RunError(Problem(str(path), f"cannot be read: {error.strerror or error}")) from None


def _held_against_the_list(path: Path, archive: tarfile.TarFile, read: Read) -> Checked:
    first = archive.next()
    stream = archive.extractfile(first) if first is not None and first.name == MANIFEST and first.isreg() else None
    if first is None or stream is None or first.size > _LARGEST_MANIFEST_BYTES:
        raise RunError(Problem(str(path), f"is damaged, or no pack: it does not begin with {MANIFEST}"))
    try:
        manifest = files.parse_object(stream.read(), MANIFEST)
        listed = {name: Digest(facts["sha256"], facts["bytes"]) for name, facts in manifest["files"].items()}
    except (RunError, KeyError, TypeError, AttributeError):
        raise RunError(Problem(str(path), f"is damaged, or no pack: {MANIFEST} is no list of files")) from None
    problems: list[Problem] = []
    seen = {MANIFEST}
    while (entry := archive.next()) is not None:
        flaw = _flaw(archive, entry, listed.get(entry.name), seen, read)
        if flaw:
            problems.append(Problem(entry.name, flaw))
        seen.add(entry.name)
    problems += [Problem(name, "is listed and not there") for name in listed if name not in seen]
    return Checked(manifest, problems)


def _flaw(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, known: Digest | None, seen: set[str], read: Read
) -> str | None:
    """What is wrong with a member."""
    if not is_safe(entry.name):
        return "is no plain name of a file inside the folder that the pack is unpacked into"
    if not entry.isreg():
        return "is no plain file"
    if known is None:
        return "is there and not listed"
    if entry.name in seen:
        return "is there twice"
    if entry.size != known.size:
        return f"has {entry.size} bytes, {known.size} are listed"
    stream = archive.extractfile(entry)
    assert stream is not None, "a plain file can be read"
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK_BYTES):
        digest.update(block)
        read(len(block))
    return None if digest.hexdigest() == known.sha256 else "is not what is listed: its sha256 is another one"


def is_safe(name: str) -> bool:
    """Whether a member's name stays inside the folder that it is unpacked into, on any system, and is written in the
    one way that leaves no second name for the same file."""
    path = PurePosixPath(name)
    inside = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return inside and str(path) == name and not set(name) & set("\\\0\n")
