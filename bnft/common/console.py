"""Lines on standard error, and tables on standard output."""

import shutil
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from bnft.common.errors import show

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 140  # of tables, if the output is not a terminal


def notice(message: str) -> None:
    """Print one line on standard error. Errors of the stream are ignored."""
    with suppress(OSError):
        print(message if len(message) < 2000 else show(message), file=sys.stderr)


def output() -> "Console":
    """Return a console for standard output. If it is not a terminal, it is PLAIN_WIDTH wide."""
    from rich.console import Console  # here, because notices do not need it

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PLAIN_WIDTH)


def show_columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Print rows of cells below a header, in aligned columns. On a terminal, long lines are cut at its width.

    Args:
        header: the names of the columns.
        rows: the cells of each row.
        right: the names of the columns that are aligned at the right.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = [
            cell.rjust(size) if name in right else cell.ljust(size)
            for name, cell, size in zip(header, row, widths, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        print(line if width is None or len(line) <= width else f"{line[: width - 1]}…")
