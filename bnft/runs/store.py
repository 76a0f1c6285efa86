"""The store: the folder of all runs and the records of sweeps; see `layout` for its files."""

import errno
import math
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from bnft.common import files
from bnft.common.clock import now
from bnft.common.errors import InputError, rejected
from bnft.common.stopping import steady
from bnft.runs import identity, layout, locks, sweep_records
from bnft.runs.run_folder import RunFolder

SWEEP_NAME = "sweep_name"  # the key that names a sweep
RUN_NAME = re.compile(rf".+-[0-9a-f]{{{identity.HASH_LENGTH}}}")


def task_name(run: str, evaluation: str | None) -> str:
    """Return the name of a task: `RUN/EVALUATION`, or `RUN` for its training."""
    return f"{run}/{evaluation}" if evaluation else run


def checked(store: str) -> Path:
    """Return the folder of a store, which need not exist yet. Raise InputError if it cannot be created."""
    if not store:
        raise rejected("store", store, "a folder; . is the current one")
    try:
        path = Path(store).expanduser()
        for part in (path, *path.parents):
            with suppress(FileNotFoundError, NotADirectoryError):
                if not stat.S_ISDIR(os.stat(part).st_mode):
                    raise rejected("store", store, f"a folder; {part} is a file")
                longest = max((len(os.fsencode(name)) for name in path.parts), default=0)
                if longest > os.pathconf(part, "PC_NAME_MAX"):
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                break
    except OSError as error:
        raise rejected("store", store, f"a folder that can be made ({error.strerror})") from None
    except (RuntimeError, ValueError) as error:  # for ~ of an unknown user, and for a NUL byte
        raise rejected("store", store, f"a folder that can be made ({error})") from None
    return path


