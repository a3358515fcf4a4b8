"""Secrets that this machine knows, and whether one of them stands in what is about to leave it."""

from __future__ import annotations

import json
import os
import re
import shlex
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench import hub
from workbench.errors import Problem, RunError

NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
"""What names of variables that hold secrets contain."""

_SHORTEST_VARIABLE = 8
"""A shorter value of a variable (`TOKENIZERS_PARALLELISM=false`) would be found everywhere."""
_SHORTEST_WORD = 6
"""Of what stands in files that hold nothing but secrets."""
_LARGEST_FILE_BYTES = 1 << 16
_VARIABLE = "the value of "


@dataclass(frozen=True)
class Secret:
    """Something that must not leave this machine."""

    where: str
    """Where it is known from, for messages; it itself is never shown."""
    forms: tuple[bytes, ...] = field(repr=False)
    """The bytes that it may be written as."""


class Search:
    """Looks for secrets in bytes that come block by block; one that lies over a border is found too."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = secrets
        self._overlap = max((len(form) for secret in secrets for form in secret.forms), default=1) - 1
        self._end = b""
        self.found: list[Secret] = []

    def look(self, block: bytes) -> None:
        """Look at the next block."""
        text = self._end + block
        self.found += [
            secret
            for secret in self._secrets
            if secret not in self.found and any(form in text for form in secret.forms)
        ]
        self._end = text[max(0, len(text) - self._overlap) :]


def refuse(paths: Iterable[Path], named: Callable[[Path], str]) -> None:
    """Refuse files that hold a secret of this machine.

    Args:
        named: what a file is called in the message.

    Raises:
        RunError: names every one.
    """
    secrets, problems = known(), []
    for path in paths:
        search = Search(secrets)
        search.look(path.read_bytes())
        problems += [problem(named(path), secret) for secret in search.found]
    if problems:
        raise RunError(problems)


def problem(place: str, secret: Secret) -> Problem:
    """The problem of a secret in something that is to leave the machine."""
    advice = "take it out of there, and change it where it was given out if this file was ever shared"
    if secret.where.startswith(_VARIABLE):
        advice += f"; where it is no secret, unset {secret.where.removeprefix(_VARIABLE)} for this command"
    return Problem(place, f"holds a secret ({secret.where})", advice)


def known() -> list[Secret]:
    """The secrets of this machine: variables called like one, netrc, and what the hub and W&B keep."""
    made: dict[str, Secret] = {}
    for where, text in (*_of_variables(), *_of_files()):
        made.setdefault(text, Secret(where, _forms(text)))
    return list(made.values())


def _of_variables() -> Iterator[tuple[str, str]]:
    for name, value in sorted(os.environ.items()):
        if not NAMES.search(name):
            continue
        content = _content(Path(value).expanduser()) if "/" in value else None
        if content is not None:  # the variable says where the secret lies
            yield f"what the file holds that {name} names", content.strip()
        elif len(value.strip()) >= _SHORTEST_VARIABLE:
            yield f"{_VARIABLE}{name}", value.strip()


def _of_files() -> Iterator[tuple[str, str]]:
    """What stands in files where tools keep their passwords and tokens."""
    home, hub_home = Path.home(), hub.home()
    config = Path(os.environ.get("WANDB_CONFIG_DIR") or home / ".config" / "wandb")
    token = Path(os.environ.get("HF_TOKEN_PATH") or hub_home / "token")
    places = [(Path(os.environ[name]), r"\bpassword\s+(\S+)") for name in ("NETRC",) if os.environ.get(name)]
    places += [(home / name, r"\bpassword\s+(\S+)") for name in (".netrc", "_netrc")]
    places += [(token, r"(\S+)"), (hub_home / "stored_tokens", r"=\s*(\S+)"), (config / "settings", r"key\s*=\s*(\S+)")]
    for path, pattern in places:
        for word in re.findall(pattern, _content(path.expanduser()) or ""):
            if len(word) >= _SHORTEST_WORD:
                yield f"from {path.name}", word.strip("\"'")


def _content(path: Path) -> str | None:
    """A small text file's content; None where there is none."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_FILE_BYTES:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _forms(text: str) -> tuple[bytes, ...]:
    """How a text is written in plain files, in JSON, in an address and in a shell."""
    written = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    more = (urllib.parse.quote(text, safe=""), shlex.quote(text))
    return tuple(dict.fromkeys(form.encode(errors="surrogateescape") for form in (*written, *more)))
