"""Locks of a store: they keep two processes from one run, and go with their process, however that ends."""

import errno
import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bnft.common.errors import InputError, UnwritableError
from bnft.runs import layout

POLL_SECONDS = 0.2


@contextmanager
def locked(root: Path, name: str, waiting: Callable[[], None], pulse: Callable[[], None]) -> Iterator[None]:
    """Hold the lock `name` of the store at `root`; if another process has it, call `waiting` once and wait.

    `pulse` is called while waiting; what it or `waiting` raises ends that.
    """
    held = lock(root, name)
    if not acquired(held):
        waiting()
        while not acquired(held):
            pulse()
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        held.release()


def is_locked(root: Path, name: str) -> bool:
    """Whether a process of this machine, or of one that shares the store, holds the lock `name`.

    Writes nothing, so that it can be asked of a store that is read-only.
    """
    try:
        file = _file(root, name).open("rb")
    except OSError:  # it was never taken
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:  # any other: the file system has no locks, so nobody can work there
            return error.errno in (errno.EAGAIN, errno.EACCES)
    return False


def lock(root: Path, name: str) -> FileLock:
    """The lock `name`, not held yet. Raises UnwritableError if the store cannot be written to."""
    file = _file(root, name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(root, error) from None
    return FileLock(file, fallback_to_soft=False)  # a soft lock would outlive a killed process


def _file(root: Path, name: str) -> Path:
    return root / layout.LOCKS / f"{name}.lock"


def acquired(lock: FileLock) -> bool:
    """Take the lock, if no other process has it; returns whether it did."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        folder = Path(lock.lock_file).parents[1]
        if error.errno != errno.ENOSYS:
            raise _unwritable(folder, error) from None
        raise InputError(f"store={folder}: must be on a file system with locks (flock); this one has none") from None
    return True


def _unwritable(folder: Path, error: OSError) -> UnwritableError:
    return UnwritableError(f"store={folder}: must be a folder that can be written to ({error.strerror})")
