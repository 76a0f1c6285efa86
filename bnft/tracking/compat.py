"""What bnft uses of wandb and wandb-workspaces that is private or undocumented there.

Any version may change it; see `bnft.common.compat`. All of it is as in wandb 0.31 and wandb-workspaces 0.4.13. Both are
imported where they are needed: they take a second, and read the environment then.
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
"""Settings that keep W&B from recording this process and machine, which are not the run's. `x_` marks them as private;
the public settings have no others for it."""

LOST = ("MailboxClosedError", "HandleAbandonedError", "ServicePollForTokenError", "ServiceProcessError")
"""The exceptions that say that W&B's service process is gone, by name, since their modules are private."""

IMAGES, TABLE = "images/separated", "table-file"
"""The `_type` of logged images and tables. It is undocumented. With it, files are logged without `wandb.Image` and
`wandb.Table`, which choose names by chance and ask the server."""


def settings() -> Any:
    """W&B's settings as they come from the environment, netrc and files, without a run.

    What `wandb.setup` returns is undocumented.
    """
    import wandb

    return wandb.setup().settings


def is_lost(error: BaseException) -> bool:
    """Whether an error says that W&B's service process is gone."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, EOFError)) or bool(names & set(LOST))


# workspaces and reports: names and ids of our own, so that making them again changes nothing


def name_workspace(workspace: "ws.Workspace", name: str, runset: str) -> None:
    """Give a workspace the name by which it is found again, and its set of runs an id. Both attributes are private."""
    workspace._internal_name = f"nw-{name}-v"
    workspace._internal_runset_id = runset


def give_id(part: Any, name: str) -> None:
    """Give a panel or a runset an id. The attribute is private, and is chosen by chance otherwise."""
    part._id = name


def renew(workspace: "ws.Workspace") -> None:
    """Have `workspace.save()` replace the workspace of this name in W&B, if there is one. Asks W&B.

    wandb-workspaces can only load a workspace by its address, so this uses its private functions. Raises ValueError if
    there is no such project.
    """
    from wandb_workspaces.workspaces import internal

    name = internal._internal_name_to_url_query_str(workspace._internal_name)
    try:
        found = str(internal.get_view_dict(workspace.entity, workspace.project, name)["id"])
    except ValueError as error:
        if "Project" in str(error):
            raise
        found = ""
    workspace._internal_id = found


def models(workspace: "ws.Workspace", report: "wr.Report") -> tuple[Any, Any]:
    """The models of pydantic that are sent of both. The method is private, and the only way not to send them."""
    return workspace._to_model(), report._to_model()
