"""What a run tells while it works, and the ways of showing it."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bnft.errors import show

LINE_SECONDS = 15.0  # off a terminal, a line a run at most this often


class Reporter(Protocol):
    """Told by a run where it stands. Nothing that it does changes a number."""

    def begins(self, run: str, stage: str, detail: str) -> None:
        """A run begins a stage: `training`, `evaluating`, `waiting`."""

    def moves(self, run: str, text: str) -> None:
        """How far the stage is."""

    def ends(self, run: str, text: str) -> None:
        """A stage, or the run, is done."""


class Terminal:
    """A live line for each run at work on a terminal; few plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._active: dict[str, tuple[str, str]] = {}  # run to stage and text
        self._live: Live | None = None
        self._shown: dict[str, float] = {}

    def begins(self, run: str, stage: str, detail: str) -> None:
        self._show(run, stage, detail, line=not self.console.is_terminal)

    def moves(self, run: str, text: str) -> None:
        stage, _ = self._active.get(run, ("", ""))
        due = time.monotonic() - self._shown.get(run, 0.0) > LINE_SECONDS
        self._show(run, stage, text, line=due and not self.console.is_terminal)

    def ends(self, run: str, text: str) -> None:
        self._active.pop(run, None)
        self._refresh()
        self.console.print(f"{run}  {text}", markup=False)

    def _show(self, run: str, stage: str, text: str, line: bool) -> None:
        self._active[run] = (stage, text)
        if line:
            self.console.print(f"{run}  {stage}  {text}", markup=False)
            self._shown[run] = time.monotonic()
        self._refresh()

    def _refresh(self) -> None:
        """Show the runs at work below everything printed so far; nothing where there is no terminal."""
        if not self.console.is_terminal:
            return
        if self._live is None and self._active:
            self._live = Live(console=self.console, transient=True, refresh_per_second=4)
            self._live.start()
        if self._live is not None:
            lines = [f"{run}  {stage}  {text}" for run, (stage, text) in self._active.items()]
            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"))
            if not self._active:
                self._live.stop()
                self._live = None


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
