"""Lines on standard error."""

import sys
from contextlib import suppress

from bnft.common.errors import show


def notice(message: str) -> None:
    """Print one line on standard error. Errors of the stream are ignored."""
    with suppress(OSError):
        print(message if len(message) < 2000 else show(message), file=sys.stderr)
