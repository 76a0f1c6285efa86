"""The state of runs, as a table for the terminal."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "done": "green",
    "failed": "red",
    "damaged": "red",
    "unreadable": "red",
    "blocked": "red",
    "interrupted": "yellow",
    "training": "cyan",
    "evaluating": "cyan",
}
ORDER = (
    "training",
    "evaluating",
    "starting",
    "ending",
    "failed",
    "blocked",
    "damaged",
    "unreadable",
    "interrupted",
    "not begun",
    "queued",
    "waiting",
    "trained",
    "done",
)  # the most important first
FRAME_LINES = 3  # the header, the counts, and a line for the cursor
STATE_WIDTH = 11
END = 4  # characters at the end of a shortened name, which distinguish the runs of one policy

__all__ = ["Line", "Table", "counts", "show", "table"]


@dataclass
class Line:
    """A run and its state. The errors are in percent, as text, and empty until they are known."""

    run: str
    state: str
    detail: str = ""
    clean: str = ""
    robust: str = ""


def table(lines: Sequence[Line], width: int, height: int, whole_names: bool = False) -> Table:
    """Make a table with one line per run that fits a terminal.

    If the terminal is too low for all runs, those in the most important states are shown.

    Args:
        lines: the runs, in their order.
        width: the width of the terminal, in characters.
        height: its height, in lines.
        whole_names: whether to show whole names. Otherwise long names are shortened in the middle, to have space for
            the progress.
    """
    room = max(1, height - FRAME_LINES)
    shown = list(lines)
    if len(shown) > room:
        urgent = sorted(range(len(shown)), key=lambda place: (ORDER.index(shown[place].state), place))[:room]
        shown = [lines[place] for place in sorted(urgent)]
    result = Table(
        box=None, expand=True, pad_edge=False, header_style="bold", caption=counts(lines), caption_justify="left"
    )
    errors = ("clean %", "robust %")
    widths = [len(errors[0]), max([len(errors[1]), *(len(line.robust) for line in shown)])]
    rest = width - STATE_WIDTH - sum(widths) - 2 * (len(errors) + 2)
    longest = max(len(line.run) for line in shown)
    name_width = longest if whole_names else max(1, min(longest, 2 * rest // 5))
    result.add_column("run", no_wrap=True, width=name_width)
    result.add_column("state", no_wrap=True, width=STATE_WIDTH)
    result.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for name, column in zip(errors, widths, strict=True):
        result.add_column(name, justify="right", no_wrap=True, width=column)
    for line in shown:
        state = Text(line.state, STYLES.get(line.state, ""))
        result.add_row(_shortened(line.run, name_width), state, Text(line.detail), line.clean, line.robust)
    return result


def _shortened(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    end = min(END, width - 1)
    return f"{name[: width - end - 1]}…{name[len(name) - end :]}"


def counts(lines: Sequence[Line]) -> str:
    """Count runs by state: `11 runs: 2 training, 3 waiting, 6 done`."""
    states = Counter(line.state for line in lines)
    parts = [f"{states[state]} {state}" for state in ORDER if states[state]]
    return f"{len(lines)} run{'s' if len(lines) != 1 else ''}: {', '.join(parts)}"


def show(lines: Sequence[Line]) -> None:
    """Print runs, on a terminal as a table that fits it, else as plain text."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        console.print(table(lines, console.width, console.height, whole_names=True))
        return
    width = max(len(line.run) for line in lines)
    wide = max(6, *(len(line.robust) for line in lines))
    for line in lines:
        errors = f"{line.clean:>6} {line.robust:>{wide}}" if line.clean else " " * (7 + wide)
        print(f"{line.run:{width}}  {line.state:11}  {errors}  {line.detail}".rstrip())
    print(counts(lines))
