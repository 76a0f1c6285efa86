"""The code that a sweep was submitted with, kept in the store: what is edited while jobs wait does not reach them."""

import hashlib
import importlib.util
import os
import shutil
import site
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import bnft
from bnft.sweeps.tasks import Task

DIGITS = 12


def snapshot(folder: Path, tasks: Iterable[Task]) -> Path:
    """Copy bnft, and the packages of a person's own that the tasks name, into `folder`; returns the copy's place.

    Equal code is kept once. What is installed from an index is not copied: it is not edited in place.
    """
    files = dict(_sources(Path(bnft.__file__).parent))
    for name in sorted({target.partition(".")[0] for task in tasks for target in _targets(task.run.config)} - {"bnft"}):
        place = _own_source(name)
        if place is not None:
            files |= dict(_sources(place))
    content = {name: path.read_bytes() for name, path in sorted(files.items())}
    digest = hashlib.sha256(repr(list(content.items())).encode()).hexdigest()[:DIGITS]
    copy = folder / digest
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder))
        for name, text in content.items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_bytes(text)
        with suppress(OSError):  # another sweep was faster
            os.replace(unfinished, copy)
        shutil.rmtree(unfinished, ignore_errors=True)
    return copy


def _sources(place: Path) -> Iterator[tuple[str, Path]]:
    """A package's Python files, or a single module, by their names below the folder that it lies in."""
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        yield str(path.relative_to(place.parent)), path


def _targets(config: Any) -> Iterator[str]:
    """Every `_target_` of a configuration."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_" and value:
                yield str(value)
            yield from _targets(value)


def _own_source(name: str) -> Path | None:
    """The folder or file of a top-level package or module that is not installed but a person's own."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return None
    origin = Path(found.origin).resolve()
    paths = sysconfig.get_paths()
    installed = [paths["stdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()]
    if any(origin.is_relative_to(Path(path).resolve()) for path in installed):
        return None
    return origin.parent if origin.name == "__init__.py" else origin
