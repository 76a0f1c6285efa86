"""The interface through which a run reports its progress."""

from typing import Protocol


class Reporter(Protocol):
    """Receives the progress of runs. It cannot change a number."""

    def begins(self, run: str, stage: str, detail: str) -> None:
        """Report that a run begins a stage: `training`, `evaluating` or `waiting`."""

    def moves(self, run: str, text: str) -> None:
        """Report progress within the stage."""

    def scored(self, run: str, clean: str, robust: str) -> None:
        """Report errors in percent. An error that is not known yet is empty."""

    def notes(self, run: str, text: str) -> None:
        """Report a message that stays visible."""

    def ends(self, run: str, state: str, text: str) -> None:
        """Report that a run is `trained`, `done`, `failed`, `blocked` or `interrupted`."""


def duration(seconds: float) -> str:
    """Return a duration in words: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
