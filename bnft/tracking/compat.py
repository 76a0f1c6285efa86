"""Private or undocumented features of wandb and wandb-workspaces that bnft uses.

Any version may change them; see `bnft.common.compat`. They are those of wandb 0.31 and wandb-workspaces 0.4.13. Both
are imported only where they are needed, because the import takes a second and reads the environment.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

SETTINGS: dict[str, Any] = {
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""Settings that stop W&B from recording this process and machine, because they are not those of the run. `x_` marks
them as private. There are no public settings for this."""

LOST = ("MailboxClosedError", "HandleAbandonedError", "ServicePollForTokenError", "ServiceProcessError")
"""The exceptions of W&B if its service process has died. They are given by name, because their modules are private."""

IMAGES, TABLE = "images/separated", "table-file"
"""The `_type` of logged images and tables. It is undocumented. It is used to log files without `wandb.Image` and
`wandb.Table`, which choose random names and send requests to the server."""


def settings() -> Any:
    """Return W&B's settings from the environment, netrc and files, without a run.

    The return value of `wandb.setup` is undocumented.
    """
    import wandb

    return wandb.setup().settings


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that W&B's service process has died."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, EOFError)) or bool(names & set(LOST))


# workspaces and reports: they get fixed names and ids, so that they do not change when they are made again


def name_workspace(workspace: "ws.Workspace", name: str, runset: str) -> None:
    """Set the name by which a workspace is found again, and the id of its set of runs. Both attributes are private."""
    workspace._internal_name = f"nw-{name}-v"
    workspace._internal_runset_id = runset


def give_id(part: Any, name: str) -> None:
    """Set the id of a panel or a runset. The attribute is private. By default, it is random."""
    part._id = name


def renew(workspace: "ws.Workspace") -> None:
    """Make `workspace.save()` replace the workspace of this name in W&B, if there is one. Sends a request to W&B.

    wandb-workspaces can only load a workspace by its address, so this uses its private functions.

    Raises:
        ValueError: if there is no such project.
    """
    from wandb_workspaces.workspaces import internal

    name = internal._internal_name_to_url_query_str(workspace._internal_name)
    try:
        workspace_id = str(internal.get_view_dict(workspace.entity, workspace.project, name)["id"])
    except ValueError as error:
        if "Project" in str(error):
            raise
        workspace_id = ""
    workspace._internal_id = workspace_id


def models(workspace: "ws.Workspace", report: "wr.Report") -> tuple[Any, Any]:
    """Return the pydantic models of both, without sending them. This is only possible with a private method."""
    return workspace._to_model(), report._to_model()
