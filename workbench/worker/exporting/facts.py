"""What is said of a result in its cards: from the run's own files, with no path of this machine in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workbench import files
from workbench.catalog.bases import LicenceRow, bases, licences
from workbench.recipe.resolved import Resolved
from workbench.runs import ledger
from workbench.runs.run import Run


@dataclass(frozen=True)
class Facts:
    """A run as others are told of it."""

    run: Run
    resolved: Resolved
    manifest: dict[str, Any]
    cost: dict[str, Any]
    proof: dict[str, Any]
    account: dict[str, Any]
    """Of the rows."""
    scores: dict[str, dict[str, Any]]
    """suite -> task -> results."""
    base_scores: dict[str, dict[str, Any]]
    """The same of the untouched base, where it is scored in the same ledger."""
    licences: list[LicenceRow]
    """Of the base, with those that it inherits."""
    context: int

    @classmethod
    def of(cls, run: Run, resolved: Resolved, context: int) -> Facts:
        """Read a finished run.

        Raises:
            RunError: a file of it is damaged.
        """
        base = ledger.base_of(run)
        row = bases().get(resolved.base.row or "")
        return cls(
            run, resolved,
            manifest=files.read_json(run.manifest),
            cost=files.read_json(run.cost),
            proof=files.read_json(run.proof),
            account=files.read_json(run.data),
            scores=_scores(run),
            base_scores=_scores(base) if base is not None else {},
            licences=row.licences() if row is not None else [licences()[resolved.base.licence]],
            context=context,
        )  # fmt: skip

    @property
    def is_hub(self) -> bool:
        """Whether others can fetch the base by its name."""
        return self.resolved.base.kind == "hub"

    @property
    def base_name(self) -> str:
        """The base's repository; of a directory its name in the catalog or its own, never its path."""
        base = self.resolved.base
        return base.location if self.is_hub else base.row or Path(base.location).name

    @property
    def title(self) -> str:
        """What the result is called: the run's name, after the word that a licence puts first."""
        name, first = self.run.name, self.name_begins
        return name if first is None or name.lower().startswith(first.lower()) else f"{first}-{name}"

    @property
    def name_begins(self) -> str | None:
        """What the result's name must begin with."""
        return next((one.name_begins for one in self.licences if one.name_begins), None)

    @property
    def base_is_random(self) -> bool:
        """Whether nothing of the base's weights was taken."""
        return self.resolved.recipe.base.init == "random"

    @property
    def base_is_embedded(self) -> bool:
        """Whether the base is the one that comes with workbench."""
        return self.resolved.base.row == "embedded"

    @property
    def opening_text(self) -> str:
        """What stood before every text that was trained on as it stands (as `data.rendering` writes it)."""
        system = self.resolved.recipe.data.system
        return system.rstrip("\n") + "\n" if system and self.resolved.recipe.data.template == "plain" else ""

    def recipe(self) -> str:
        """The recipe as it was asked for, names in the place of paths; where it was shown is nobody's business."""
        values = yaml.safe_load(self.run.recipe_file.read_text(encoding="utf-8"))
        values.pop("tracking", None)
        values["base"]["name"] = self.base_name
        values["data"]["name"] = self.resolved.data.name
        places = (("data", "template"), ("evaluation", "suite"), ("method", "init_from"))
        for section, field in places:
            if "/" in str(values.get(section, {}).get(field, "")):
                values[section][field] = Path(values[section][field]).name.removesuffix(".yaml")
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def notes(self) -> list[str]:
        """What whoever passes the result on must know of licences; no legal advice."""
        found = []
        for one in self.licences:
            if one.id == "unknown":
                found.append("The base's licence is UNKNOWN: no right to pass anything on is known.")
            if one.commercial_use is False and one.id != "unknown":
                found.append(f"{one.name}: NO COMMERCIAL USE.")
            if one.commercial_use == "limited":
                found.append(f"{one.name}: commercial use is limited; read the terms.")
            if one.name_begins:
                found.append(f'Its name must begin with "{one.name_begins}" ({one.name}); here it is {self.title}.')
            if one.shows:
                found.append(f'What is built on it shows "{one.shows}" ({one.name}).')
        if self.resolved.data.card.licence == "unknown":
            found.append(f"The licence of the rows ({self.resolved.data.name}) is UNKNOWN.")
        return found


def _scores(run: Run) -> dict[str, dict[str, Any]]:
    return {suite: files.read_json(run.results(suite))["tasks"] for suite in run.suites()}
