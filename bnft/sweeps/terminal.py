"""What a run tells while it works, and the ways of showing it."""

import time
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console
from rich.live import Live

from bnft.sweeps import run_table
from bnft.sweeps.run_table import Line

LINE_SECONDS = 15.0  # off a terminal, a line a run at most this often
REFRESHES = 4  # of the live table, a second


class _Console(Console):
    """Without a reader it falls silent, where Rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Terminal:
    """A live table of all runs on a terminal; few plain lines elsewhere.

    A context manager, at whose end the table goes. `expected` are the runs to come, in the order of the table. A
    terminal that is gone, or a pipe that nobody reads, disturbs no run.
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
        """Where a run stands that tells us nothing itself."""
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
        """Take the live table away; what comes next is printed where it stood."""
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
        """Put up the table, if there is a terminal to show it."""
        if self.console.is_terminal and self._live is None:
            self._live = Live(
                console=self.console, transient=True, refresh_per_second=REFRESHES, get_renderable=self._table
            )
            with suppress(OSError):
                self._live.start()

    def _table(self) -> run_table.Table:
        return run_table.table(list(self._lines.values()), self.console.width, self.console.height)

    def _say(self, run: str, text: str) -> None:
        """A plain line, where there is no table to show it."""
        self._shown[run] = time.monotonic()
        if not self.console.is_terminal:
            self._print(f"{run}  {text}")

    def _print(self, text: str) -> None:
        with suppress(OSError):
            self.console.print(text, markup=False)
