"""Lines on standard error."""

import sys
from contextlib import suppress

from bnft.common.errors import show


def notice(message: str) -> None:
    """One line on standard error, if anybody is there to read it."""
    with suppress(OSError):
        print(message if len(message) < 2000 else show(message), file=sys.stderr)
