"""The state of runs, from the store and SLURM's queue. Writes nothing, and does not import PyTorch."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bnft.common.console import notice
from bnft.common.errors import DamagedError, Failure, InputError
from bnft.common.files import reachable
from bnft.evaluation.settings import score_text
from bnft.runs.layout import EVALUATION, RESULT
from bnft.runs.reporter import duration
from bnft.runs.selection import readable, runs_of
from bnft.runs.store import Store, task_name
from bnft.sweeps.run_table import Line
from bnft.sweeps.slurm import cluster
from bnft.sweeps.slurm.cluster import Job

SETTLED = ("done", "failed", "blocked", "interrupted", "damaged", "unreadable", "not begun")


@dataclass(frozen=True)
class RunStatus:
    """The state of an evaluation of a run, or of its training if `evaluation` is None. Errors are in percent.

    `attack` is the attack of the robust error, as in labels. If the evaluation is not done, it can be that of the
    preview.
    """

    run: str
    evaluation: str | None
    state: str
    detail: str = ""
    clean: float | None = None
    robust: float | None = None
    attack: str | None = None
    job: str | None = None  # SLURM's number of the job
    log: str | None = None

    def line(self) -> Line:
        clean = "" if self.clean is None else f"{self.clean:.2f}"
        robust = "" if self.robust is None else score_text(self.robust, self.attack or "autoattack")
        return Line(self.run, self.state, self.detail, clean, robust)

    def fields(self) -> dict[str, Any]:
        return asdict(self)


class StoreStatus:
    """The state of the store and the queue at one moment.

    Args:
        store: the store.
        jobs: the jobs in the queue. The default is to ask SLURM, if a sweep of the store was submitted to it.
    """

    def __init__(self, store: Store, jobs: Sequence[Job] | None = None) -> None:
        self.store, self.began = store, time.monotonic()
        self.sweeps = dict(readable(store))
        if jobs is None:
            jobs = cluster.queue() if any(sweep.get("arrays") for sweep in self.sweeps.values()) else ()
        self._queue = {(job.name, job.index): job for job in jobs}

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """The queued and running jobs of this store, by the names of their tasks."""
        jobs: dict[str, Job] = {}
        for sweep in self.sweeps.values():
            jobs |= self._jobs(sweep)
        return jobs

    def jobs_of(self, sweep: str) -> list[Job]:
        """Return the queued and running jobs that were submitted for a sweep."""
        return list(self._jobs(self.sweeps[sweep]).values())

    def sharers(self, sweep: str) -> list[str]:
        """Return the other sweeps that have queued or running jobs for runs of this sweep."""
        runs = set(runs_of(self.sweeps[sweep]))
        names = []
        for name, other in self.sweeps.items():
            if name != sweep and any(task.partition("/")[0] in runs for task in self._jobs(other)):
                names.append(name)
        return names

    def is_launched(self, sweep: str) -> bool:
        """Return whether the process that launched a sweep on a machine is still running."""
        return self.store.is_locked(f"sweep-{sweep}")

    def is_unfinished(self, sweep: str) -> bool:
        """Return whether a sweep is not done, and still queued or running."""
        states = {status.state for status in self.statuses([sweep])}
        return states != {"done"} and (not states <= {*SETTLED} or self.is_launched(sweep))

    def can_be_cancelled(self, sweep: str) -> bool:
        """Return whether anything that was launched or submitted for a sweep is queued or running."""
        return bool(self.jobs_of(sweep)) or self.is_launched(sweep)

    def state(self, sweep: str) -> str:
        """Return the state of a sweep in one word: done, running, failed or interrupted.

        A run counts as done if its result exists. Unlike `statuses`, this does not read results, so it is fast.
        """
        left = self.not_done(sweep)
        if not left:
            return "done"
        launched = self.is_launched(sweep)
        if launched or self.jobs_of(sweep):
            return "running"
        states: dict[str, str] = {}
        for entry in (*self.sweeps[sweep]["bases"], *left):
            run = entry["run"]
            states[run] = self._status(run, entry.get("evaluation"), entry.get("base"), states, launched).state
        found = {states[entry["run"]] for entry in left}
        if not found <= {*SETTLED}:
            return "running"
        return "interrupted" if found <= {"interrupted", "not begun"} else "failed"

    def not_done(self, sweep: str) -> list[dict[str, str]]:
        """Return the runs of a sweep that have no result, as in its record."""
        root = str(self.store.root)
        return [
            entry
            for entry in self.sweeps[sweep]["runs"]
            if not os.path.exists(os.path.join(root, entry["run"], EVALUATION, entry["evaluation"], RESULT))
        ]

    def of(self, run: str, evaluation: str | None) -> RunStatus:
        """Return the state of an evaluation of a run, or of its training if `evaluation` is None."""
        sweeps = {name: sweep for name, sweep in self.sweeps.items() if run in runs_of(sweep)}
        entries = (entry for sweep in sweeps.values() for entry in (*sweep["runs"], *sweep["bases"]))
        base = next((entry["base"] for entry in entries if entry["run"] == run and "base" in entry), None)
        return self._status(run, evaluation, base, {}, any(map(self.is_launched, sweeps)))

    def of_run(self, run: str) -> list[RunStatus]:
        """Return the state of every evaluation of a run that is done or that a sweep lists.

        If there is none, return the state of its training.
        """
        wanted = dict.fromkeys(evaluation.path.name for evaluation in self.store.run(run).evaluations())
        for sweep in self.sweeps.values():
            wanted |= dict.fromkeys(entry["evaluation"] for entry in sweep["runs"] if entry["run"] == run)
        return [self.of(run, evaluation) for evaluation in wanted or [None]]

    def newest(self, fits: Callable[[str], bool]) -> str | None:
        """Return the newest sweep that fits; None if there is none."""
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
        """The log of the newest job of each task."""
        logs = {}
        for name, sweep in self.sweeps.items():
            for array in sweep.get("arrays", ()):
                for index, task in array["tasks"].items():
                    logs[task] = self.store.job_log(name, array.get("job", "?"), index)
        return logs

    def statuses(self, sweeps: Iterable[str] | None = None) -> list[RunStatus]:
        """Return the state of every run of some sweeps, bases first. The default is all runs of the store.

        A base that does not exist is left out if all runs that start from it are done.
        """
        wanted: dict[tuple[str, str | None], None] = {}
        bases: dict[str, str | None] = {}
        previews: dict[tuple[str, str | None], str | None] = {}
        launched: set[str] = set()
        for name in self.sweeps if sweeps is None else sweeps:
            sweep, alive = self.sweeps[name], self.is_launched(name)
            for entry in (*sweep["bases"], *sweep["runs"]):
                key = entry["run"], entry.get("evaluation")
                wanted[key] = None
                bases[entry["run"]] = entry.get("base")
                previews[key] = entry.get("preview") or previews.get(key)
                if alive:
                    launched.add(entry["run"])
        if sweeps is None:
            wanted |= dict.fromkeys(self._others({run for run, _ in wanted}))
        states: dict[str, str] = {}
        statuses = []
        for run, evaluation in wanted:
            status = self._status(run, evaluation, bases.get(run), states, run in launched)
            if status.robust is None:
                status = self._with_preview(status, previews.get((run, evaluation)))
            states[run] = status.state
            statuses.append(status)
        needed: set[str | None] = set()
        for status in statuses:
            base = bases.get(status.run)
            if status.evaluation is None or status.state == "done":
                continue
            while base is not None and base not in needed and states.get(base) != "done":
                needed.add(base)
                base = bases.get(base)
        return [
            status
            for status in statuses
            if status.evaluation is not None
            or status.state == "done"
            or status.run in needed
            or status.run not in bases
        ]

    def _with_preview(self, status: RunStatus, preview: str | None) -> RunStatus:
        """Add the errors of the preview to the state of an evaluation that is not done, if it has one."""
        if preview is None:
            return status
        with suppress(InputError, OSError):  # a damaged or unreadable preview is made again
            result = self.store.run(status.run).evaluation(preview).result()
            if result is not None:
                found = result.clean.error, result.robust.error, result.evaluation.shown_attack
                return replace(status, clean=found[0], robust=found[1], attack=found[2])
        return status

    def _others(self, known: set[str]) -> Iterable[tuple[str, str | None]]:
        """Return the runs and evaluations of the store that are in no sweep."""
        for folder in self.store.runs():
            if folder.name not in known:
                done: list[str | None] = []
                with suppress(OSError):  # `_status` reports it
                    done += [evaluation.path.name for evaluation in folder.evaluations()]
                yield from ((folder.name, name) for name in done or [None])

    def _status(
        self, run: str, evaluation: str | None, base: str | None, states: Mapping[str, str], launched: bool
    ) -> RunStatus:
        try:
            with reachable():
                return self._readable_status(run, evaluation, base, states, launched)
        except InputError as error:
            return RunStatus(run, evaluation, "unreadable", str(error))

    def _readable_status(
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
                    errors, attack = (result.clean.error, result.robust.error), result.evaluation.shown_attack
                    return RunStatus(run, evaluation, "done", "", *errors, attack)
            except DamagedError as error:
                damage = str(error)
        job = self.jobs.get(task_name(run, evaluation)) or self.jobs.get(run)
        status = folder.status()
        state, detail = self._state(run, status, base, states, job, launched)
        if damage and state == "not begun":
            state, detail = "damaged", damage
        log = self._log(run, evaluation)
        return RunStatus(run, evaluation, state, detail, job=job.id if job else None, log=str(log) if log else None)

    def _log(self, run: str, evaluation: str | None) -> Path | None:
        """Return the log of the newest job of a run, or of a local process; None if there is no log."""
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
        """Return state and detail of a run that is not done."""
        recorded = status.get("state")
        if job is not None and not job.never_starts:
            if job.is_pending:
                return "queued", "; ".join(filter(None, (_reason(job), _goes_on(status))))
            if job.state == "COMPLETING":
                return "ending", ""
            stage = status.get("stage") if status.get("slurm_job") == job.id and recorded == "running" else None
            return str(stage or "starting"), _progress(status) if stage else ""
        if recorded == "running" and self.store.is_locked(run):
            return str(status.get("stage")), _progress(status)
        if launched and recorded in (None, "done", "interrupted"):
            return "waiting", ""
        if recorded == "running":
            return "failed", f"it was killed while {status.get('stage')}: {_progress(status) or 'at the start'}"
        if recorded in ("failed", "interrupted"):
            return str(recorded), str(status.get("error", ""))
        if base is not None and states.get(base) in ("failed", "blocked"):
            return "blocked", f"its base {base} failed"
        return "not begun", "trained, not evaluated" if recorded == "done" else ""


def reached(store: Store) -> StoreStatus:
    """Return the state of the store and the queue. If SLURM does not answer, a line says so, and the queue is empty."""
    try:
        return StoreStatus(store)
    except InputError as error:
        notice(f"bnft: SLURM does not answer, so these states come from the store alone ({error})")
        return StoreStatus(store, jobs=())


def failure_of(status: RunStatus) -> Failure | None:
    """Return the failure of a run that is not queued or running any more; None if it is done."""
    if status.state == "done":
        return None
    message = status.detail or f"{status.state}: its job has left the queue"
    return Failure(
        message,
        log=Path(status.log) if status.log else None,
        stopped=status.state in ("interrupted", "not begun"),
        blocked=status.state == "blocked",
    )


def _reason(job: Job) -> str:
    words = {"Dependency": "waits for its base", "BeginTime": "starts again soon", "None": ""}
    return words.get(job.reason, job.reason)


def _progress(status: Mapping[str, Any]) -> str:
    """Return the progress of a run in words; "" if it is not known."""
    if status.get("stage") == "training" and "epochs" in status:
        left = f", {duration(status['seconds_left'])} left" if "seconds_left" in status else ""
        return f"epoch {min(status['epoch'] + 1, status['epochs'])} of {status['epochs']}{left}"
    if "attack" in status:
        return f"{status['attack']}, {status['standing']} of {status['images']} images are robust so far"
    return ""


def _goes_on(status: Mapping[str, Any]) -> str:
    return f"continues from {_progress(status)}" if _progress(status) else ""


def cancel(view: StoreStatus, sweep: str) -> str:
    """End what was launched or submitted for a sweep. Its runs save their state.

    Args:
        view: the state of the store and the queue.
        sweep: the name of the sweep.

    Returns:
        A message about what was ended and what continues.

    Raises:
        InputError: if the sweep was launched on another machine.
    """
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
    shared = f"; some of its runs continue as jobs of {', '.join(others)}; cancel them by that name" if others else ""
    return (", ".join(ended) or "none of its own jobs is queued or running") + shared
