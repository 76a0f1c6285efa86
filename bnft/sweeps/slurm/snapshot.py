"""A copy of the code in the store. Jobs use it, so that edits while they wait do not affect them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import bnft
from bnft.config import sources
from bnft.runs.plan import ancestors
from bnft.sweeps.tasks import Task

DIGITS = 12


def snapshot(folder: Path, tasks: Iterable[Task]) -> Path:
    """Copy bnft, and the user's own code that the tasks compute with, into a subfolder of `folder`.

    Equal code is copied once. Installed packages are not copied, because they are not edited in place.

    Returns:
        The subfolder.
    """
    package = Path(bnft.__file__).parent
    content = {str(path.relative_to(package.parent)): path.read_bytes() for path in package.rglob("*.py")}
    configs = [run.config for task in tasks for run in (*ancestors(task.run), task.run)]
    for target in {target for config in configs for target in _targets(config)}:
        content |= {source.name: source.content for source in sources.files(target)}
    digest = hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()[:DIGITS]
    copy = folder / digest
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder))
        for name, text in content.items():
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / name).write_bytes(text)
        with suppress(OSError):  # another sweep has made the same copy
            os.replace(unfinished, copy)
        shutil.rmtree(unfinished, ignore_errors=True)
    return copy


def _targets(config: Any) -> Iterator[str]:
    """Yield every `_target_` of a configuration."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_" and value:
                yield str(value)
            yield from _targets(value)
