"""Runs side by side on this machine: one process a slot, what others wait for first, each run's trouble its own.

A slot is a GPU or a share of one, else a share of the CPU's threads. A process that dies or hangs takes down the run
that it was at, and is replaced; runs that start from one that failed are blocked.
"""

import heapq
import multiprocessing
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from bnft.common.compat import LOADED_LATE, start_forkserver
from bnft.common.devices import available_threads
from bnft.common.errors import Failure, InputError
from bnft.common.processes import importing_alike, without_main
from bnft.common.stopping import STOP_SIGNALS, Requests, ignored
from bnft.runs.reporter import Reporter
from bnft.runs.store import Store
from bnft.sweeps.tasks import Task
from bnft.sweeps.worker import BUSY, DUMP_SIGNAL, is_safe_after, serve

Outcomes = dict[str, Failure | None]
"""What became of each task, by its name: None if it is done."""

STOP_SECONDS = 8.0  # how long runs get to save their state before they are killed
RETRY_SECONDS = 1.0  # after which a run that another process works on is tried again
TICK_SECONDS = 0.25
PAUSE_SECONDS = 5.0  # a tick that took longer was no tick
DUMP_SECONDS = 0.5  # for a hung process to write down where it is
PRELOADED = ("bnft.runs.execution", "sklearn.datasets", *LOADED_LATE)


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: its environment and its CPU threads."""

    environment: Mapping[str, str]
    threads: int


def slots(tasks: int, gpus: Sequence[str], runs_per_gpu: int = 1, workers: int | None = None) -> list[Slot]:
    """`runs_per_gpu` slots a GPU; without GPUs `workers`, by default one a CPU; no more than there are tasks."""
    cpus = available_threads()
    if gpus:
        places = [{"CUDA_VISIBLE_DEVICES": gpu} for _ in range(runs_per_gpu) for gpu in gpus]
        threads = max(1, cpus // len(places))
        return [Slot(place, threads) for place in places][:tasks]
    count = max(1, min(workers or cpus, tasks))
    return [Slot({}, max(1, cpus // count))] * count


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]


def context() -> Any:
    """How worker processes start: forked from a server that has PyTorch loaded, so that one costs milliseconds."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    return found


def warm_up() -> None:
    """Let the server load PyTorch while this process does something else."""
    context()
    if sys.platform.startswith("linux"):
        with without_main(), importing_alike(), ignored(*STOP_SIGNALS):
            # the server inherits that signals are ignored: what goes to all of a terminal is for us to handle
            start_forkserver()


@dataclass(eq=False)
class _WorkerProcess:
    """A process and what it is at."""

    slot: Slot
    process: Any
    connection: Connection
    task: Task | None = None
    heard: float = 0.0

    @property
    def last_words(self) -> str:
        """How the process ended, in words."""
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"its process ended with code {code}"
        hint = {signal.SIGKILL: ", as when memory runs out"}.get(-code, "")
        return f"its process was ended by {signal.Signals(-code).name}{hint}"


