"""How processes are started that compute."""

import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that are started in this block do not run the script of this one.

    They need nothing of it, and a script without a main guard would do all of its work again in each of them.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")  # without a file or a name to be run again by
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def importing_alike() -> Iterator[None]:
    """Processes that are started in this block import from where this one does, in the same order."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}  # safe: not from the current folder first
    try:
        yield
    finally:
        for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
            del os.environ[name]
            os.environ |= {name: before[name]} if name in before else {}
