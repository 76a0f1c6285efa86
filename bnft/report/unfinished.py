"""What a sweep that is not done needs to continue on another machine, in addition to its results."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnft.common import files
from bnft.common.errors import InputError
from bnft.runs import layout
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store

OF_THE_MACHINE = ("host", "pid", "slurm_job")  # fields of a status
QUICK = "quick-"  # begins the ids of evaluations from whose images nothing continues
LEFT_OUT = (layout.CONFIG, layout.STATUS, layout.TRACKING)


@dataclass
class Needed:
    """Runs that are not done, which are copied as they are, and runs of which the others need the model."""

    whole: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)


def needed(store: Store, sweeps: Mapping[str, Mapping[str, Any]]) -> Needed:
    """Return what the runs of sweeps that are not done need. Raise InputError if a process works on one of them.

    Args:
        store: the store.
        sweeps: the records of the sweeps, by name.
    """
    entries = [entry for sweep in sweeps.values() for part in ("bases", "runs") for entry in sweep[part]]
    bases = {entry["run"]: entry.get("base") for entry in entries}
    found = Needed()

    def need(name: str) -> None:
        """Add the model of a run, or else what its training continues from."""
        run = store.run(name)
        if run.trained:
            found.models.add(name)
            return
        if run.begun:
            found.whole.add(name)
        if bases.get(name) is not None:
            need(bases[name])

    for entry in entries:
        run = store.run(entry["run"])
        if "evaluation" in entry and not (run.evaluation(entry["evaluation"]).path / layout.RESULT).exists():
            need(run.name)
            if run.begun:
                found.whole.add(run.name)
    found.models -= found.whole
    _refuse_running(store, [*(f"sweep-{name}" for name in sweeps), *found.whole])
    return found


def _refuse_running(store: Store, names: Iterable[str]) -> None:
    for name in names:
        if store.is_locked(name):
            name = name.removeprefix("sweep-")
            raise InputError(
                f"{name}: must not be running when it is exported with --unfinished; `bnft cancel` ends it"
            )


def copy_whole(run: RunFolder, copy: RunFolder) -> None:
    """Copy a run that is not done, so that it continues from the same state.

    Its configuration, its status and quick evaluations that are done are left out. Times of files are kept, because
    they tell which saved states are outdated.
    """
    for state in (layout.CHECKPOINT, layout.MODEL):
        (copy.path / state).unlink(missing_ok=True)
    quick = {evaluation.path for evaluation in run.evaluations() if evaluation.path.name.startswith(QUICK)}
    for file in sorted(run.path.rglob("*")):
        name = file.relative_to(run.path)
        if file.is_file() and file.parent not in quick and str(name) not in LEFT_OUT and not _is_hidden(name):
            (copy.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy.path / name)


def _is_hidden(name: Path) -> bool:
    """Return whether a file is temporary."""
    return any(part.startswith(".") for part in name.parts)


def copy_status(run: RunFolder, copy: RunFolder) -> None:
    """Copy the status of a run, without the machine on which it worked."""
    files.write_json(
        copy.path / layout.STATUS, {key: value for key, value in run.status().items() if key not in OF_THE_MACHINE}
    )
