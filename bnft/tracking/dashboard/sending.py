"""Create the dashboard in W&B, or write its specification."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnft.common import files
from bnft.common.errors import InputError, rejected
from bnft.runs.store import Store
from bnft.tracking.compat import renew, settings
from bnft.tracking.dashboard.comparison import Comparison, compare

if TYPE_CHECKING:  # takes a second to import
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

SECONDS = 15  # timeout of each request to W&B, whose default is much longer
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,127}")


@dataclass(frozen=True)
class Made:
    """The file of the specification, the addresses of the dashboard if it was sent, and messages."""

    file: Path
    urls: tuple[str, ...]
    notes: list[str]


def make(
    store: Store,
    entity: str,
    project: str,
    sweep: str | None = None,
    layer: str | None = None,
    send: bool = True,
    output: Path | None = None,
) -> Made:
    """Create or update the workspace and the report of a sweep.

    Args:
        store: the store.
        entity: the entity in W&B.
        project: the project in W&B.
        sweep: the sweep; the newest if None.
        layer: the BN layer whose histograms are shown; see `compare`.
        send: whether to send them to W&B. Otherwise only the specification is written.
        output: the file for the specification and the addresses. The default is `dashboard-<sweep>.json` in the store.
            It has the id with which the report is updated later. The workspace is updated by its name.

    Raises:
        InputError: if the runs cannot be compared, or W&B refuses or does not answer.
    """
    for key, value in (("--entity", entity), ("--project", project)):
        if not NAME.fullmatch(value):
            raise rejected(key, value, "a name of letters, digits and . _ - as in W&B's addresses")
    comparison = compare(store, sweep, layer)
    folder = store.root if store.root.is_dir() else Path()
    file = output or folder / f"dashboard-{comparison.sweep}.json"
    kept = _kept(file)
    place = f"{entity}/{project}"
    _quiet()
    from bnft.tracking.dashboard import views

    workspace = views.workspace(comparison, entity, project)
    report = views.report(comparison, entity, project)
    report.id = kept.get(place, {}).get("report_id", "")
    content = {"sweep": comparison.sweep, "layer": comparison.layer, **views.specification(workspace, report)}
    urls: tuple[str, ...] = ()
    if send:
        urls = _send(workspace, report, comparison, file)
        kept[place] = {"workspace": urls[0], "report": urls[1], "report_id": report.id}
    files.write_json(file, {**content, "made": kept})
    return Made(file, urls, comparison.notes)


def _kept(file: Path) -> dict[str, Any]:
    """Return the addresses of this sweep's existing dashboards, by entity and project."""
    try:
        content = files.read_json(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    made = content.get("made") if isinstance(content, dict) else None
    if not isinstance(made, dict):
        raise InputError(f"{file}: must be a dashboard's specification, or not exist; it has other content")
    return made


def _quiet() -> None:
    """Set environment variables so that W&B is silent and does not wait forever. It reads them when it is imported."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", str(SECONDS))


def _send(workspace: "ws.Workspace", report: "wr.Report", comparison: Comparison, file: Path) -> tuple[str, str]:
    """Save both, replacing existing ones. Return their addresses."""
    import wandb

    server = "W&B"
    try:
        server = f"W&B at {settings().base_url}"
        wandb.Api()  # raises an error if there are no valid credentials
        renew(workspace)
        workspace.save()
        report.save()
        return str(workspace.url), str(report.url)
    except wandb.errors.AuthenticationError as error:  # it is raised for an unreachable server too
        what = f"no answer within {os.environ['WANDB_HTTP_TIMEOUT']} s" if "in time" in str(error) else _line(error)
        raise InputError(f"{server}: {what}; --dry-run needs neither network nor credentials") from None
    except wandb.errors.UsageError:
        raise InputError(
            f"{server}: no credentials; `wandb login` or WANDB_API_KEY gives them, --dry-run needs none"
        ) from None
    except Exception as error:  # the client has no common type for the errors of a server
        hint = f"; if the report was deleted there, remove {file}" if report.id else ""
        raise InputError(f"{server}: the dashboard of {comparison.sweep} was not made ({_line(error)}){hint}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
