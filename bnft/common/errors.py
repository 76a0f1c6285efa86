"""Errors that a user can correct."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


class InputError(Exception):
    """Invalid input. The message is one line that names the thing, its value and the way out.

    It ends a command with this line and exit code 2. Any other exception is a bug in bnft. It ends a command with a
    traceback and exit code 1.
    """


class DamagedError(InputError):
    """A file in the store is damaged or missing."""


class UnwritableError(InputError):
    """A file or folder cannot be written: the disk is full, permission is denied, or the file system is read-only."""


@dataclass(frozen=True)
class Failure:
    """Why a task is not done.

    Attributes:
        message: the reason, in one line.
        details: the last lines of the traceback.
        log: the file with the rest of the traceback.
        stopped: whether the task was stopped and can continue, or was not begun.
        blocked: whether the task could not start because its base failed.
    """

    message: str
    details: str = ""
    log: Path | None = None
    stopped: bool = False
    blocked: bool = False

    @property
    def state(self) -> str:
        """The state of the run: `failed`, `blocked` or `interrupted`."""
        return "interrupted" if self.stopped else "blocked" if self.blocked else "failed"

    def __str__(self) -> str:
        return self.message


class OutOfTimeError(Exception):
    """The time that `hydra.launcher.minutes` gives is over. Everything is saved, and the same command continues.

    Attributes:
        outcomes: the failure of each task, by its name; None if the task is done.
    """

    def __init__(self, outcomes: Mapping[str, Failure | None]) -> None:
        self.outcomes = dict(outcomes)
        left = len({task.partition("/")[0] for task, failure in outcomes.items() if failure is not None})
        many = f"{left} runs are" if left > 1 else "1 run is"
        super().__init__(f"hydra.launcher.minutes is over, and {many} not done yet; the same command continues")


def rejected(key: str, value: object, must: str) -> InputError:
    """Return the usual error: `key=value: must be ...`."""
    return InputError(f"{key}={show(value)}: must be {must}")


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return ` (did you mean ...?)` with the most similar of `names`, or "" if none is similar to `name`."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def show(value: object) -> str:
    """Return a value as it is written on the command line, in one line of at most 200 characters."""
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        text = f"{value:.15g}"
    elif isinstance(value, (list, tuple)):
        text = "[" + ",".join(show(item) for item in value) + "]"
    elif isinstance(value, Mapping):
        text = "{" + ",".join(f"{key}:{show(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, float) and 0 < 255 * value <= 32 and round(255 * value) / 255 == value:
        text = f"{255 * value:.0f}/255"  # the usual notation of eps for images with 256 levels
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:197] + "..."
