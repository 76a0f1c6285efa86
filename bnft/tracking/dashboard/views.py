"""Build the workspace and the report with wandb-workspaces. This needs no network and no credentials."""

import hashlib
import json
import math
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from bnft.tracking import keys
from bnft.tracking.compat import give_id, models, name_workspace
from bnft.tracking.dashboard import panels
from bnft.tracking.dashboard.comparison import Comparison

COLUMNS = [
    "run:displayName",
    f"summary:{keys.TEST_CLEAN_ERROR}",
    f"summary:{keys.TEST_ROBUST_ERROR}",
    f"summary:{keys.TEST_ATTACK}",
    "config:seed.value",
]
ONE_RUN = "W&B draws the histograms of one run per panel: the first visible one. The report has them for each row."
ABOUT = (
    "{title}: the runs of sweep {sweep}. Errors are in percent of test images, robust error under the attack of the"
    " evaluation.{source}"
)
AVERAGED = " Runs that differ only in their seed are one line or bar: their mean and their range."


def workspace(comparison: Comparison, entity: str, project: str) -> ws.Workspace:
    """Return the workspace, with a section for each question about the runs of the sweep."""
    sections = {
        comparison.title: [
            *([wr.MarkdownPanel(markdown=comparison.table)] if comparison.table else []),
            *panels.errors(),
        ],
        "Robust against clean error": panels.trade_off(),
        "Training curves": panels.curves(comparison.monitored),
        "Mean m per layer": panels.mean_m(comparison.layers),
        "BN histograms": [*panels.histograms(comparison.layer), wr.MarkdownPanel(markdown=ONE_RUN)]
        if comparison.layer
        else [],
        "Attacks": panels.evaluation(),
    }
    view = ws.Workspace(
        entity=entity,
        project=project,
        name=f"Sweep {comparison.sweep}",
        sections=[_section(name, content) for name, content in sections.items() if content],
        settings=ws.WorkspaceSettings(max_runs=panels.SHOWN_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=_of_sweep(comparison),
            groupby=[ws.Config("title")] if comparison.grouped else [],
            order=[ws.Ordering(ws.Metric("CreatedTimestamp"), ascending=True)],
            run_settings={run: ws.RunSettings(color=colour) for run, colour in _run_colours(comparison).items()},
            group_colors=_title_colours(comparison) if comparison.grouped else {},
            pinned_columns=list(COLUMNS),
        ),
    )
    name_workspace(view, _short(entity, project, comparison.sweep), _short(comparison.sweep, "workspace"))
    for section in view.sections:
        _name(section.panels, comparison.sweep, "workspace", section.name)
    return view


def report(comparison: Comparison, entity: str, project: str) -> wr.Report:
    """Return the report: the same panels with text, and the BN histograms of all policies."""
    source = f" The paper: {comparison.study.source}." if comparison.study and comparison.study.source else ""
    about = ABOUT.format(title=comparison.title, sweep=comparison.sweep, source=source)
    about += AVERAGED if comparison.grouped else ""
    blocks: list[Any] = [wr.P(about), wr.H2(comparison.title)]
    blocks += [wr.MarkdownBlock(text=comparison.table)] if comparison.table else []
    blocks.append(_grid(comparison, comparison.title, panels.arranged(panels.errors(), 12, 12), shown=True))
    rest = {
        "Robust against clean error": panels.arranged(panels.trade_off(), 24, 10),
        "Training curves": panels.arranged(panels.curves(comparison.monitored), 8),
        "Mean m per layer": panels.arranged(panels.mean_m(comparison.layers), 8),
    }
    for name, content in rest.items():
        blocks += [wr.H2(name), _grid(comparison, name, content)]
    if comparison.layer:
        blocks += [wr.H2("BN histograms"), wr.P(f"Over the channels of {comparison.layer}, by epoch.")]
        for title, runs in comparison.rows.items():
            content = panels.arranged(panels.histograms(comparison.layer), 4, 6)
            blocks += [wr.H3(title), _grid(comparison, f"BN histograms {title}", content, runs)]
    blocks += [wr.H2("Attacks"), _grid(comparison, "Attacks", panels.arranged(panels.evaluation(), 24, 12))]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{comparison.title} (sweep {comparison.sweep})",
        description="Batch normalisation in adversarial training",
        blocks=blocks,
        width="fluid",
    )


def specification(view: ws.Workspace, text: wr.Report) -> dict[str, Any]:
    """Return what is sent to W&B's `upsertView`, where `spec` is JSON in a string."""
    model, words = models(view, text)
    return {
        "workspace": {
            "entityName": model.entity,
            "projectName": model.project,
            "name": model.name,
            "displayName": model.display_name,
            "type": "project-view",
            "spec": json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True)),
        },
        "report": {
            "entityName": words.project.entity_name,
            "projectName": words.project.name,
            "displayName": words.display_name,
            "description": words.description,
            "type": "runs",
            "spec": json.loads(words.spec.model_dump_json(by_alias=True, exclude_none=True)),
        },
    }


def _section(name: str, content: panels.Panels) -> ws.Section:
    columns = min(3, len(content))
    layout = ws.SectionLayoutSettings(columns=columns, rows=math.ceil(len(content) / columns))
    return ws.Section(name=name, panels=content, is_open=True, layout_settings=layout)


def _grid(
    comparison: Comparison, name: str, content: panels.Panels, runs: list[str] | None = None, shown: bool = False
) -> wr.PanelGrid:
    """Return panels of the runs of the sweep, or of some of them. `shown` adds the table of runs above them."""
    own = f"Metric('ID') in {runs}" if runs else _of_sweep(comparison)
    colours = {} if runs else _run_colours(comparison)  # histograms have their own scale
    runset = wr.Runset(  # without entity and project, it uses those of the report and sends no request for the project
        name=name,
        filters=own,
        groupby=["config.title"] if comparison.grouped and not runs else [],
        order=[wr.OrderBy("CreatedTimestamp", ascending=True)],
        run_settings={run: wr.RunSettings(color=colour) for run, colour in colours.items()},
        visible_columns=COLUMNS if shown else [],
        lock_columns=shown or None,
    )
    give_id(runset, _short(comparison.sweep, "report", name))
    groups = {
        wr.RunsetGroup(runset_name=name, keys=(wr.RunsetGroupKey(key=wr.Config("title"), value=title),)): colour
        for title, colour in (_title_colours(comparison) if runset.groupby else {}).items()
    }
    _name(content, comparison.sweep, "report", name)
    return wr.PanelGrid(runsets=[runset], panels=content, hide_run_sets=not shown, custom_run_colors=groups)


def _of_sweep(comparison: Comparison) -> str:
    """Return the filter for the runs of the sweep: its group, and the names of runs that another sweep has too."""
    group = f"Metric('Group') == '{comparison.sweep}'"
    return f"{group} or Metric('ID') in {list(comparison.shared)}" if comparison.shared else group


def _run_colours(comparison: Comparison) -> dict[str, str]:
    return {run.name: comparison.colours[run.row] for run in comparison.runs}


def _title_colours(comparison: Comparison) -> dict[str, str]:
    return {run.title: comparison.colours[run.row] for run in reversed(comparison.runs)}


def _name(content: panels.Panels, *place: str) -> None:
    """Set the ids of panels by their place instead of randomly, so that they stay the same when made again."""
    for number, panel in enumerate(content):
        give_id(panel, _short(*place, str(number)))


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