class Store:
    """The folder of all runs."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.root / name)

    def folders(self) -> list[RunFolder]:
        """Return everything in the store that has the name of a run."""
        paths = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [RunFolder(path) for path in paths if RUN_NAME.fullmatch(path.name)]

    def runs(self) -> list[RunFolder]:
        """Return every run in the store."""
        return [folder for folder in self.folders() if folder.begun]

    def locked(self, name: str, waiting: Callable[[], None], pulse: Callable[[], None]) -> AbstractContextManager[None]:
        """Hold the lock of a run or a sweep; see `locks.locked`."""
        return locks.locked(self.root, name, waiting, pulse)

    def is_locked(self, name: str) -> bool:
        """Return whether a process holds the lock of a run or a sweep; see `locks.is_locked`."""
        return locks.is_locked(self.root, name)

    def remove_outdated(self, name: str) -> None:
        """Remove files that a run does not need any more, unless another process holds its lock."""
        folder = self.run(name)
        if folder.outdated() and locks.acquired(lock := locks.lock(self.root, name)):
            folder.remove_outdated()
            lock.release()

    def log(self, name: str) -> Path:
        """Return the log of a local run: the output of libraries, warnings, and the traceback of a failure."""
        return self.root / layout.LOGS / f"{name}.log"

    def kept_log(self, name: str) -> Path | None:
        """Return the log of a run; None if it is empty."""
        log = self.log(name)
        return log if log.exists() and log.stat().st_size else None

    def job_log(self, sweep: str, array: str, index: str | int) -> Path:
        """Return the log of a SLURM job, which is named by submitit."""
        return self.root / layout.SLURM / sweep / "log" / f"{array}_{index}_0_log.out"

    def save_sweep(
        self,
        entries: list[dict[str, Any]],
        bases: list[dict[str, str]],
        command: str,
        commit: str | None,
        given: str | None = None,
        **more: Any,
    ) -> str:
        """Record a sweep and the process that launches it.

        Sweeps are numbered in the order in which they are recorded, independently of the clocks of their machines.

        Args:
            entries: the runs; see `sweep`.
            bases: the bases.
            command: the command line.
            commit: the git commit of the code; None if it is not known.
            given: the name of the sweep; None to name it by the time. If there is a sweep of this name with the same
                runs, it is continued: its jobs are kept, and it becomes the newest sweep.
            more: further fields of the record.

        Returns:
            The name of the sweep.

        Raises:
            InputError: if the given name is that of a sweep with other runs, or of one that is running.
            UnwritableError: if the store cannot be written to.
        """
        launcher = {"host": socket.gethostname(), "pid": os.getpid()}
        with self.locked("sweeps", steady, steady):
            numbers = self._numbers()
            number = 1 + max((number for number in numbers.values() if number < math.inf), default=0)
            if given is not None:
                name, more = given, {**self._continued(given, entries), **more}
            else:
                while (name := datetime.now().strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]) in numbers:
                    time.sleep(0.002)
            sweep = {"number": number, "command": command, "commit": commit, "time": now(), "launcher": launcher}
            files.write_json(self._sweep_file(name), {**sweep, **more, "runs": entries, "bases": bases})
        return name

    def save_study(self, study: Mapping[str, Any], entries: list[dict[str, Any]]) -> None:
        """Record runs of a study that were copied from another store, as a sweep with the name of the study.

        Args:
            study: the study, as in the record of a sweep.
            entries: its runs; see `sweep`. Runs that were recorded before are kept.
        """
        name = str(study["name"]).replace("/", "-")
        before = self.sweep(name)["runs"] if self.has_sweep(name) else []
        runs = {(entry["run"], entry["evaluation"]): entry for entry in (*before, *entries)}
        sweep = {"number": 1, "command": "bnft export", "commit": None, "time": now(), "study": study}
        files.write_json(self._sweep_file(name), {**sweep, "runs": [*runs.values()], "bases": []})

    def _continued(self, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what is kept of a sweep if it is asked for again: its SLURM jobs, if it has any."""
        if not self.has_sweep(name):
            return {}
        before = self.sweep(name)
        ours, theirs = ({(entry["run"], entry["evaluation"]) for entry in runs} for runs in (entries, before["runs"]))
        if ours != theirs:
            other = f"the sweep of this name has other runs; `bnft remove --sweeps {name}` frees the name"
            raise rejected(SWEEP_NAME, name, f"a new name; {other}")
        if self.is_locked(f"sweep-{name}"):
            raise rejected(SWEEP_NAME, name, f"the name of a sweep that is not running; `bnft cancel {name}` ends it")
        return {"arrays": before["arrays"]} if "arrays" in before else {}

    def extend_sweep(self, name: str, **fields: Any) -> None:
        """Add fields to the record of a sweep."""
        files.write_json(self._sweep_file(name), {**self.sweep(name), **fields})

    def copy_sweep(self, name: str, sweep: Mapping[str, Any]) -> None:
        """Write the record of a sweep of another store."""
        files.write_json(self._sweep_file(name), sweep)

    def sweeps(self) -> list[str]:
        """Return the names of all sweeps, oldest first. Reads only the first bytes of each record."""
        numbers = self._numbers()
        return sorted(numbers, key=lambda name: (numbers[name], name))

    def _numbers(self) -> dict[str, float]:
        """Return the number of every sweep, by its name."""
        return {file.stem: sweep_records.number(file) for file in (self.root / layout.SWEEPS).glob("*.json")}

    def has_sweep(self, name: str) -> bool:
        return self._sweep_file(name).exists()

    def _sweep_file(self, name: str) -> Path:
        return self.root / layout.SWEEPS / f"{name}.json"

    def sweep(self, name: str) -> dict[str, Any]:
        """Return the record of a sweep.

        It has `number`, `command`, `commit`, `time`, `launcher`, `seeds`, `runs`, `bases`, and fields that its launcher
        adds. Old records lack some of them.
        Each run has `run` and `evaluation`, and each base has `run`. Both have `base` if they start from another run.
        A run with a preview has its evaluation as `preview`. If the sweep has a `study`, a run has the title of its
        `row` there, and the values that differ from this row as `changed`.

        Raises:
            InputError: if there is no such sweep.
            DamagedError: if its record cannot be read.
        """
        file = self._sweep_file(name)
        if not file.exists():
            newest = ", ".join(self.sweeps()[-3:]) or "none"
            raise InputError(f"sweep {name}: must be one of those in {self.root / layout.SWEEPS} (newest: {newest})")
        return sweep_records.read(file)
