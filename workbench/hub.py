"""Repositories of the hub as local directories: fetched where there is a network, else from the cache."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.errors import BaseError, DataError, Problem

MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken", "LICENSE*", "NOTICE*"]
"""What is fetched of a model repository: never pickles (`.bin`, `.pt`)."""

Kind = Literal["model", "dataset"]
_YES = ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository on this machine."""

    path: Path
    commit: str


@dataclass(frozen=True)
class Listed:
    """What the hub says of one file of a commit."""

    size: int
    blob: str
    """git's id of it (of a large file: of the pointer that stands for it)."""


def home() -> Path:
    """Where the hub's library keeps its things: `HF_HOME`, else its default. Read at every call."""
    chosen = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.path.expandvars(chosen)).expanduser()


def cache_folder() -> Path:
    """The hub's cache. Its library looks at the environment once, when it is imported; this looks at every call."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(chosen)).expanduser() if chosen else home() / "hub"


def is_offline() -> bool:
    """Whether nothing may be fetched, as the environment says now."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in _YES


def repository_folder(cache: Path, kind: Kind, repository: str) -> Path:
    """A repository's folder in a cache of the hub."""
    return cache / f"{kind}s--{repository.replace('/', '--')}"


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The files of a repository that patterns stand for, as the hub's own library takes them."""
    whole = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in patterns]
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in whole)]


def snapshot(repository: str, kind: Kind, revision: str | None, patterns: list[str]) -> Snapshot:
    """A revision's files, fetched if they are not in the hub's cache yet.

    Raises:
        BaseError, DataError: no such repository or revision, no access, or no network and nothing cached.
    """
    # Imported here: it takes a quarter of a second that a run on a local directory need not spend.
    import huggingface_hub
    from huggingface_hub import errors

    failure = BaseError if kind == "model" else DataError
    shown = f"{repository}@{revision or 'main'}"
    try:
        path = Path(
            huggingface_hub.snapshot_download(
                repository,
                repo_type=kind,
                revision=revision,
                allow_patterns=patterns,
                cache_dir=cache_folder(),
                local_files_only=is_offline(),
            )
        )
    except errors.GatedRepoError:
        raise failure(
            Problem(
                shown,
                "access needs the licence to be accepted",
                f"accept it at huggingface.co/{repository}, then `hf auth login`",
            )
        ) from None
    except errors.RepositoryNotFoundError:
        raise failure(
            Problem(
                shown,
                "the hub has no such repository (or it is private)",
                "check the name; for a private one `hf auth login`",
            )
        ) from None
    except errors.RevisionNotFoundError:
        raise failure(Problem(shown, "the repository has no such revision", "name a commit, tag or branch")) from None
    except errors.HFValidationError as error:
        raise failure(Problem(shown, f"is no name of a repository: {_first_line(error)}", "owner/name")) from None
    # a network that is gone in the middle of a file is no OSError
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise failure(
            Problem(
                shown,
                f"is not on this machine and cannot be fetched: {_first_line(error)}",
                f"where there is a network: hf download {repository}"
                + ("" if kind == "model" else " --repo-type dataset"),
            )
        ) from None
    return Snapshot(path, path.name)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def listing(repository: str, kind: Kind, commit: str) -> dict[str, Listed] | None:
    """All files of a commit, as the hub listed them when it was asked; None where it never was.

    Only with it is it known that a snapshot is whole: the hub's library takes what is there for enough otherwise.
    """
    # Imported here for the same reason as above.
    import huggingface_hub
    from huggingface_hub import errors

    try:
        found = huggingface_hub.get_cached_repo_tree(
            repository, repo_type=kind, revision=commit, cache_dir=cache_folder()
        )
    except errors.CachedRepoTreeNotFoundError:
        return None
    return {file.path: Listed(file.size, file.blob_id) for file in found}


def cached_file(repository: str, revision: str | None, name: str) -> Path | None:
    """One file of a model repository, where it is in the hub's cache; nothing is fetched."""
    # Imported here for the same reason as above.
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision, cache_dir=cache_folder())
    return Path(found) if isinstance(found, str) else None
