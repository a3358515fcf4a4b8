"""A small hub on this machine: as much of its HTTP interface as huggingface_hub asks for when it fetches snapshots."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_LARGE_BYTES = 20_000
"""From here on a file is stored as a large one (by its sha256, behind a redirect to another host)."""


@dataclass
class Repository:
    """Commits of one repository; `main` is the last."""

    commits: dict[str, dict[str, bytes]]
    gated: bool = False

    @property
    def main(self) -> str:
        """The commit that the branch stands at."""
        return list(self.commits)[-1]


@dataclass
class Hub:
    """The server and what it holds; `asked` is what it was asked for."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    """By `models/owner/name` or `datasets/owner/name`."""
    asked: list[str] = field(default_factory=list)
    spoiled: set[str] = field(default_factory=set)
    """Names of files that are passed on with a byte changed."""
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    def add(self, repository: str, files: dict[str, bytes], gated: bool = False) -> str:
        """A new commit of a repository."""
        known = self.repositories.setdefault(repository, Repository({}, gated))
        words = repr((repository, len(known.commits), sorted(files.items())))
        commit = hashlib.sha1(words.encode()).hexdigest()
        known.commits[commit] = files
        return commit

    @property
    def address(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answer, on the same port as before."""
        hub = self

        class Handler(_Handler):
            """Of this hub."""

            held = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be gone: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fetched(self) -> list[str]:
        """The files whose content was sent, in order."""
        return [line.removeprefix("GET ") for line in self.asked if line.startswith("GET ") and "/api/" not in line]


def git_id(content: bytes) -> str:
    """What git calls a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.held.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.+))?)?", path):
            self._api(f"{found[1]}/{found[2]}", found[3] or "revision", found[4] or "main", found[5] or "")
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(f"{'datasets' if found[1] else 'models'}/{found[2]}", found[3], found[4])
        elif found := re.fullmatch(r"/large/([0-9a-f]{64})/(.+)", path):
            self._large(found[1], found[2])
        else:
            self._send(404, b"")

    def _commit(self, name: str, revision: str) -> str | None:
        """The commit, or None where an error was sent."""
        known = self.held.repositories.get(name)
        if known is None:  # as the real one answers who is not logged in
            self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        commit = known.main if revision == "main" else revision
        if commit not in known.commits:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            return None
        return commit

    def _api(self, name: str, what: str, revision: str, folder: str) -> None:
        if (commit := self._commit(name, revision)) is None:
            return
        files = self.held.repositories[name].commits[commit]
        if what == "tree":
            deep = "recursive=true" in urlsplit(self.path).query.lower()
            if found := list(_tree(files, folder, deep)):
                self._json(found)
            else:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._json({"id": name.partition("/")[2], "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def _file(self, name: str, revision: str, path: str) -> None:
        if (commit := self._commit(name, revision)) is None:
            return
        if self.held.repositories[name].gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return
        content = self.held.repositories[name].commits[commit].get(path)
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_id(content)}"'}
        if len(content) < _LARGE_BYTES:
            self._send(200, self._passed_on(path, content), headers)
            return
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        headers["Location"] = f"http://localhost:{self.held.port}/large/{sha256}/{path}"
        self._send(302, b"", headers)

    def _large(self, sha256: str, path: str) -> None:
        for known in self.held.repositories.values():
            for files in known.commits.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == sha256:
                        self._send(200, self._passed_on(path, content), {"ETag": f'"{sha256}"'})
                        return
        self._send(404, b"")

    def _passed_on(self, path: str, content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1]) if path in self.held.spoiled else content

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tree(files: dict[str, bytes], folder: str, deep: bool) -> Iterator[dict[str, Any]]:
    """The files and folders under a folder, or only those right in it."""
    start = f"{folder}/" if folder else ""
    folders = set()
    for path, content in sorted(files.items()):
        inner, slash, _ = path.removeprefix(start).partition("/")
        if path.startswith(start) and slash and start + inner not in folders:
            folders.add(start + inner)
            yield {"type": "directory", "path": start + inner, "oid": git_id(b""), "size": 0}
        if path.startswith(start) and (deep or not slash):
            yield _listed(path, content)


def _listed(path: str, content: bytes) -> dict[str, Any]:
    size = len(content)
    if size < _LARGE_BYTES:
        return {"type": "file", "path": path, "size": size, "oid": git_id(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    lfs = {"oid": sha256, "size": size, "pointerSize": len(pointer)}
    return {"type": "file", "path": path, "size": size, "oid": git_id(pointer), "lfs": lfs}
