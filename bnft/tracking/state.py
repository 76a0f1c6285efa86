"""What is remembered of a run's tracking, in `tracking.json` of its folder: so that each row is sent once."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bnft.common import files
from bnft.common.errors import DamagedError
from bnft.runs import layout
from bnft.runs.run_folder import RunFolder


@dataclass
class Sent:
    """What a target has for certain: `rows`, and with which exit code the run ended there.

    `folder` is that of a W&B run on this disk which was begun at `rows` and has not been ended.
    """

    rows: int = 0
    code: int | None = None
    folder: str | None = None


@dataclass
class Tracking:
    """`evaluations` are those that have a step, in order. `group` and `commit` are those of the first tracking."""

    group: str | None = None
    commit: str | None = None
    evaluations: list[str] = field(default_factory=list)
    targets: dict[str, Sent] = field(default_factory=dict)

    def sent(self, target: str) -> Sent:
        return self.targets.setdefault(target, Sent())

    def save(self, folder: RunFolder) -> None:
        """Raises InputError where it cannot be written."""
        files.write_json(folder.path / layout.TRACKING, asdict(self), folder.path / layout.CONFIG)


def load(folder: RunFolder) -> Tracking:
    """The tracking of a run. A file that is damaged is as good as none: the server knows what it has."""
    try:
        found = files.read_json(folder.path / layout.TRACKING)
        return _tracking(found)
    except (FileNotFoundError, DamagedError, TypeError, AttributeError, KeyError):
        return Tracking()


def _tracking(found: Mapping[str, Any]) -> Tracking:
    targets = {name: Sent(**sent) for name, sent in found["targets"].items()}
    return Tracking(found["group"], found["commit"], list(found["evaluations"]), targets)
