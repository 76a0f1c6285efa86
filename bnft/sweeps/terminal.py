"""Show the progress of runs."""

import time
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console
from rich.live import Live

from bnft.sweeps import run_table
from bnft.sweeps.run_table import Line

LINE_SECONDS = 15.0  # without a terminal, the minimal time between two lines of one run
REFRESHES = 4  # of the live table, per second


class _Console(Console):
    """A console that prints nothing more after a broken pipe. Rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Terminal:
    """A reporter that shows a live table of all runs on a terminal, and else prints plain lines.

    It is a context manager. The table is removed at its end. Errors of the terminal or the pipe are ignored.

    Args:
        expected: the runs to show, in the order of the table.
        console: where to show them. The default is standard error.
    """

    def __init__(self, expected: Iterable[str] = (), console: Console | None = None) -> None:
        self.console = console or _Console(stderr=True, highlight=False, soft_wrap=True)
        self._lines = {run: Line(run, "waiting") for run in expected}
        self._live: Live | None = None
        self._shown: dict[str, float] = {}

    def begins(self, run: str, stage: str, detail: str) -> None:
        line = self._line(run)
        news = (line.state, line.detail) != (stage, detail)
        self._set(run, stage, detail)
        if news:
            self._say(run, f"{stage}  {detail}")

    def moves(self, run: str, text: str) -> None:
        state = self._line(run).state
        self._set(run, state, text)
        if time.monotonic() - self._shown.get(run, 0.0) > LINE_SECONDS:
            self._say(run, f"{state}  {text}")

    def scored(self, run: str, clean: str, robust: str) -> None:
        line = self._line(run)
        line.clean, line.robust = clean or line.clean, robust or line.robust

    def notes(self, run: str, text: str) -> None:
        self._print(f"{run}  {text}")

    def ends(self, run: str, state: str, text: str) -> None:
        self._set(run, state, "" if state in ("done", "trained") else text)
        self._say(run, text)

    def shows(self, line: Line) -> None:
        """Show the state of a run that does not report by itself."""
        before = self._lines.get(line.run)
        self._lines[line.run] = line
        self._begin()
        if before is None or before.state != line.state:
            self._say(line.run, f"{line.state}  {line.detail}".rstrip())

    def __enter__(self) -> "Terminal":
        if self._lines:
            self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the live table. Later lines are printed in its place."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None

    def _line(self, run: str) -> Line:
        return self._lines.setdefault(run, Line(run, "waiting"))

    def _set(self, run: str, state: str, detail: str) -> None:
        line = self._line(run)
        line.state, line.detail = state, detail
        self._begin()

    def _begin(self) -> None:
        """Show the live table if there is a terminal."""
        if self.console.is_terminal and self._live is None:
            self._live = Live(
                console=self.console, transient=True, refresh_per_second=REFRESHES, get_renderable=self._table
            )
            with suppress(OSError):
                self._live.start()

    def _table(self) -> run_table.Table:
        return run_table.table(list(self._lines.values()), self.console.width, self.console.height)

    def _say(self, run: str, text: str) -> None:
        """Print a plain line if there is no live table."""
        self._shown[run] = time.monotonic()
        if not self.console.is_terminal:
            self._print(f"{run}  {text}")

    def _print(self, text: str) -> None:
        with suppress(OSError):
            self.console.print(text, markup=False)
