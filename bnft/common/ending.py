"""How the programs end: an exit code, and one line for what a person can put right. Light, since --help imports it."""

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
_OF_THE_MACHINE = {  # what is wrong with a path or a disk rather than with the program
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
    """Say why something cannot be done; returns the exit code that goes with it."""
    print(f"bnft: {message}", file=sys.stderr)
    return REFUSED


def trouble(error: BaseException) -> str | None:
    """What a person can put right, in one line, if that is what `error` is about; else None."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE and error.filename is not None:
        return f"{show(error.filename)}: cannot be used ({error.strerror})"
    return None


def argparse_message(message: str, known: Iterable[str]) -> str:
    """What argparse refuses, with the one of the `known` flags and commands that was probably meant."""
    found = re.search(r"^unrecognized arguments: ([^\s=]+)|invalid choice: '([^']*)'", message)
    if not found:
        return message
    unknown = found[1] or found[2]
    if found[1] and not unknown.startswith("-"):
        return f"{message}; flags go before or after all other arguments, not between them"
    return f"{message}{did_you_mean(unknown, known)}"


class _Stream:
    """A text stream on which nothing that is printed fails. The first error is kept."""

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
        """Send what is left in a buffer, and could not be written, nowhere."""
        self.flush()
        if self.error is not None:
            with suppress(OSError, io.UnsupportedOperation):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def printing() -> Iterator[None]:
    """A block in which output that cannot be written stops nothing: what is at work ends as it would have.

    At the end, standard output that was lost is said, and makes an exit code of 0 into 2. A reader that has seen
    enough, such as `head`, is no loss.
    """
    before = sys.stdout, sys.stderr
    out, err = (_Stream(stream or open(os.devnull, "w")) for stream in before)  # noqa: SIM115 - None is a closed one
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    end: SystemExit | None = None
    try:
        yield
    except SystemExit as raised:
        end = raised
    finally:
        out.close()
        if out.error is not None and not isinstance(out.error, BrokenPipeError):
            refused(f"standard output: cannot be written ({out.error.strerror}); what is in the store is not affected")
            end = end if end is not None and end.code else SystemExit(REFUSED)
        err.close()
        sys.stdout, sys.stderr = before
    if end is not None:
        raise end
