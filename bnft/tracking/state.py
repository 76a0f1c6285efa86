"""The state of a run's tracking, in `tracking.json` of its folder. With it, each row is sent only once."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bnft.common import files
from bnft.common.errors import DamagedError
from bnft.runs import layout
from bnft.runs.run_folder import RunFolder


@dataclass
class Sent:
    """What a target certainly has.

    Attributes:
        rows: the number of rows.
        code: the exit code with which the run ended; None if it has not ended.
        folder: the folder of a W&B run on this disk that begins after these rows and has not been ended.
    """

    rows: int = 0
    code: int | None = None
    folder: str | None = None


@dataclass
class Tracking:
    """The state of a run's tracking.

    Attributes:
        group: the group of the first tracking.
        commit: the commit of the first tracking.
        evaluations: the ids of the evaluations that have a step, in order.
        targets: what each target has, by its name.
    """

    group: str | None = None
    commit: str | None = None
    evaluations: list[str] = field(default_factory=list)
    targets: dict[str, Sent] = field(default_factory=dict)

    def sent(self, target: str) -> Sent:
        return self.targets.setdefault(target, Sent())

    def save(self, folder: RunFolder) -> None:
        """Write the state. Raise InputError if it cannot be written."""
        files.write_json(folder.path / layout.TRACKING, asdict(self), folder.path / layout.CONFIG)


def load(folder: RunFolder) -> Tracking:
    """Return the state of a run's tracking. A damaged file is ignored, because the server knows what it has."""
    try:
        return _tracking(files.read_json(folder.path / layout.TRACKING))
    except (FileNotFoundError, DamagedError, TypeError, AttributeError, KeyError):
        return Tracking()


def _tracking(content: Mapping[str, Any]) -> Tracking:
    targets = {name: Sent(**sent) for name, sent in content["targets"].items()}
    return Tracking(content["group"], content["commit"], list(content["evaluations"]), targets)
