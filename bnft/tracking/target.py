"""Where runs are tracked: a project on a W&B server, or folders on this disk. Decided here, without ever asking."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnft.tracking.compat import settings as wandb_settings

OF_ONE_RUN = ("RUN_ID", "RESUME", "RUN_GROUP", "NAME", "TAGS", "NOTES", "JOB_TYPE", "SWEEP_ID", "SERVICE", "DIR")
OTHER_MODES = {"dryrun": "offline", "run": "online", "shared": "online"}  # W&B's other words


@dataclass(frozen=True)
class Target:
    """`url` and `owner` (a mark of the credentials) are those of an online target."""

    mode: str
    project: str
    entity: str | None = None
    url: str = ""
    owner: str = ""

    @property
    def name(self) -> str:
        """What `tracking.json` knows it by."""
        if self.mode == "offline":
            return "offline"
        return f"{self.url}/{self.entity or f'of-{self.owner}'}/{self.project}"


def wanted_mode(settings: Mapping[str, Any]) -> str:
    """`wandb.mode`, for which WANDB_MODE stands in where it is `auto`."""
    mode = str(settings["mode"])
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE", "").lower() or "auto"
        mode = OTHER_MODES.get(mode, mode)
    return mode if mode in ("online", "offline", "disabled") else "auto"


def prepare(mode: str) -> None:
    """Set up this process's environment for W&B, before it is first imported: quiet, and of one mind with us."""
    for name in (f"WANDB_{name}" for name in OF_ONE_RUN):
        os.environ.pop(name, None)
    if mode == "auto":
        os.environ.pop("WANDB_MODE", None)
    else:
        os.environ["WANDB_MODE"] = mode
    os.environ["WANDB_SILENT"] = "true"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would send its own errors to its makers


def choose(settings: Mapping[str, Any], mode: str) -> tuple[Target | None, str]:
    """The target for `wandb`'s settings in `wanted_mode`, and one line that says so; after `prepare`.

    None where W&B's own settings have it disabled.
    """
    project, entity = str(settings["project"]), settings["entity"]
    offline = Target("offline", project, entity)
    if mode == "offline":
        return offline, "offline"
    found, why = online(project, entity)
    if found is not None:
        return found, f"online, {found.url}, project {f'{entity}/' if entity else ''}{project}"
    if why == "disabled":
        return None, "disabled by W&B's own settings"
    if mode == "online":
        return offline, f"offline, though wandb.mode=online ({why})"
    return offline, f"offline ({why})" if why else "offline"


def online(project: str, entity: str | None) -> tuple[Target | None, str]:
    """The project on the server that W&B has credentials for; else None, and why in one line."""
    import wandb

    try:
        found = wandb_settings()
        if found.mode == "disabled":
            return None, "disabled"
        if not wandb.login(verify=False, prompt=False):
            return None, "no credentials; `wandb login` stores them"
        found = wandb_settings()
    except Exception as error:  # a key of the wrong form, a settings file that cannot be read
        return None, " ".join(str(error).split())
    owner = found.api_key or found.identity_token_file or ""
    mark = hashlib.sha256(str(owner).encode()).hexdigest()[:8]
    return Target("online", project, entity, str(found.base_url).rstrip("/"), mark), ""
