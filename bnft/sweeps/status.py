"""Where runs stand: what the store says and what SLURM's queue says, together. Reads only, and without PyTorch."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bnft.common.errors import DamagedError, Failure, InputError
from bnft.common.files import reachable
from bnft.runs.reporter import duration
from bnft.runs.selection import readable, runs_of
from bnft.runs.store import Store, task_name
from bnft.sweeps.run_table import Line
from bnft.sweeps.slurm import cluster
from bnft.sweeps.slurm.cluster import Job

SETTLED = ("done", "failed", "blocked", "interrupted", "damaged", "unreadable", "not begun")


@dataclass(frozen=True)
class RunStatus:
    """One evaluation of one run, or its training if `evaluation` is None. Errors are in percent."""

    run: str
    evaluation: str | None
    state: str
    detail: str = ""
    clean: float | None = None
    robust: float | None = None
    job: str | None = None  # SLURM's number of the job
    log: str | None = None

    def line(self) -> Line:
        clean = "" if self.clean is None else f"{self.clean:.2f}"
        robust = "" if self.robust is None else f"{self.robust:.1f}"
        return Line(self.run, self.state, self.detail, clean, robust)

    def fields(self) -> dict[str, Any]:
        return asdict(self)


class StoreStatus:
    """The store and the queue as they are at one moment."""

    def __init__(self, store: Store, jobs: Sequence[Job] | None = None) -> None:
        """Asks SLURM for `jobs` unless they are given; not at all where no sweep of the store was submitted to it."""
        self.store, self.began = store, time.monotonic()
        self.sweeps = dict(readable(store))
        if jobs is None:
            jobs = cluster.queue() if any(sweep.get("arrays") for sweep in self.sweeps.values()) else ()
        self._queue = {(job.name, job.index): job for job in jobs}

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """The jobs of this store that are queued or running, by their task's name."""
        found: dict[str, Job] = {}
        for sweep in self.sweeps.values():
            found |= self._jobs(sweep)
        return found

    def jobs_of(self, sweep: str) -> list[Job]:
        """The jobs that were submitted for a sweep and are still queued or running."""
        return list(self._jobs(self.sweeps[sweep]).values())

    def sharers(self, sweep: str) -> list[str]:
        """Other sweeps that have jobs in the queue for runs of this one."""
        runs = set(runs_of(self.sweeps[sweep]))
        found = []
        for name, other in self.sweeps.items():
            if name != sweep and any(task.partition("/")[0] in runs for task in self._jobs(other)):
                found.append(name)
        return found

    def is_launched(self, sweep: str) -> bool:
        """Whether the process that launched a sweep on a machine is still at it."""
        return self.store.is_locked(f"sweep-{sweep}")

    def is_unfinished(self, sweep: str) -> bool:
        """Whether not all of a sweep is done, and somebody works on it, or will."""
        states = {standing.state for standing in self.statuses([sweep])}
        return states != {"done"} and (not states <= {*SETTLED} or self.is_launched(sweep))

    def can_be_cancelled(self, sweep: str) -> bool:
        """Whether anything that was launched or submitted for a sweep is queued or running."""
        return bool(self.jobs_of(sweep)) or self.is_launched(sweep)

    def newest(self, fits: Callable[[str], bool]) -> str | None:
        """The newest sweep that fits; None if there is none."""
        return next(filter(fits, reversed(self.sweeps)), None)

    def _jobs(self, sweep: Mapping[str, Any]) -> dict[str, Job]:
        return {
            task: self._queue[array["name"], int(index)]
            for array in sweep.get("arrays", ())
            for index, task in array["tasks"].items()
            if (array["name"], int(index)) in self._queue
        }

    @cached_property
    def _logs(self) -> dict[str, Path]:
        """Where the newest job of each task writes."""
        logs = {}
        for name, sweep in self.sweeps.items():
            for array in sweep.get("arrays", ()):
                for index, task in array["tasks"].items():
                    logs[task] = self.store.job_log(name, array.get("job", "?"), index)
        return logs

    def statuses(self, sweeps: Iterable[str] | None = None) -> list[RunStatus]:
        """Every run of some sweeps with its evaluation, bases first; of the whole store if none are named.

        A base that is not there is left out if all that start from it are done.
        """
        wanted: dict[tuple[str, str | None], None] = {}
        bases: dict[str, str | None] = {}
        launched: set[str] = set()
        for name in self.sweeps if sweeps is None else sweeps:
            sweep, alive = self.sweeps[name], self.is_launched(name)
            for entry in (*sweep["bases"], *sweep["runs"]):
                wanted[entry["run"], entry.get("evaluation")] = None
                bases[entry["run"]] = entry.get("base")
                if alive:
                    launched.add(entry["run"])
        if sweeps is None:
            wanted |= dict.fromkeys(self._others({run for run, _ in wanted}))
        states: dict[str, str] = {}
        found = []
        for run, evaluation in wanted:
            standing = self._standing(run, evaluation, bases.get(run), states, run in launched)
            states[run] = standing.state
            found.append(standing)
        needed: set[str | None] = set()
        for standing in found:
            base = bases.get(standing.run)
            if standing.evaluation is None or standing.state == "done":
                continue
            while base is not None and base not in needed and states.get(base) != "done":
                needed.add(base)
                base = bases.get(base)
        return [
            standing
            for standing in found
            if standing.evaluation is not None
            or standing.state == "done"
            or standing.run in needed
            or standing.run not in bases
        ]

    def _others(self, known: set[str]) -> Iterable[tuple[str, str | None]]:
        """The store's runs that belong to no sweep."""
        for folder in self.store.runs():
            if folder.name not in known:
                done: list[str | None] = []
                with suppress(OSError):  # which `_standing` meets too
                    done += [evaluation.path.name for evaluation in folder.evaluations()]
                yield from ((folder.name, name) for name in done or [None])

    def _standing(
        self, run: str, evaluation: str | None, base: str | None, states: Mapping[str, str], launched: bool
    ) -> RunStatus:
        try:
            with reachable():
                return self._found(run, evaluation, base, states, launched)
        except InputError as error:
            return RunStatus(run, evaluation, "unreadable", str(error))

    def _found(
        self, run: str, evaluation: str | None, base: str | None, states: Mapping[str, str], launched: bool
    ) -> RunStatus:
        folder, damage = self.store.run(run), ""
        if evaluation is None and folder.trained:
            return RunStatus(run, None, "done", "trained")
        if evaluation is not None:
            try:
                result = folder.evaluation(evaluation).result()
                if result is not None:
                    folder.evaluation(evaluation).outcomes(images=False)
                    return RunStatus(run, evaluation, "done", "", result.clean.error, result.robust.error)
            except DamagedError as error:
                damage = str(error)
        job = self.jobs.get(task_name(run, evaluation)) or self.jobs.get(run)
        status = folder.status()
        state, detail = self._state(run, status, base, states, job, launched)
        if damage and state == "not begun":
            state, detail = "damaged", damage
        log = self._log(run, evaluation)
        return RunStatus(run, evaluation, state, detail, None, None, job.id if job else None, str(log) if log else None)

    def _log(self, run: str, evaluation: str | None) -> Path | None:
        """What the newest job of the run wrote, or a local process; None if nothing has."""
        for task in (task_name(run, evaluation), run):
            if task in self._logs and self._logs[task].exists():
                return self._logs[task]
        return self.store.kept_log(run)

    def _state(
        self,
        run: str,
        status: Mapping[str, Any],
        base: str | None,
        states: Mapping[str, str],
        job: Job | None,
        launched: bool,
    ) -> tuple[str, str]:
        """State and detail of what is not done."""
        said = status.get("state")
        if job is not None and not job.never_starts:
            if job.is_pending:
                return "queued", "; ".join(filter(None, (_reason(job), _goes_on(status))))
            if job.state == "COMPLETING":
                return "ending", ""
            stage = status.get("stage") if status.get("slurm_job") == job.id and said == "running" else None
            return str(stage or "starting"), _progress(status) if stage else ""
        if said == "running" and self.store.is_locked(run):
            return str(status.get("stage")), _progress(status)
        if launched and said in (None, "done", "interrupted"):
            return "waiting", ""
        if said == "running":
            return "failed", f"it was killed while {status.get('stage')}: {_progress(status) or 'at the start'}"
        if said in ("failed", "interrupted"):
            return str(said), str(status.get("error", ""))
        if base is not None and states.get(base) in ("failed", "blocked"):
            return "blocked", f"its base {base} failed"
        return "not begun", "trained, not evaluated" if said == "done" else ""


