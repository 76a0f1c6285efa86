"""The errors that a person, not a programmer, can put right."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


class InputError(Exception):
    """Something that was asked for cannot be: one line that names the thing, its value and the way out.

    It ends a command with that line and exit code 2. Everything else that is raised is a bug of ours, and ends with
    its traceback and exit code 1.
    """


class DamagedError(InputError):
    """A file in the store cannot be read as what it should be."""


class UnwritableError(InputError):
    """A file or a folder cannot be written to: there is no room, no right, or the file system is read-only."""


@dataclass(frozen=True)
class Failure:
    """Why a task is not done. `details` are the last lines of its traceback, `log` is where the rest stands.

    `stopped` is for a task that was asked to stop and goes on from there, or was not begun; `blocked` for one whose
    base failed.
    """

    message: str
    details: str = ""
    log: Path | None = None
    stopped: bool = False
    blocked: bool = False

    @property
    def state(self) -> str:
        """What it makes of the run: `failed`, `blocked` or `interrupted`."""
        return "interrupted" if self.stopped else "blocked" if self.blocked else "failed"

    def __str__(self) -> str:
        return self.message


def rejected(key: str, value: object, must: str) -> InputError:
    """The usual refusal: `key=value: must be ...`."""
    return InputError(f"{key}={show(value)}: must be {must}")


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """` (did you mean ...?)` with the one of `names` that is close to `name`; empty if none is."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def show(value: object) -> str:
    """A value as it would stand on the command line, on one line and of bounded length."""
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
        text = f"{255 * value:.0f}/255"  # as eps is given for images of 256 levels
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:197] + "..."
