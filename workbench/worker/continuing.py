"""Going on with a run: everything that it was started with is held against what is there now. A difference is allowed,
or it changes the result (said, recorded, shown by the comparability gate), or the run is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.compare.facts import Facts, is_under, training_facts
from workbench.compare.fields import judge
from workbench.errors import Problem, RunError
from workbench.progress import Progress
from workbench.recipe import pin
from workbench.recipe.identity import identity
from workbench.recipe.resolved import Resolved
from workbench.runs import ingredients
from workbench.runs.run import Run

_RESOLVED = Run(Path()).resolved_file.name
_CONDITIONS = "conditions.json"
_MUST_STAY = ("base.files", "base.tokenizer", "rows", "prepared", "init_from")
_NOT_OF_TRAINING = ("name", "evaluation", "scoring", "tracking", "git_commit", "versions.lm_eval", "training.preflight")
"""Fields that say nothing of a step. (The code is compared by content: versions.sources.)"""


@dataclass(frozen=True)
class Conditions:
    """What a run's steps depend on, and how that changed while it was trained."""

    facts: Facts
    continued: tuple[dict[str, Any], ...] = ()
    """`step`, `field`, `was` and `is` of every change of the result so far."""

    def beside(self, resolved: Resolved) -> dict[str, Any]:
        """What a checkpoint keeps of them: file name -> value."""
        kept = {"facts": self.facts, "continued": list(self.continued)}
        return {_RESOLVED: resolved.model_dump(mode="json"), _CONDITIONS: kept}


def refuse_other_contents(run: Run, resolved: Resolved) -> None:
    """Refuse where the names in a run's recipe stand for something else than when it was made.

    Raises:
        RunError: says what changed.
    """
    _, contents = pin.pin(resolved)
    changed = ingredients.changed(files.read_json(run.identity_file), identity(resolved, contents))
    if changed:
        raise RunError(ingredients.problem(run, ", ".join(changed)))


def now(run: Run, resolved: Resolved, account: Mapping[str, Any]) -> Conditions:
    """The conditions of the steps that would be walked now.

    Args:
        account: of the prepared rows.
    """
    manifest, known = files.read_json(run.manifest), files.read_json(run.identity_file)
    facts = training_facts(resolved.model_dump(mode="json"), known, manifest)
    return Conditions(Facts(facts | {"prepared.fingerprint": account["fingerprint"]}))


def held_against(run: Run, found: tuple[Path, int] | None, present: Conditions, progress: Progress) -> Conditions:
    """The present conditions with their history, after comparing them with those of the checkpoint that is gone on
    from; the manifest is told.

    Args:
        found: the checkpoint and its step; None: the run begins, whatever an attempt without a checkpoint walked.

    Raises:
        RunError: something that must stay has changed.
    """
    history: list[dict[str, Any]] = []
    if found is not None and (found[0] / _CONDITIONS).exists():
        kept = files.read_json(found[0] / _CONDITIONS)
        then = Facts(kept["facts"])
        _refuse(run, then, present.facts)
        history += kept["continued"]
        for field, effect in _differences(then, present.facts):
            was, is_now = then.get(field), present.facts.get(field)
            progress.say(f"going on under other conditions: {field} was {was}, is {is_now}: {effect}")
            if effect == _CHANGES:
                history.append({"step": found[1], "field": field, "was": was, "is": is_now})
    manifest = files.read_json(run.manifest)
    if manifest.get("continued", []) != history:
        files.write_json(run.manifest, manifest | {"continued": history})
    return Conditions(present.facts, tuple(history))


_CHANGES = "changes the result, which is recorded"


def _refuse(run: Run, then: Facts, present: Facts) -> None:
    changed = [field for field in _differing(then, present) if is_under(field, _MUST_STAY)]
    if changed:
        advice = "put it back as it was; or remove the run's checkpoints, and it starts again"
        problems = [Problem(f"{run.name} {field}", "changed since the last checkpoint", advice) for field in changed]
        raise RunError(problems)


def _differences(then: Facts, present: Facts) -> Iterator[tuple[str, str]]:
    """(field, what its difference does) of everything that may change, by the same table that compares runs."""
    for field in _differing(then, present):
        judgement = judge(field, then, present, ())
        yield field, f"allowed ({judgement.because})" if judgement.kind == "harmless" else _CHANGES


def _differing(then: Facts, present: Facts) -> list[str]:
    fields = sorted(field for field in then.keys() | present.keys() if not is_under(field, _NOT_OF_TRAINING))
    return [field for field in fields if then.get(field) != present.get(field)]
