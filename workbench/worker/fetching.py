"""One repository of the hub into the store: fetched, every file hashed, damaged ones fetched again, a receipt."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from workbench import hub
from workbench.errors import BaseError, DataError, Problem, UserError
from workbench.recipe.inputs import Repository
from workbench.runs import store as stores
from workbench.runs.store import Receipt, Stored

State = Literal["fetched", "there, verified", "damaged, fetched again"]
_BLOCK_BYTES = 1 << 22
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Brought:
    """What came of one input."""

    what: str
    name: str
    commit: str
    num_files: int
    num_bytes: int
    state: State


def bring(wanted: Repository, store: Path) -> Brought:
    """Have all that is wanted of a repository in the store, proved by hashes.

    Raises:
        UserError: it is not to be had; there is no receipt then that says otherwise.
    """
    before = _receipt(wanted, store)
    found = hub.snapshot(wanted.name, wanted.kind, wanted.revision, list(wanted.patterns))
    known = stores.read(stores.receipt_path(store, wanted, found.commit), Receipt)
    names = _names(wanted, found.commit, known)
    checked = _Checked(wanted, found, known.files if known else {}, store)
    damaged = [name for name in names if not checked.is_sound(name)]
    if damaged:
        checked.fetch_again(damaged)
    patterns = list(dict.fromkeys([*(known.patterns if known else []), *wanted.patterns]))
    stored = {**(known.files if known else {}), **checked.stored}
    covered = known is not None and set(wanted.patterns) <= set(known.patterns)
    state: State = "damaged, fetched again" if damaged else "fetched"
    if covered and not damaged and before == found.commit:
        state = "there, verified"
    receipt = Receipt(
        kind=wanted.kind,
        repository=wanted.name,
        commit=found.commit,
        patterns=patterns,
        files=dict(sorted(stored.items())),
        fetched=known.fetched if known and state == "there, verified" else now(),
    )
    stores.write(stores.receipt_path(store, wanted, found.commit), receipt)
    size = sum(checked.stored[name].bytes for name in names)
    return Brought(wanted.kind, wanted.name, found.commit, len(names), size, state)


def _receipt(wanted: Repository, store: Path) -> str | None:
    """The commit that the store has whole, before anything is fetched; None where a file is gone."""
    commit = stores.commit_of(wanted, store)
    return None if commit is None or stores.lacking(wanted, store) else commit


def _names(wanted: Repository, commit: str, known: Receipt | None) -> list[str]:
    """The files that are wanted: by the hub's own list of the commit, else by an earlier receipt.

    Raises:
        BaseError, DataError: the hub was never asked, so that nobody knows whether what is there is all of it; or
            nothing is called so.
    """
    listed = hub.listing(wanted.name, wanted.kind, commit)
    failure = BaseError if wanted.kind == "model" else DataError
    if listed is None and (known is None or not set(wanted.patterns) <= set(known.patterns)):
        found = "is here in part or whole, which only the hub can tell, and it cannot be asked"
        raise failure(Problem(wanted.shown, found, "prefetch where there is a network (and HF_HUB_OFFLINE is not set)"))
    names = hub.matching(sorted(listed if listed is not None else known.files if known else ()), wanted.patterns)
    if not names:
        found = f"has no file that matches {', '.join(wanted.patterns)}"
        raise failure(Problem(wanted.shown, found, "check the revision and the card's `files:`"))
    return names


class _Checked:
    """The files of a snapshot against what was recorded of them, or what the hub says of them."""

    def __init__(self, wanted: Repository, found: hub.Snapshot, known: dict[str, Stored], store: Path) -> None:
        self._wanted, self._found, self._known = wanted, found, known
        self._listed = hub.listing(wanted.name, wanted.kind, found.commit) or {}
        self._store = store
        self.stored: dict[str, Stored] = {}
        """The sound ones."""

    def is_sound(self, name: str) -> bool:
        """Read a file and hold it against its hash; one that is there for the first time against the hub's."""
        path = self._found.path / name
        try:
            size, sha256, git = _read(path)
        except OSError:
            return False
        known, listed = self._known.get(name), self._listed.get(name)
        sound = known is None or known == Stored(bytes=size, sha256=sha256)
        sound = sound and (listed is None or listed.size == size)
        # The hub's library calls a blob after what the hub said of it: sha256 of a large file, git's id of another.
        blob = path.readlink().name if path.is_symlink() else ""
        sound = sound and (_SHA256.fullmatch(blob) is None or blob == sha256)
        sound = sound and (listed is None or blob != listed.blob or blob == git)
        if sound:
            self.stored[name] = Stored(bytes=size, sha256=sha256)
        return sound

    def fetch_again(self, names: Sequence[str]) -> None:
        """Remove damaged files with their blobs, and fetch them anew.

        Raises:
            UserError: one cannot be fetched, or is damaged again; what is damaged stays away.
        """
        wanted, failure = self._wanted, BaseError if self._wanted.kind == "model" else DataError
        self._remove(names)
        shown = f"{wanted.name}@{self._found.commit[:12]}"
        try:
            hub.snapshot(wanted.name, wanted.kind, self._found.commit, list(wanted.patterns))
        except UserError as error:
            reason = "; ".join(problem.found for problem in error.problems)
            found = f"{stores.named(names)} was damaged (not what its hash says), is removed, and {reason}"
            raise failure(Problem(shown, found, "prefetch again where there is a network")) from None
        again = [name for name in names if not self.is_sound(name)]
        if again:
            self._remove(again)
            found = f"{stores.named(again)} is not what its hash says, and is the same when it is fetched again"
            raise failure(
                Problem(shown, found, f"is the disk of {self._store} sound? is a proxy changing what it passes on?")
            )

    def _remove(self, names: Sequence[str]) -> None:
        inside = (self._store / "hub").resolve()
        for name in names:
            for path in _chain(self._found.path / name):
                if path.is_relative_to(inside):  # a link that leads out of the store is a person's own
                    path.unlink(missing_ok=True)


def _chain(path: Path) -> Iterator[Path]:
    """A file's links, then the file itself: a snapshot's entry, its blob, and what several repositories share."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        yield path
        path = Path(os.path.normpath(target))
    yield path


def _read(path: Path) -> tuple[int, str, str]:
    """A file's size, sha256 and git's id, read now (a remembered hash would not see a disk that forgets)."""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            sha256.update(block)
            git.update(block)
    return size, sha256.hexdigest(), git.hexdigest()


def stored(path: Path) -> Stored:
    """A file as a receipt records it."""
    size, sha256, _ = _read(path)
    return Stored(bytes=size, sha256=sha256)


def now() -> str:
    """The time in UTC, as receipts write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