def failure_of(standing: RunStatus) -> Failure | None:
    """What a launcher has to say of a run that nobody works on any more; None if it is done."""
    if standing.state == "done":
        return None
    what = standing.detail or f"{standing.state}: its job has left the queue"
    return Failure(
        what,
        log=Path(standing.log) if standing.log else None,
        stopped=standing.state in ("interrupted", "not begun"),
        blocked=standing.state == "blocked",
    )


def _reason(job: Job) -> str:
    words = {"Dependency": "waits for its base", "BeginTime": "starts again soon", "None": ""}
    return words.get(job.reason, job.reason)


def _progress(status: Mapping[str, Any]) -> str:
    """How far a run is, in words; empty if it has not said."""
    if status.get("stage") == "training" and "epochs" in status:
        left = f", {duration(status['seconds_left'])} left" if "seconds_left" in status else ""
        return f"epoch {min(status['epoch'] + 1, status['epochs'])} of {status['epochs']}{left}"
    if "attack" in status:
        return f"{status['attack']}, {status['standing']} of {status['images']} images stand"
    return ""


def _goes_on(status: Mapping[str, Any]) -> str:
    return f"goes on from {_progress(status)}" if _progress(status) else ""


def cancel(view: StoreStatus, sweep: str) -> str:
    """End what was launched or submitted for a sweep, its state kept; returns in words what was ended, and what not."""
    arrays: dict[str, int] = {}
    for job in view.jobs_of(sweep):
        arrays[job.name] = arrays.get(job.name, 0) + 1
    cluster.cancel(list(arrays))
    count = sum(arrays.values())
    ended = [f"{count} job{'s' if count > 1 else ''} cancelled"] if arrays else []
    if view.is_launched(sweep):
        launcher = view.sweeps[sweep]["launcher"]
        if launcher["host"] != socket.gethostname():
            raise InputError(f"sweep {sweep}: must be cancelled on {launcher['host']}, where it runs")
        os.kill(launcher["pid"], signal.SIGTERM)
        ended.append("its launcher stops and keeps the state of every run")
    others = view.sharers(sweep)
    shared = f"; some of its runs go on as jobs of {', '.join(others)}, to be cancelled by that name" if others else ""
    return (", ".join(ended) or "nothing that was submitted for it is queued or running") + shared
