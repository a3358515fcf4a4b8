"""Dashboards of the trackers that keep their records on this machine: published to, served, and opened in a browser."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FILTER = "train/loss|train/learning_rate|train/gradient_norm|cost/training_flops|heldout/|task/"
"""Keys that make a page which fits a screen."""
_FEW = "train/loss|heldout/|task/"
"""The same for one plot a row."""
_ORDER = "train/*,heldout/*,task/*"
_PATIENCE_SECONDS = 60.0
_STILL_MILLISECONDS = 1500.0
_SHOWS = "words => words.every(word => document.body.innerText.replaceAll('\\n', '').includes(word))"
_SHOW = "import sys, trackio; trackio.show(sys.argv[1], open_browser=False, server_port=int(sys.argv[2]))"


Shown = tuple[Path, str | None, str | None]
"""A run with its study and arm."""


def publish(kind: str, settings: Mapping[str, Any], root: Path, runs: Sequence[Shown]) -> None:
    """Show runs that have ended in a tracker, from a process as they are shown from."""
    done = start(kind, settings, root, runs)
    assert done.returncode == 0, done.stdout + done.stderr


def start(
    kind: str,
    settings: Mapping[str, Any],
    root: Path,
    runs: Sequence[Shown],
    program: Sequence[str] = ("-m", "workbench.tracking"),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """The same, whatever comes of it."""
    line = [sys.executable, *program, *words(kind, settings, root, runs)]
    return subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment})


def words(
    kind: str,
    settings: Mapping[str, Any],
    root: Path,
    runs: Sequence[Shown],
    live: bool = False,
) -> list[str]:
    """What such a process is told."""
    told = [{"path": str(path), "study": study, "arm": arm} for path, study, arm in runs]
    return [kind, json.dumps({"settings": settings, "live": live, "root": str(root), "runs": told, "study": None})]


@contextmanager
def browser(sync_api: Any) -> Iterator[Any]:
    """A headless Chromium."""
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def wait_for(page: Any, words: Sequence[str]) -> None:
    """Wait until all of them can be read on a page, and what moves stands still."""
    page.wait_for_function(_SHOWS, arg=list(words))
    page.wait_for_timeout(_STILL_MILLISECONDS)


@contextmanager
def trackio_page(browser: Any, directory: Path, project: str) -> Iterator[Any]:
    """trackio's dashboard with whole keys over the plots, the walk first."""
    with trackio(directory, project) as address:
        page = browser.new_page(viewport={"width": 1200, "height": 1290})
        page.goto(address)
        page.get_by_placeholder("e.g., loss").fill(_FEW)
        page.get_by_role("slider").fill("0")
        page.get_by_text("Show section headers").click()
        page.get_by_label("Plots per row").click()
        page.get_by_role("option", name="1", exact=True).click()
        yield page
        page.close()


@contextmanager
def tensorboard_page(browser: Any, directory: Path, project: str) -> Iterator[Any]:
    """TensorBoard's time series. It knows no projects: a directory is one."""
    with tensorboard(directory) as address:
        page = browser.new_page(viewport={"width": 1440, "height": 850})
        page.goto(f"{address}?tagFilter={quote(FILTER)}&smoothing=0#timeseries")
        page.get_by_text("Enable step selection").click()
        page.get_by_text("Ignore outliers").click()
        page.get_by_role("button", name="Settings").filter(has_text="Settings").click()
        yield page
        page.close()


PAGES = {"trackio": trackio_page, "tensorboard": tensorboard_page}


@contextmanager
def trackio(directory: Path, project: str) -> Iterator[str]:
    """The address of trackio's dashboard, while it is served."""
    port = _free_port()
    line = [sys.executable, "-c", _SHOW, project, str(port)]
    settings = {"TRACKIO_DIR": str(directory), "TRACKIO_PLOT_ORDER": _ORDER, "HF_HUB_OFFLINE": "1"}
    with _served(line, port, "/", [], **settings):
        yield f"http://127.0.0.1:{port}/?project={project}"


@contextmanager
def tensorboard(directory: Path) -> Iterator[str]:
    """The address of a TensorBoard that has read every run in a directory, while it is served."""
    port = _free_port()
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--host", "127.0.0.1"]
    with _served([*line, "--port", str(port)], port, "/data/runs", [path.name for path in directory.iterdir()]):
        yield f"http://127.0.0.1:{port}/"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _served(line: Sequence[str], port: int, page: str, words: Sequence[str], **environment: str) -> Iterator[None]:
    """A server that answers; `page` holds `words` once it is ready. It is ended with all that it started."""
    server = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        until = time.monotonic() + _PATIENCE_SECONDS
        while (answer := _answer(port, page)) is None or any(word not in answer for word in words):
            assert server.poll() is None, f"{line} ended with {server.returncode}"
            assert time.monotonic() < until, f"{line} does not answer"
            time.sleep(0.2)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answer(port: int, page: str) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()
