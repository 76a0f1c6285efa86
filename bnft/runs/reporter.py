"""What a run tells while it works."""

from typing import Protocol


class Reporter(Protocol):
    """Told by a run where it stands. Nothing that it does changes a number."""

    def begins(self, run: str, stage: str, detail: str) -> None:
        """A run begins a stage: `training`, `evaluating`, `waiting`."""

    def moves(self, run: str, text: str) -> None:
        """How far the stage is."""

    def scored(self, run: str, clean: str, robust: str) -> None:
        """Errors in percent, as far as they are known; an empty one is not known yet."""

    def notes(self, run: str, text: str) -> None:
        """Something that a person should know, whatever comes next."""

    def ends(self, run: str, state: str, text: str) -> None:
        """The run is `trained`, `done`, `failed`, `blocked` or `interrupted`."""


def duration(seconds: float) -> str:
    """Seconds in words: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
