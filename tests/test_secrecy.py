"""What is taken for a secret of this machine, and how it is found in bytes. (In packs: tests/test_pack.py.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workbench import secrecy
from workbench.secrecy import Search


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that knows no secret."""
    for name in [name for name in os.environ if secrecy.NAMES.search(name) or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("WANDB_CONFIG_DIR", raising=False)
    return tmp_path


def where() -> list[str]:
    return [one.where for one in secrecy.known()]


def test_a_secret_over_the_border_of_two_blocks_is_found() -> None:
    secret = secrecy.Secret("somewhere", (b"abcdefgh", b"xyz"))
    for cut in range(1, 8):
        search = Search([secret])
        for block in (b"--" + b"abcdefgh"[:cut], b"abcdefgh"[cut:] + b"--"):
            search.look(block)
        assert search.found == [secret]
    assert "abcdefgh" not in repr(secret)


def test_short_values_paths_and_plain_variables_are_no_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SOME_KEY_FILE", str(home / "key"))
    (home / "key").write_text("the-real-one\n")
    monkeypatch.setenv("PLAIN", "a-long-enough-value")
    assert where() == ["what the file holds that SOME_KEY_FILE names"]
    search = Search(secrecy.known())
    search.look(str(home / "key").encode())
    assert search.found == [], "where it lies is no secret"
    search.look(b"it is the-real-one, is it?")
    assert search.found == secrecy.known()


def test_every_file_in_which_tools_keep_secrets_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert where() == []
    (home / ".netrc").write_text("machine a login b password first-one\nmachine c\n login d\n password second-one\n")
    for name, text in {"token": "third-one", "stored_tokens": "[me]\nhf_token = fourth-one\n"}.items():
        (home / "hf").mkdir(exist_ok=True)
        (home / "hf" / name).write_text(text)
    (home / ".config" / "wandb").mkdir(parents=True)
    (home / ".config" / "wandb" / "settings").write_text("[default]\napi_key = fifth-one\nentity = somebody\n")
    found = secrecy.known()
    assert [one.where for one in found] == [
        "from .netrc", "from .netrc", "from token", "from stored_tokens", "from settings"
    ]  # fmt: skip
    search = Search(found)
    search.look(b"first-one second-one third-one fourth-one fifth-one")
    assert search.found == found
    (home / "elsewhere").write_text("machine a login b password sixth-one")
    monkeypatch.setenv("NETRC", str(home / "elsewhere"))
    assert "from elsewhere" in where()


@pytest.mark.parametrize(
    "written",
    [
        b'export PASS=a"b\\c/d e',
        b'{"pass": "a\\"b\\\\c/d e"}',
        b"https://me:a%22b%5Cc%2Fd%20e@example.org/",
        b"export PASS='a\"b\\c/d e'",
    ],
    ids=["plain", "json", "address", "shell"],
)
def test_a_secret_is_found_as_files_addresses_and_shells_write_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, written: bytes
) -> None:
    monkeypatch.setenv("MY_PASSWORD", 'a"b\\c/d e')
    search = Search(secrecy.known())
    search.look(written)
    assert [one.where for one in search.found] == ["the value of MY_PASSWORD"]
    assert "unset MY_PASSWORD" in secrecy.problem("file", search.found[0]).do
