"""`python -m workbench.tracking.views STUDY ROOT PROJECT ENTITY FILE SAVE`: a study's comparison views as W&B's own
objects, written to a file and, where SAVE is 1, saved on the server: a workspace view and a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import wandb
from rich.console import Console

from workbench import bench, files
from workbench.errors import Problem, RunError
from workbench.tracking import comparison
from workbench.tracking.comparison import Comparison, Panel
from workbench.visible import visible

try:
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces
except ModuleNotFoundError:  # an extra
    reports = workspaces = None

_WIDTH = 24
"""Grid units of a report."""
_LONGEST_TITLE = 128
_COLOURS = ("#0b7a75", "#c2410c", "#4f46e5", "#a16207", "#be185d", "#15803d", "#0369a1", "#7c3aed")
"""Of arms, in their order; all dark enough on white."""


def main() -> int:
    """Build the views, write them down, and save them where that was asked for."""
    folder, root, project, entity, target, save = sys.argv[1:7]

    def work() -> None:
        if workspaces is None:
            missing = "the package wandb-workspaces is not installed"
            raise RunError(Problem("the comparison views", missing, "pip install 'workbench[views]'"))
        found = comparison.compare(Path(folder), Path(root))
        owner = entity or (str(wandb.Api().default_entity) if save == "1" else "")
        files.write_json(Path(target), specification(found, project, owner))
        if save == "1":
            _save(found, project, owner)

    return bench.ended(work)


def specification(found: Comparison, project: str, entity: str) -> dict[str, Any]:
    """The views as W&B's library serialises them, made without a server. Of the report, a run set asks the server while
    it is built; its panels are here, and what its run sets hold is said in our words."""
    return {
        "workspace": workspace(found, project, entity)._to_model().model_dump(mode="json", by_alias=True),
        "report": {
            "title": found.name[:_LONGEST_TITLE],
            "run_sets": {arm: list(runs) for arm, runs in found.arms.items()},
            "blocks": [
                {
                    "heading": section.name,
                    "panels": [
                        panel(one, found)._to_model().model_dump(mode="json", by_alias=True) for one in section.panels
                    ],
                }
                for section in found.sections
            ],
        },
    }


def workspace(found: Comparison, project: str, entity: str) -> Any:
    """The saved view: the study's runs grouped by arm, and a section for each question."""
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=found.name,
        sections=[
            workspaces.Section(
                name=section.name,
                panels=[panel(one, found) for one in section.panels],
                is_open=True,
                layout_settings=workspaces.SectionLayoutSettings(columns=2, rows=2),
            )
            for section in found.sections
        ],
        settings=workspaces.WorkspaceSettings(x_axis="train/examples", max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=[workspaces.Config(comparison.STUDY) == found.study],
            groupby=[workspaces.Config(comparison.ARM)],
            pinned_columns=["run:displayName", *(f"summary:{key}" for key in found.columns)],
            group_colors=_colours(found),
        ),
    )


def _colours(found: Comparison) -> dict[str, str]:
    return {arm: _COLOURS[at % len(_COLOURS)] for at, arm in enumerate(found.arms)}


def panel(one: Panel, found: Comparison) -> Any:
    """A panel as W&B's library draws it."""
    wide = reports.Layout(w=_WIDTH, h=9)
    half = reports.Layout(w=_WIDTH // 2, h=8)
    match one.kind:
        case "text":
            return reports.MarkdownPanel(markdown=one.text, layout=wide)
        case "table":
            return reports.WeavePanelSummaryTable(table_name=one.text, layout=wide)
        case "bars":
            return reports.BarPlot(
                title=one.title, metrics=list(one.y), groupby=reports.Config(comparison.ARM), groupby_aggfunc="mean",
                groupby_rangefunc="minmax", max_bars_to_show=max(len(found.arms), 1), layout=half,
            )  # fmt: skip
        case "scatter":
            (score,) = one.y
            return reports.ScatterPlot(
                title=one.title, x=reports.SummaryMetric(str(one.x)), y=reports.SummaryMetric(score), log_x=one.log_x,
                layout=half,
            )  # fmt: skip
        case "lines":
            return reports.LinePlot(
                title=one.title, x=one.x, y=list(one.y), groupby=reports.Config(comparison.ARM), groupby_aggfunc="mean",
                groupby_rangefunc="minmax", layout=half,
            )  # fmt: skip
        case "parallel":
            columns = [
                *(reports.Config(name) for name in one.settings), *(reports.SummaryMetric(key) for key in one.y)
            ]  # fmt: skip
            return reports.ParallelCoordinatesPlot(
                title=one.title,
                columns=[reports.ParallelCoordinatesPlotColumn(metric=metric) for metric in columns],
                layout=wide,
            )


def report(found: Comparison, project: str, entity: str) -> Any:
    """The report: the verdict in words, then a grid of panels a section, over a run set for each arm. Its run sets ask
    the server for the project while they are built."""
    sets = [
        reports.Runset(
            entity=entity,
            project=project,
            name=arm,
            filters=[_is(comparison.STUDY, found.study), _is(comparison.ARM, arm)],
            groupby=[f"config.{comparison.ARM}"],
        )
        for arm in found.arms
    ]
    blocks: list[Any] = [reports.MarkdownBlock(text=f"{found.question}\n\n{found.sentence}"), reports.TableOfContents()]
    for section in found.sections:
        panels = [panel(one, found) for one in section.panels]
        blocks += [reports.H2(text=section.name), reports.PanelGrid(runsets=sets, panels=panels)]
    return reports.Report(
        project=project, entity=entity, title=found.name[:_LONGEST_TITLE], description=found.question, blocks=blocks,
        width="fluid",
    )  # fmt: skip


def _is(key: str, value: str) -> Any:
    """Runs whose config says so."""
    return workspaces.Config(key) == value


def _save(found: Comparison, project: str, entity: str) -> None:
    """Save both on the server. The report is the lesser part, and its library is not always fit for the server: where
    it cannot be built, that is said, and the view stays."""
    console = Console(highlight=False, soft_wrap=True)
    saved = workspace(found, project, entity).save()
    console.print(visible(f"the comparison view: {saved.url}"), markup=False)
    try:
        made = report(found, project, entity)
        made.save()
    except (wandb.Error, ImportError, ValueError, TypeError, RuntimeError) as error:
        reason = visible(f"W&B's report could not be made ({type(error).__name__}: {error}); the view is there")
        console.print(reason, markup=False, style="yellow")
        return
    console.print(visible(f"the report: {made.url}"), markup=False)


if __name__ == "__main__":
    sys.exit(main())
