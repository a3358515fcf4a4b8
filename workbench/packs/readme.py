"""The page at the top of a pack: what it is, and the commands by which it is checked and gone on with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from workbench.packs.layout import INPUTS, RUNS
from workbench.runs.places import MANIFEST

README = "README.md"
_DIFFERING = (
    'python3 -c "import hashlib, json, pathlib; [print(name) for name, file in '
    f"json.load(open('{MANIFEST}'))['files'].items() if "
    "hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest() != file['sha256']]\""
)


def readme(facts: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    more = "".join(f" --set {shlex.quote(text)}" for text in facts["settings"])
    lines = [
        f"# {facts['name']}",
        "",
        f"Packed by workbench {facts['workbench']} with Python {facts['versions']['python']}. `{MANIFEST}` lists every "
        "file with its sha256, the versions of packages, what is fetched from where, and what was left out and why.",
        "",
        "Commands are typed in this folder, with the workbench installed.",
        "",
        "## Is it whole?",
        "",
        "Before it is unpacked, `workbench pack --check FILE`. Afterwards, this prints every file that changed:",
        "",
        *_shell(_DIFFERING),
    ]
    for study in facts["studies"]:
        command = f"workbench study {shlex.quote(study)}{more} --runs {RUNS}"
        lines += ["## Is the verdict right?", "", f"From the scores of every item, item by item ({study}):", ""]
        lines += _shell(f"{command} --judge")
        lines += ["## Go on", "", "What is missing or unfinished is trained, and nothing else:", "", *_shell(command)]
    for recipe in facts["recipes"]:
        lines += ["## Go on", "", f"Finish the run, or find it finished ({recipe}):", ""]
        lines += _shell(f"workbench train {shlex.quote(recipe)}{more} --runs {RUNS}")
    finished = [name for name in facts["runs"] if name not in facts["unfinished"]]
    trained = next((name for name in finished if not name.startswith("base-")), None)
    if trained is not None:
        lines += ["## Does it come out again?", "", "Any finished run, trained once more in a folder of its own:", ""]
        lines += _shell(f"workbench reproduce {RUNS}/{shlex.quote(trained)} --runs again")
    return "\n".join(lines + _from_outside(facts))


def _shell(command: str) -> list[str]:
    return ["```bash", command, "```", ""]


def _from_outside(facts: Mapping[str, Any]) -> list[str]:
    """What the pack does not hold."""
    hub, tasks = facts["fetched_from_the_hub"], facts["fetched_by_lm_eval"]
    if not hub and not tasks:
        return [f"Everything that was read lies under `{INPUTS}/` or in the package itself.", ""]
    lines = ["## What is fetched", ""]
    lines += [f"- {one['kind']} `{one['repository']}` at commit `{one['commit']}`, from the hub" for one in hub]
    lines += [f"- the data sets of `{task}`, by lm-evaluation-harness" for task in tasks]
    return [*lines, ""]
