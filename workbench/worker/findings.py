"""What the doctor found, as tables: plain text in a pipe."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.visible import visible

_GIB = 2**30
_WIDTH_OF_A_PIPE = 140
_STYLES = {"yes": "green", "no": "red", "not here": "yellow", "experimental": "yellow", "unknown": "yellow"}


def show(report: dict[str, Any]) -> None:
    """Print the report of `workbench.worker.doctor`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)
    _pairs(console, "machine", _machine(report))
    _pairs(console, "versions", {name: version or "-" for name, version in report["versions"].items()})
    for backend in report["backends"]:
        if backend["here"]:
            _capabilities(console, backend)
    console.print()
    away: dict[str, list[str]] = {}
    for backend in report["backends"]:
        if not backend["here"]:
            away.setdefault(backend["reason"], []).append(backend["title"])
    for reason, titles in away.items():
        console.print(Text(f"not here: {', '.join(titles)} ({reason})", style="dim"))
    console.print(Text(f"the hub: {report['hub']}", style="dim"))
    _missing(console, report["missing"])


def _machine(report: dict[str, Any]) -> dict[str, str]:
    facts, torch = report["machine"], report["torch"]
    sets = f" ({', '.join(facts['instruction_sets'])})" if facts["instruction_sets"] else ""
    found = {
        "system": facts["system"],
        "processor": facts["processor"] + sets,
        "cores": f"{facts['cores']} ({facts['threads']} threads, {facts['allowed_threads']} of them allowed)",
        "memory": f"{facts['memory_bytes'] / _GIB:.1f} GiB, {facts['free_memory_bytes'] / _GIB:.1f} free",
        "disk": f"{facts['free_disk_bytes'] / _GIB:.1f} GiB free at {facts['disk']}",
    }
    for number, device in enumerate(torch["devices"] if torch else []):
        memory = f", {device['memory_bytes'] / _GIB:.1f} GiB" if device["memory_bytes"] else ""
        found[f"{torch['kind']} {number}"] = device["name"] + memory
    if torch and torch["devices"]:
        found["driver"] = f"{torch['driver'] or 'not asked'}; torch {torch['build']} is built for {torch['toolkit']}"
    else:
        found["accelerators"] = "torch sees none" if torch else "torch cannot be imported"
    return found


def _pairs(console: Console, title: str, pairs: dict[str, str]) -> None:
    table = Table("", "", box=None, pad_edge=False, show_header=False, title=title, title_justify="left")
    for name, value in pairs.items():
        table.add_row(name, Text(visible(value)))
    console.print(table)
    console.print()


def _capabilities(console: Console, backend: dict[str, Any]) -> None:
    title = f"what works on {backend['title']}"
    table = Table("what", "here", "known", "how", box=None, pad_edge=False, title=title, title_justify="left")
    for one in backend["capabilities"]:
        answer = Text(one["answer"], style=_STYLES[one["answer"]])
        how = "" if one["known"] == "table" else one["reason"]
        table.add_row(one["name"].replace("_", " "), answer, one["known"], Text(visible(how)))
    console.print(table)
    source = next((one["reason"] for one in backend["capabilities"] if one["known"] == "table"), None)
    if source:
        console.print(Text(f"table: {source}", style="dim"))


def _missing(console: Console, missing: list[dict[str, str]]) -> None:
    console.print()
    if not missing:
        console.print("nothing is missing")
        return
    console.print("missing:")
    for one in missing:
        console.print(Text(f"  {visible(one['what'])}"))
        console.print(Text(f"      {visible(one['do'])}", style="bold"))
