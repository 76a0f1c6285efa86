"""Locks of a store. They ensure that only one process works on a run. A lock is released when its process ends."""

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
    """Hold the lock `name` of the store at `root` in this block.

    If another process holds it, call `waiting` once and wait. `pulse` is called again and again meanwhile. If `waiting`
    or `pulse` raises an error, the wait ends.
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
    """Return whether a process of this machine, or of one that shares the store, holds the lock `name`.

    Writes nothing, so it also works for a read-only store.
    """
    try:
        file = _file(root, name).open("rb")
    except OSError:  # there is no such lock
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:  # with another error, the file system has no locks, so no process holds one
            return error.errno in (errno.EAGAIN, errno.EACCES)
    return False


def lock(root: Path, name: str) -> FileLock:
    """Return the lock `name`, without taking it. Raise UnwritableError if the store cannot be written to."""
    file = _file(root, name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(root, error) from None
    return FileLock(file, fallback_to_soft=False)  # a soft lock would outlive a killed process


def _file(root: Path, name: str) -> Path:
    return root / layout.LOCKS / f"{name}.lock"


def acquired(lock: FileLock) -> bool:
    """Take the lock, unless another process holds it. Return whether this process holds it now."""
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
