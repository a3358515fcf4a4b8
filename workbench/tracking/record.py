"""What a tracker is told of a run, made from the run's directory alone: live or later, the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from workbench import __version__, files, fingerprint
from workbench.recipe.identity import identity_hash
from workbench.recipe.resolved import Resolved, ResolvedBase
from workbench.runs import soundness, walk
from workbench.runs.run import Run
from workbench.tracking import vocabulary

MOST_ITEMS = 1000
"""Items of a run that are shown as a table; all of them are in its directory."""
_MOST_TEXT = 500
_ITEM_FIELDS = ("suite", "task", "id", "cluster", "state", "value", "weight", "text", "expected", "answer")


@dataclass(frozen=True)
class Placement:
    """What a run does not know of itself: the study that it belongs to, and its arm there."""

    study: str | None = None
    arm: str | None = None


@dataclass(frozen=True)
class Opening:
    """What is known when a run starts."""

    id: str
    """Unique in a project; the same whenever the run is shown again."""
    group: str
    """What stands together: the recipe's or the arm's name, over its seeds."""
    job_type: Literal["train", "evaluate", "compare"]
    tags: Sequence[str]
    config: Mapping[str, Any]
    """Flat: `method/rank`. (A dot would be read as a step into a nested value by W&B's filters.)"""
    directory: Path
    """Where a tracker may keep files of its own."""


@dataclass(frozen=True)
class Point:
    """Numbers at a step."""

    step: int
    values: vocabulary.Values


@dataclass(frozen=True)
class Table:
    """Rows of a tracker's table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Artifact:
    """Files that a run made or used."""

    name: str
    kind: Literal["base", "dataset", "model", "run", "report"]
    metadata: Mapping[str, Any]
    paths: Mapping[str, Path] = field(default_factory=dict)
    """Name in the artifact -> file."""
    reference: str | None = None
    """Where it is, for those who do not take the files."""
    used: bool = False
    """Whether the run started from it (else it made it)."""


@dataclass(frozen=True)
class Closing:
    """What is known when a run has ended."""

    last: Point
    """The scores and costs, at the place on every axis where the run ended."""
    config: Mapping[str, Any]
    """What was not known at the start."""
    summary: Mapping[str, Any]
    tables: Mapping[str, Table]
    artifacts: Sequence[Artifact]


def opening(run: Run, resolved: Resolved, place: Placement) -> Opening:
    """Of a run, from its recipe."""
    recipe = resolved.recipe
    scratch = ["from-scratch"] if recipe.base.init == "random" else []
    suite = [resolved.suite.name] if resolved.suite else []
    own = [_base_name(resolved), recipe.method.name, resolved.target.name, *suite, *scratch]
    belongs = [place.study] if place.study else []
    return Opening(
        id=run.name,
        group=place.arm or resolved.name,
        job_type="train" if resolved.trains else "evaluate",
        tags=list(dict.fromkeys([*own, *belongs])),
        config=_config(run, resolved, place),
        directory=run.path,
    )


def point(row: Mapping[str, Any]) -> Point:
    """Of a line of metrics.jsonl."""
    return Point(row["step"], vocabulary.of_step(row))


def points(run: Run) -> Iterator[Point]:
    """All steps of a run."""
    return (point(row) for row in walk.rows(run))


def closing(run: Run, resolved: Resolved) -> Closing:
    """Of a finished run."""
    rows = walk.rows(run)
    end = rows[-1] if rows else None
    scores, intervals = _scores(run, resolved)
    cost = vocabulary.of_cost(files.read_json(run.cost))
    items, total = _items(run)
    last = Point((end["step"] if end else 0) + 1, {**vocabulary.at_the_end(end), **scores, **cost})
    walked = vocabulary.of_step(end) if end else {}
    counts = {"items/shown": len(items.rows), "items/total": total} if total else {}
    return Closing(
        last=last,
        config=_found(run, resolved),
        summary={**walked, **last.values, **intervals, **counts},
        tables={"items": items} if items.rows else {},
        artifacts=_artifacts(run, resolved),
    )


def _base_name(resolved: Resolved) -> str:
    return resolved.base.row or Path(resolved.base.location).name


def _config(run: Run, resolved: Resolved, place: Placement) -> dict[str, Any]:
    """The recipe, flat, with the base's and the data's names in place of where they lie on this machine."""
    found = dict(_flat(resolved.recipe.model_dump(mode="json", exclude={"tracking"}), ""))
    identity = files.read_json(run.identity_file)
    return found | {
        "base/name": _base_name(resolved),
        "base/revision": resolved.base.revision,
        "base/licence": resolved.base.licence,
        "data/name": resolved.data.name,
        "target/name": resolved.target.name,
        "dtype": resolved.dtype,
        "suite/name": resolved.suite.name if resolved.suite else None,
        "run/name": run.name,
        "run/identity": identity_hash(identity),
        "run/study": place.study,
        "run/arm": place.arm or resolved.name,
        "run/workbench": __version__,
    }


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{place}/{key}" if place else str(key))
    else:
        is_path = isinstance(value, str) and Path(value).is_absolute()
        yield place, Path(value).name if is_path else value


def _found(run: Run, resolved: Resolved) -> dict[str, Any]:
    """What was seen on the way: the machine, versions, and what the scores may be held against."""
    manifest = files.read_json(run.manifest)
    found = {f"hardware/{name}": value for name, value in manifest["hardware"].items()}
    found |= {f"versions/{name}": value for name, value in manifest["versions"].items() if name != "sources"}
    suite = resolved.suite.name if resolved.suite else None
    if suite in run.suites():
        results = files.read_json(run.results(suite))
        found |= {"suite/fingerprint": results["fingerprint"], "run/comparability": comparability(results)}
    return found


def comparability(results: Mapping[str, Any]) -> str:
    """Equal for runs that were asked the same items, counted in the same way. Whether what was trained may be compared
    as well is the gate's word (`workbench compare`)."""
    return fingerprint.of_value([results["fingerprint"], results["metric_version"]])[:12]


def _scores(run: Run, resolved: Resolved) -> tuple[vocabulary.Values, vocabulary.Values]:
    """Every task's score, and the ends of its interval. A task of a suite that is not the recipe's, and whose name
    another suite has too, is called after both."""
    own = resolved.suite.name if resolved.suite else None
    scores: vocabulary.Values = {}
    intervals: vocabulary.Values = {}
    for suite in sorted(run.suites(), key=lambda name: (name != own, name)):
        for task, facts in files.read_json(run.results(suite))["tasks"].items():
            key = vocabulary.score_key(task, facts["metric"])
            if key in scores:
                key = vocabulary.score_key(f"{suite}.{task}", facts["metric"])
            scores[key] = facts["value"]
            intervals |= dict(zip(vocabulary.ends(key), (facts["low"], facts["high"]), strict=True))
    return scores, intervals


def _items(run: Run) -> tuple[Table, int]:
    """Rows of every suite, evenly from all over its items where they are too many, and how many there are."""
    rows = [(suite, row) for suite in run.suites() for row in files.read_jsonl(run.items(suite))]
    kept = min(len(rows), MOST_ITEMS)
    chosen = (rows[at * len(rows) // kept] for at in range(kept))
    return Table(_ITEM_FIELDS, [_item(suite, row) for suite, row in chosen]), len(rows)


def _item(suite: str, row: Mapping[str, Any]) -> list[Any]:
    text = row.get("question") or row.get("text") or ""
    answer = row.get("answer")
    shown = {
        **{name: row.get(name) for name in ("task", "state", "value", "weight")},
        "suite": suite,
        "id": str(row["id"]),
        "cluster": str(row["cluster"]),
        "text": cut(text),
        "expected": cut(row.get("expected") or ""),
        "answer": cut(answer if answer is not None else row.get("output", "")),
    }
    return [shown[name] for name in _ITEM_FIELDS]


def cut(text: Any) -> str:
    """A text as a table shows it."""
    words = str(text)
    return words if len(words) <= _MOST_TEXT else f"{words[:_MOST_TEXT]} ..."


def _artifacts(run: Run, resolved: Resolved) -> list[Artifact]:
    """What the run started from, by reference, and what it made."""
    manifest = files.read_json(run.manifest)
    base = manifest["base"]
    used = {"revision": base["revision"], "licence": base["licence"], "init": base["init"], "files": base["files"]}
    found = [Artifact(f"base-{plain(_base_name(resolved))}", "base", used, reference=_where(resolved.base), used=True)]
    if manifest["data"] is not None:
        data = manifest["data"]
        place = resolved.data.card.source
        where = _hub(f"datasets/{place.hub}", data["revision"]) if place.hub else _local("data", data["card"])
        found.append(Artifact(f"data-{plain(data['card'])}", "dataset", data, reference=where, used=True))
    if run.adapter.exists():
        hashes = soundness.result_files(run)
        weights = {name: run.adapter / name for name in hashes}
        facts = {
            "base": base["location"] if resolved.base.kind == "hub" else _base_name(resolved),
            "base_revision": base["revision"],
            "method": resolved.recipe.method.name,
            "sha256": hashes,
        }
        found.append(Artifact(f"adapter-{plain(run.name)}", "model", facts, weights, _local("runs", run.name)))
    told = [run.manifest, run.recipe_file, run.resolved_file, run.identity_file, run.cost, run.status, run.data,
            run.proof, run.plan, *(run.results(suite) for suite in run.suites())]  # fmt: skip
    paths = {str(path.relative_to(run.path)): path for path in told if path.exists()}
    return [*found, Artifact(f"run-{plain(run.name)}", "run", {"workbench": __version__}, paths)]


def _where(base: ResolvedBase) -> str:
    return _hub(base.location, base.revision) if base.kind == "hub" else _local("bases", Path(base.location).name)


def _local(kind: str, name: str) -> str:
    """What lies on one machine only, by name: a path says nothing elsewhere, and the hashes stand beside it."""
    return f"workbench://{kind}/{quote(name)}"


def _hub(repository: str, revision: str | None) -> str:
    return f"https://huggingface.co/{repository}/tree/{revision or 'main'}"


def plain(name: str) -> str:
    """A name of letters, digits, dashes, underscores and dots, which is all that artifacts may be called."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)[:100]
