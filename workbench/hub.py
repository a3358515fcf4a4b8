"""Repositories of the hub as local directories: fetched where there is a network, else from the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.errors import BaseError, DataError, Problem

MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken", "LICENSE*", "NOTICE*"]
"""What is fetched of a model repository: never pickles (`.bin`, `.pt`)."""


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository on this machine."""

    path: Path
    commit: str


def snapshot(repository: str, kind: Literal["model", "dataset"], revision: str | None, patterns: list[str]) -> Snapshot:
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
            huggingface_hub.snapshot_download(repository, repo_type=kind, revision=revision, allow_patterns=patterns)
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
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise failure(
            Problem(
                shown,
                f"is not on this machine and cannot be fetched: {reason}",
                f"where there is a network: hf download {repository}"
                + ("" if kind == "model" else " --repo-type dataset"),
            )
        ) from None
    return Snapshot(path, path.name)


def cached_file(repository: str, revision: str | None, name: str) -> Path | None:
    """One file of a model repository, where it is in the hub's cache; nothing is fetched."""
    # Imported here for the same reason as above.
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None
