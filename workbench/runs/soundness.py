"""Whether the files of a finished run are as it left them: looked at before they are shown or passed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from workbench import documents, files, fingerprint
from workbench.errors import Problem, RunError, UserError
from workbench.recipe.identity import identity_hash
from workbench.runs.create import NAME_ENDING
from workbench.runs.run import Run

_ADVICE = "put it back as it was, or remove the run (`workbench runs rm`) and train it again"


def result_files(run: Run) -> dict[str, str]:
    """sha256 of the files of a run's result, by name."""
    return fingerprint.of_files((path for path in run.adapter.iterdir() if path.is_file()), run.adapter)


def proved_files(run: Run) -> dict[str, str]:
    """The same of those that were proved; of a run of before 0.5, which noted none, of all."""
    proved: dict[str, str] = files.read_json(run.proof).get("files") or result_files(run)
    return proved


def refuse_damaged(runs: Iterable[Run]) -> None:
    """Refuse finished runs of which something is damaged or gone.

    Raises:
        RunError: names everything, of all of them.
    """
    found = [problem for run in runs for problem in problems(run)]
    if found:
        raise RunError(found)


def problems(run: Run) -> list[Problem]:
    """Everything that is not as the finished run left it, each once."""
    documents_ = _documents(run).items()
    looks: list[Callable[[], Iterable[Problem]]] = [partial(_document, path, keys) for path, keys in documents_]
    looks += [partial(look, run) for look in (_recipe, _identity, _steps, _result, _suites)]
    looks += [partial(_scores, run, suite) for suite in run.suites()]
    found: dict[Problem, None] = {}
    for look in looks:
        try:
            found |= dict.fromkeys(look())
        except UserError as error:
            found |= dict.fromkeys(error.problems)
    return list(found)


def _documents(run: Run) -> dict[Path, Sequence[str]]:
    """The files that hold one object, each with keys that it has at least."""
    found: dict[Path, Sequence[str]] = {
        run.resolved_file: ("recipe", "base", "data"),
        run.identity_file: ("base", "method", "seed"),
        run.manifest: ("base", "hardware", "versions"),
        run.status: ("status", "scores", "steps"),
        run.cost: ("evaluation_seconds",),
    }
    if run.adapter.exists() or run.training.exists():
        found |= {
            run.cost: ("evaluation_seconds", "training_flops", "device_seconds", "tokens"),
            run.training: ("cost", "parameters", "work"),
            run.proof: ("places", "moved", "saved_against_memory"),
            run.data: ("rows_in", "rows_trained", "rows_dropped"),
        }
    return found


def _document(path: Path, keys: Sequence[str]) -> Iterator[Problem]:
    values = files.read_json(path)
    for key in keys:
        values[key]  # told by the file itself where it is not there
    yield from ()


def _recipe(run: Run) -> Iterator[Problem]:
    try:
        holds_one = "base" in (documents.read(run.recipe_file).value or ())
    except (UserError, TypeError):
        holds_one = False
    if not holds_one:
        yield Problem(str(run.recipe_file), "is damaged, or not there: it holds no recipe", _ADVICE)


def _identity(run: Run) -> Iterator[Problem]:
    """The identity has the hash that the directory is called after."""
    if NAME_ENDING.search(run.name) and f"-{identity_hash(files.read_json(run.identity_file))}-" not in run.name:
        yield Problem(str(run.identity_file), "is not what the run was made with: its hash is another one", _ADVICE)


def _steps(run: Run) -> Iterator[Problem]:
    """The history is as long as the run was."""
    wanted, found = files.read_json(run.status)["steps"], sum(1 for _ in files.read_jsonl(run.metrics))
    if found != wanted:
        yield Problem(str(run.metrics), f"is damaged: it holds {found:,} of {wanted:,} steps", _ADVICE)


def _result(run: Run) -> Iterator[Problem]:
    """The adapter (or model) has the bytes that were proved. (Runs of before 0.5 noted no hashes of them.)"""
    if not run.resolved().trains:
        return
    if not run.adapter.is_dir():
        yield Problem(str(run.adapter), "is not there", _ADVICE)
        return
    if not run.probe.is_file():
        yield Problem(str(run.probe), "is not there", _ADVICE)
    found = result_files(run)
    for name, sha256 in proved_files(run).items():
        if found.get(name) != sha256:
            flaw = "is not what was proved: its sha256 is another one" if name in found else "is not there"
            yield Problem(str(run.adapter / name), flaw, _ADVICE)


def _suites(run: Run) -> Iterator[Problem]:
    """What the run was scored on when it ended is there."""
    for suite in sorted({name.partition("/")[0] for name in files.read_json(run.status)["scores"]} - {*run.suites()}):
        yield Problem(str(run.results(suite)), "is not there", _rescored(run, suite))


def _scores(run: Run, suite: str) -> Iterator[Problem]:
    """A suite's results are those that the run ended with, and have all their items."""
    found = Counter(row["task"] for row in files.read_jsonl(run.items(suite)))
    ended = files.read_json(run.status)["scores"]
    for task, facts in files.read_json(run.results(suite))["tasks"].items():
        wanted = sum(facts["states"].values())
        if found[task] != wanted:
            flaw = f"is damaged: it holds {found[task]:,} of {wanted:,} items of {task}"
            yield Problem(str(run.items(suite)), flaw, _rescored(run, suite))
        known = ended.get(f"{suite}/{task}", {})
        if any(facts.get(key) != value for key, value in known.items()):
            flaw = f"{task} is not what the run ended with: {facts.get('value')}, {known.get('value')} then"
            yield Problem(str(run.results(suite)), flaw, _rescored(run, suite))


def _rescored(run: Run, suite: str) -> str:
    folder = run.evaluation(suite)
    return f"put it back as it was, or remove {folder}: `workbench eval {run.name} --suite {suite}` makes it anew"