class Pool:
    """Carries out tasks on slots; see `tasks.undone`. With `fail_fast`, the first failure stops the rest."""

    def __init__(
        self,
        tasks: Sequence[Task],
        places: Sequence[Slot],
        store: Store,
        reporter: Reporter,
        fail_fast: bool = False,
        hang_seconds: float = float("inf"),
    ) -> None:
        self._tasks, self._slots, self._store, self._reporter = tasks, places, store, reporter
        self._fail_fast, self._hang_seconds = fail_fast, hang_seconds
        self._context = context()
        self._workers: list[_WorkerProcess] = []
        self._ready: list[tuple[int, str]] = []  # a heap: the place in line, and the task
        self._later: list[tuple[float, int, str]] = []  # a heap, too: when to try again
        self._waiting: defaultdict[str, list[str]] = defaultdict(list)  # task to those that need it
        self._by_name = {task.name: task for task in tasks}
        self._order = {task.name: place for place, task in enumerate(tasks)}
        self._ticked = time.monotonic()
        self._killed_at: float | None = None  # set when stopping: when what still works is killed
        self.outcomes: Outcomes = {}

    def run(self) -> Outcomes:
        """Carry out everything. Workers end with this call, however it ends.

        SIGINT, SIGTERM and SIGHUP stop it within ten seconds, with the state of every run kept, and raise
        KeyboardInterrupt; a second SIGINT does so at once.
        """
        for task in self._tasks:
            if task.needs in self._by_name:
                self._waiting[str(task.needs)].append(task.name)
            else:
                heapq.heappush(self._ready, (self._order[task.name], task.name))
        with Requests(*STOP_SIGNALS) as requests:
            try:
                self._workers = [self._start(slot) for slot in self._slots]
                while self._goes_on():
                    if requests.received or self._has_failed_fast():
                        self._stop()
                    self._hand_out()
                    self._listen()
                    self._bury_hung()
            finally:
                self._end_workers()
        if requests.received:
            raise KeyboardInterrupt
        for name in self._by_name.keys() - self.outcomes.keys():
            self.outcomes[name] = Failure(
                "not begun: hydra.launcher.fail_fast is set, and another failed", stopped=True
            )
        return self.outcomes

    # handing out

    def _goes_on(self) -> bool:
        busy = any(worker.task for worker in self._workers)
        if self._killed_at is not None:
            return busy and time.monotonic() < self._killed_at
        return busy or bool(self._ready or self._later)

    def _hand_out(self) -> None:
        """Give every idle worker a task that can start; two evaluations of one run follow each other."""
        if self._killed_at is not None:
            return
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappush(self._ready, heapq.heappop(self._later)[1:])
        passed = []
        busy = {worker.task.run.name for worker in self._workers if worker.task}
        idle = [worker for worker in self._workers if worker.task is None]
        while idle and self._ready:
            entry = heapq.heappop(self._ready)
            task = self._by_name[entry[1]]
            if task.run.name in busy:
                passed.append(entry)
            else:
                busy.add(task.run.name)
                self._give(idle.pop(0), task)
        for entry in passed:
            heapq.heappush(self._ready, entry)

    def _give(self, worker: _WorkerProcess, task: Task) -> None:
        run = task.run
        threads = run.config["threads"] or worker.slot.threads
        worker.task, worker.heard = task, time.monotonic()
        task = replace(task, run=replace(run, config={**run.config, "threads": threads}))
        with suppress(ConnectionError):  # a process that died while idle is noticed by _listen
            worker.connection.send((task, self._store))

    # news

    def _listen(self) -> None:
        """Wait a moment for news of the workers, and take it in."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), TICK_SECONDS):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                what, *arguments = worker.connection.recv()
            except (EOFError, ConnectionError):
                self._bury(worker)
                continue
            worker.heard = time.monotonic()
            if what == "end":
                self._take(worker, arguments[0])
            elif what != "alive":
                getattr(self._reporter, what)(*arguments)

    def _take(self, worker: _WorkerProcess, outcome: Failure | str | None) -> None:
        task, worker.task = worker.task, None
        assert task is not None
        if outcome == BUSY:
            self._reporter.begins(task.run.name, "waiting", "another process works on it")
            heapq.heappush(self._later, (time.monotonic() + RETRY_SECONDS, self._order[task.name], task.name))
        else:
            assert not isinstance(outcome, str)
            self._end(task, outcome)
        if not is_safe_after(outcome):
            self._replace(worker)

    def _end(self, task: Task, failure: Failure | None) -> None:
        """Write down what became of a task: what needs it can start, or is blocked."""
        self.outcomes[task.name] = failure
        followers = self._waiting.pop(task.name, [])
        if failure is None:
            for name in followers:
                heapq.heappush(self._ready, (self._order[name], name))
            return
        self._reporter.ends(task.run.name, failure.state, f"{failure.state}: {failure}")
        message = "not begun" if failure.stopped else f"its base {task.run.name} failed"
        blocked = Failure(message, stopped=failure.stopped, blocked=True)
        for name in followers:
            self._end(self._by_name[name], blocked)

    # trouble

    def _bury(self, worker: _WorkerProcess, why: str = "") -> None:
        """A process is gone: its run failed, unless it had none, and another process takes its place."""
        worker.process.join()
        if worker.task is not None:
            task, message = worker.task, why or worker.last_words
            self._write_down(task, "failed", message)
            self._end(task, Failure(message, log=self._store.kept_log(task.run.name)))
        self._replace(worker)

    def _write_down(self, task: Task, state: str, message: str) -> None:
        """Into the run's status, for a process that cannot any more; unless another one has the run by now."""
        with suppress(InputError):
            if not self._store.is_locked(task.run.name):
                self._store.run(task.run.name).end_status(state, message)

    def _bury_hung(self) -> None:
        """Kill what has said nothing for too long; its log says where it was."""
        now = time.monotonic()
        if now - self._ticked > PAUSE_SECONDS:  # we were stopped and go on, as by Ctrl-Z and fg, and they with us
            for worker in self._workers:
                worker.heard = now
        self._ticked = now
        for worker in list(self._workers):
            if worker.task is not None and now - worker.heard > self._hang_seconds:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, DUMP_SIGNAL)
                time.sleep(DUMP_SECONDS)
                worker.process.kill()
                self._bury(worker, f"it hung: no sign of life for {self._hang_seconds / 60:g} minutes")

    def _replace(self, worker: _WorkerProcess) -> None:
        worker.connection.close()
        worker.process.kill()  # one that is unsafe has said its last, but might not come to its end
        self._workers[self._workers.index(worker)] = self._start(worker.slot)

    def _has_failed_fast(self) -> bool:
        return self._fail_fast and any(failure is not None for failure in self.outcomes.values())

    def _stop(self) -> None:
        """Ask everything at work to save its state and end; nothing new begins."""
        if self._killed_at is None:
            self._killed_at = time.monotonic() + STOP_SECONDS
            for worker in self._workers:
                with suppress(ConnectionError):
                    worker.connection.send(None)

    # processes

    def _start(self, slot: Slot) -> _WorkerProcess:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, slot.environment), daemon=True)
        with without_main():
            process.start()
        theirs.close()
        return _WorkerProcess(slot, process, ours)

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.process.kill()  # every file is whole or not there, at any moment
        for worker in self._workers:
            worker.process.join()
            if worker.task is not None:
                message = "killed before it could save its state; it goes on from the last that it saved"
                self._write_down(worker.task, "interrupted", message)
                self.outcomes[worker.task.name] = Failure(message, stopped=True)
