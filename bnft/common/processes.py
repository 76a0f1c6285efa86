"""How worker processes are started."""

import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_main() -> Iterator[None]:
    """Processes started in this block do not execute the script of this process.

    They need nothing from it. A script without a main guard would repeat all of its work in each of them.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")  # has no file or name from which it could be executed
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def importing_alike() -> Iterator[None]:
    """Processes started in this block have the import path of this process."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}  # safe path: Python does not add the current folder
    try:
        yield
    finally:
        for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
            del os.environ[name]
            os.environ |= {name: before[name]} if name in before else {}
