"""Lines on standard error, and tables on standard output."""

import sys
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
