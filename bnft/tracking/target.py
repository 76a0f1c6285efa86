"""Choose where runs are tracked: in a project on a W&B server, or in folders on this disk. Never asks the user."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnft.tracking.compat import settings as wandb_settings

OF_ONE_RUN = ("RUN_ID", "RESUME", "RUN_GROUP", "NAME", "TAGS", "NOTES", "JOB_TYPE", "SWEEP_ID", "SERVICE", "DIR")
OTHER_MODES = {"dryrun": "offline", "run": "online", "shared": "online"}  # other names that W&B accepts


@dataclass(frozen=True)
class Target:
    """A place where runs are tracked.

    Attributes:
        mode: `online` or `offline`.
        project: the project.
        entity: the entity; None for the default of the credentials.
        url: the server of an online target.
        owner: part of a hash of the credentials of an online target.
    """

    mode: str
    project: str
    entity: str | None = None
    url: str = ""
    owner: str = ""

    @property
    def name(self) -> str:
        """The name of the target in `tracking.json`."""
        if self.mode == "offline":
            return "offline"
        return f"{self.url}/{self.entity or f'of-{self.owner}'}/{self.project}"


def wanted_mode(settings: Mapping[str, Any]) -> str:
    """Return `wandb.mode`, or WANDB_MODE if it is `auto`."""
    mode = str(settings["mode"])
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE", "").lower() or "auto"
        mode = OTHER_MODES.get(mode, mode)
    return mode if mode in ("online", "offline", "disabled") else "auto"


def prepare(mode: str) -> None:
    """Set environment variables for W&B, so that it is quiet and uses this mode. Call this before it is imported."""
    for name in (f"WANDB_{name}" for name in OF_ONE_RUN):
        os.environ.pop(name, None)
    if mode == "auto":
        os.environ.pop("WANDB_MODE", None)
    else:
        os.environ["WANDB_MODE"] = mode
    os.environ["WANDB_SILENT"] = "true"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else W&B sends its own errors to its developers


def choose(settings: Mapping[str, Any], mode: str) -> tuple[Target | None, str]:
    """Return the target for the `wandb` settings, and a line that describes it. Call `prepare` first.

    The target is None if W&B is disabled by its own settings.

    Args:
        settings: those of `schema.Wandb`.
        mode: the result of `wanted_mode`.
    """
    project, entity = str(settings["project"]), settings["entity"]
    offline = Target("offline", project, entity)
    if mode == "offline":
        return offline, "offline"
    target, why = online(project, entity)
    if target is not None:
        return target, f"online, {target.url}, project {f'{entity}/' if entity else ''}{project}"
    if why == "disabled":
        return None, "disabled by W&B's own settings"
    if mode == "online":
        return offline, f"offline instead of wandb.mode=online ({why})"
    return offline, f"offline ({why})" if why else "offline"


def online(project: str, entity: str | None) -> tuple[Target | None, str]:
    """Return the project on the server that W&B has credentials for; or None, and the reason in one line."""
    import wandb

    try:
        wandb_config = wandb_settings()
        if wandb_config.mode == "disabled":
            return None, "disabled"
        if not wandb.login(verify=False, prompt=False):
            return None, "no credentials; `wandb login` stores them"
        wandb_config = wandb_settings()
    except Exception as error:  # for example a key of the wrong form, or an unreadable settings file
        return None, " ".join(str(error).split())
    owner = wandb_config.api_key or wandb_config.identity_token_file or ""
    mark = hashlib.sha256(str(owner).encode()).hexdigest()[:8]
    return Target("online", project, entity, str(wandb_config.base_url).rstrip("/"), mark), ""
