"""What a run tells while it works, and the ways of showing it."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.status import Status

from bnft.errors import show

LINE_SECONDS = 10.0  # off a terminal, a line at most this often while a run works


class Reporter(Protocol):
    """Told by a run where it stands. Nothing that it does changes a number."""

    def begins(self, run: str, stage: str, detail: str) -> None:
        """A run begins a stage: `training`, `evaluating`, `waiting`."""

    def moves(self, run: str, text: str) -> None:
        """How far the stage is."""

    def ends(self, run: str, text: str) -> None:
        """A stage, or the run, is done."""


class Silent:
    """Shows nothing."""

    def begins(self, run: str, stage: str, detail: str) -> None:
        pass

    def moves(self, run: str, text: str) -> None:
        pass

    def ends(self, run: str, text: str) -> None:
        pass


class Terminal:
    """One live line on a terminal; few plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._stage = ""
        self._shown = 0.0

    def begins(self, run: str, stage: str, detail: str) -> None:
        self._stage = stage
        self._stop()
        if self.console.is_terminal:
            self._status = self.console.status(f"{run}  {stage}  {detail}")
            self._status.start()
        else:
            self.console.print(f"{run}  {stage}  {detail}", markup=False)
        self._shown = time.monotonic()

    def moves(self, run: str, text: str) -> None:
        if self._status is not None:
            self._status.update(f"{run}  {self._stage}  {text}")
        elif time.monotonic() - self._shown > LINE_SECONDS:
            self.console.print(f"{run}  {self._stage}  {text}", markup=False)
            self._shown = time.monotonic()

    def ends(self, run: str, text: str) -> None:
        self._stop()
        self.console.print(f"{run}  {text}", markup=False)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def duration(seconds: float) -> str:
    """Seconds in words: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def complain(message: str) -> None:
    """One line on standard error."""
    print(message if len(message) < 2000 else show(message), file=sys.stderr)
