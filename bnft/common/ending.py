"""How the programs end: with an exit code, and with one line for errors that a user can correct.

`--help` imports this module, so it must import quickly.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from bnft.common.errors import InputError, did_you_mean, show

REFUSED = 2
OUT_OF_TIME = 75  # EX_TEMPFAIL of sysexits.h: the same command continues
_OF_THE_MACHINE = {  # errors of a path or a disk, not of the program
    errno.EACCES,
    errno.EDQUOT,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
}


def refused(message: str) -> int:
    """Print why something is refused, and return the exit code for it."""
    print(f"bnft: {message}", file=sys.stderr)
    return REFUSED


def trouble(error: BaseException) -> str | None:
    """Return the message of an error that a user can correct, in one line; None for any other error."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE and error.filename is not None:
        return f"{show(error.filename)}: cannot be used ({error.strerror})"
    return None


def argparse_message(message: str, known: Iterable[str]) -> str:
    """Extend an error message of argparse by a similar name from `known`, the flags and commands that exist."""
    match = re.search(r"^unrecognized arguments: ([^\s=]+)|invalid choice: '([^']*)'", message)
    if not match:
        return message
    unknown = match[1] or match[2]
    if match[1] and not unknown.startswith("-"):
        return f"{message}; flags must be before or after all other arguments, not between them"
    return f"{message}{did_you_mean(unknown, known)}"


class _Stream:
    """A text stream on which printing never raises. It keeps the first error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self.error = error
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Flush the stream. After an error, discard what is left in the buffer."""
        self.flush()
        if self.error is not None:
            with suppress(OSError, io.UnsupportedOperation):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def printing() -> Iterator[None]:
    """Ignore errors of standard output and standard error in this block, so that the work in it is completed.

    If standard output was lost, an error is printed at the end, and exit code 0 becomes 2. A pipe that its reader
    closed, such as `head`, is not an error.
    """
    before = sys.stdout, sys.stderr
    out, err = (_Stream(stream or open(os.devnull, "w")) for stream in before)  # noqa: SIM115 - None if it is closed
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    end: SystemExit | None = None
    try:
        yield
    except SystemExit as raised:
        end = raised
    finally:
        out.close()
        if out.error is not None and not isinstance(out.error, BrokenPipeError):
            refused(f"standard output: cannot be written ({out.error.strerror}); the store is not affected")
            end = end if end is not None and end.code else SystemExit(REFUSED)
        err.close()
        sys.stdout, sys.stderr = before
    if end is not None:
        raise end
