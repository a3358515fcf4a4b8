"""Make or find the directory of a run: the same identity is the same directory, whatever it is called."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from workbench import files
from workbench.errors import Problem, RunError
from workbench.recipe.identity import Contents, identity, identity_hash
from workbench.recipe.resolved import Resolved
from workbench.runs.run import Run

NAME_ENDING = re.compile(r"-[0-9a-f]{10}-(s\d+(?:-r\d+)?)")
"""What `directory_name` puts after the recipe's name; its group is the seed (and repeat)."""


def open_run(root: Path, resolved: Resolved, contents: Contents) -> Run:
    """The run's directory under `root`, made if it is not there. What does not belong to the identity (target,
    evaluation, tracking, name) is written anew: it may have changed since. Of a run that is trained already, only what
    it is scored on, where it is shown, and where what it was made of lies now.

    Raises:
        RunError: the place cannot be written to.
    """
    facts = identity(resolved, contents)
    run = find(root, resolved, facts) or Run(root / directory_name(resolved, facts))
    if run.adapter.exists():
        resolved = _as_trained(run.resolved(), resolved)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(files.unwritable(run.path, error)) from error
    files.write_text(run.recipe_file, yaml.safe_dump(_as_asked(resolved), sort_keys=False, allow_unicode=True))
    files.write_json(run.identity_file, facts)
    files.write_json(run.resolved_file, resolved.model_dump(mode="json"))
    return run


def _as_trained(known: Resolved, asked: Resolved) -> Resolved:
    """A trained run's recipe with the evaluation and the tracking that are asked for now; and base, rows and start as
    they are named now, which by the identity are the same ones, perhaps in another place."""
    now = {name: getattr(asked.recipe, name) for name in ("name", "base", "data", "evaluation", "tracking")}
    if hasattr(known.recipe.method, "init_from"):
        start = {"init_from": getattr(asked.recipe.method, "init_from", None)}
        now["method"] = known.recipe.method.model_copy(update=start)
    recipe = known.recipe.model_copy(update=now)
    return known.model_copy(update={"recipe": recipe, "base": asked.base, "data": asked.data, "suite": asked.suite})


def _as_asked(resolved: Resolved) -> dict[str, Any]:
    """The recipe in few words, such that training it gives this run again wherever the file lies."""
    recipe = resolved.recipe
    values: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    for section in ("method", "objective"):  # a name that is its own section's default is left out above
        values[section] = {"name": getattr(recipe, section).name, **values.get(section, {})}
    values["data"]["name"] = str(Path(resolved.data.folder) / f"{resolved.data.name}.yaml")
    if resolved.suite:
        values["evaluation"]["suite"] = str(Path(resolved.suite.folder) / f"{resolved.suite.file or resolved.suite.name}.yaml")
    return values


def directory_name(resolved: Resolved, facts: dict[str, Any]) -> str:
    """`name-identity-sSEED`, with `-rN` for a repeat."""
    return f"{resolved.name}-{_ending(resolved, facts)}"


def _ending(resolved: Resolved, facts: dict[str, Any]) -> str:
    repeat = f"-r{resolved.recipe.repeat}" if resolved.recipe.repeat else ""
    return f"{identity_hash(facts)}-s{facts['seed']}{repeat}"


def find(root: Path, resolved: Resolved, facts: dict[str, Any]) -> Run | None:
    """The directory with this identity, under whatever name."""
    matches = sorted(path for path in root.glob(f"*-{_ending(resolved, facts)}") if path.is_dir())
    return Run(matches[0]) if matches else None


def nearest(root: Path, resolved: Resolved, facts: dict[str, Any]) -> tuple[Run, list[str]] | None:
    """The newest run of the same name with another identity, and the fields it differs in."""
    others = [run for run in _named(root, resolved.name) if run.identity_file.exists()]
    others.sort(key=lambda run: run.identity_file.stat().st_mtime, reverse=True)
    for other in others:
        differing = sorted(differences(files.read_json(other.identity_file), facts))
        if differing:
            return other, differing
    return None


def _named(root: Path, name: str) -> Iterator[Run]:
    return (Run(path) for path in root.glob(f"{name}-*-s*") if path.is_dir())


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """The dotted places where two values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differences(one.get(key), other.get(key), f"{place}.{key}" if place else key)
    elif one != other:
        yield place


def named_run(root: Path, name: str) -> Run:
    """The run that a person names: a directory, a run's name, or an unambiguous beginning of one.

    Raises:
        RunError: none, or several.
    """
    lists = "`workbench runs` lists them" if root == Path("runs") else f"`workbench runs --runs {root}` lists them"
    if not name.strip():  # every name begins with it: `runs rm "$UNSET"` would remove whatever is alone there
        raise RunError(Problem("run", "its name is empty", lists))
    direct = Path(name)
    if (direct / "resolved.json").is_file():
        return Run(direct.resolve())
    exact = root / name
    if (exact / "resolved.json").is_file():
        return Run(exact)
    begins = (path for path in root.glob("*") if path.name.startswith(name))
    matches = sorted(path for path in begins if (path / "resolved.json").is_file())
    whole = [path for path in matches if NAME_ENDING.fullmatch(path.name[len(name) :])]
    matches = whole or matches  # the recipe's whole name goes before names that only begin like it
    made_first = [path for path in matches if not Run(path).origin.exists()]
    matches = made_first if len(made_first) == 1 else matches  # and a run before its own reproductions
    if len(matches) == 1:
        return Run(matches[0])
    if not matches:
        known = sorted({path.parent.name for path in root.glob("*/resolved.json")})
        near = difflib.get_close_matches(name, [NAME_ENDING.sub("", one) for one in known] + known, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise RunError(Problem(name, f"is no run under {root}", f"{guess}{lists}"))
    listed = ", ".join(path.name for path in matches[:6])
    raise RunError(Problem(name, f"could be {len(matches)} runs: {listed}", "write more of the name"))


def finished_run(root: Path, name: str) -> Run:
    """The same, of a run that came to its end.

    Raises:
        RunError: none, several, or one that did not.
    """
    run = named_run(root, name)
    if not run.is_finished():
        raise RunError(unfinished(run))
    return run


def unfinished(run: Run) -> Problem:
    """The problem of a run that did not come to its end."""
    return Problem(run.name, "is not finished", f"workbench train {run.path} finishes it")
