"""A pool of processes that carry out runs on this machine. Bases come first.

Each process works in a slot: a GPU or a share of one, or a share of the CPU's threads. If a process dies or hangs, its
run fails, and another process replaces it. Runs that start from a failed run are blocked. All other runs continue.
"""

import heapq
import math
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

from bnft.common.compat import start_forkserver
from bnft.common.devices import available_threads
from bnft.common.errors import Failure, InputError, OutOfTimeError
from bnft.common.processes import importing_alike, without_main
from bnft.common.stopping import STOP_SIGNALS, Requests, ignored
from bnft.runs.reporter import Reporter
from bnft.runs.store import Store
from bnft.sweeps.tasks import Task
from bnft.sweeps.worker import BUSY, DUMP_SIGNAL, is_safe_after, serve

Outcomes = dict[str, Failure | None]
"""The failure of each task, by the name of the task; None if the task is done."""

STOP_SECONDS = 8.0  # time for runs to save their state before they are killed
RETRY_SECONDS = 1.0  # until a run that another process works on is tried again
TICK_SECONDS = 0.25
PAUSE_SECONDS = 5.0  # after a longer time between ticks, this process was suspended
DUMP_SECONDS = 0.5  # time for a hung process to write its stacks to the log
PRELOADED: tuple[str, ...] = ("bnft.runs.execution",)


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: its environment and its CPU threads."""

    environment: Mapping[str, str]
    threads: int


def slots(tasks: int, gpus: Sequence[str], runs_per_gpu: int = 1, workers: int | None = None) -> list[Slot]:
    """Return the slots of a pool, at most one per task.

    Args:
        tasks: the number of tasks.
        gpus: the GPUs, named as in CUDA_VISIBLE_DEVICES.
        runs_per_gpu: slots per GPU.
        workers: slots without a GPU. The default is one per CPU.
    """
    cpus = available_threads()
    if gpus:
        places = [{"CUDA_VISIBLE_DEVICES": gpu} for _ in range(runs_per_gpu) for gpu in gpus]
        threads = max(1, cpus // len(places))
        return [Slot(place, threads) for place in places][:tasks]
    count = max(1, min(workers or cpus, tasks))
    return [Slot({}, max(1, cpus // count))] * count


def visible_gpus() -> list[str]:
    """Return the GPUs that this process can use, named as in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]


def context() -> Any:
    """Return how worker processes are started: by a server that has imported PyTorch, so that it takes milliseconds."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(list(PRELOADED))
    return forkserver


def warm_up() -> None:
    """Start the server, which imports PyTorch while this process does something else."""
    context()
    if sys.platform.startswith("linux"):
        with without_main(), importing_alike(), ignored(*STOP_SIGNALS):
            # The server ignores these signals, because this process handles the signals of a terminal.
            start_forkserver()


@dataclass(eq=False)
class _WorkerProcess:
    """A worker process and its current task."""

    slot: Slot
    process: Any
    connection: Connection
    task: Task | None = None
    heard: float = 0.0

    @property
    def last_words(self) -> str:
        """A message about how the process ended."""
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"its process ended with code {code}"
        hint = {signal.SIGKILL: ", which happens when memory runs out"}.get(-code, "")
        return f"its process was ended by {signal.Signals(-code).name}{hint}"


class Pool:
    """A pool of processes that carry out tasks.

    Args:
        tasks: the tasks that are not done; see `tasks.undone`. Previews are not part of the outcomes.
        places: the slots. Each has one process.
        store: the store.
        reporter: shows the progress.
        fail_fast: whether the first failure stops all other tasks.
        hang_seconds: a process that gives no sign of life for so long is killed.
        until: when all runs save their state, on the clock of `time.monotonic`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        places: Sequence[Slot],
        store: Store,
        reporter: Reporter,
        fail_fast: bool = False,
        hang_seconds: float = math.inf,
        until: float = math.inf,
    ) -> None:
        self._tasks, self._slots, self._store, self._reporter = tasks, places, store, reporter
        self._fail_fast, self._hang_seconds, self._until = fail_fast, hang_seconds, until
        self._context = context()
        self._workers: list[_WorkerProcess] = []
        self._ready: list[tuple[int, str]] = []  # a heap of tasks that can start, by their order
        self._later: list[tuple[float, int, str]] = []  # a heap of tasks to try again, by time
        self._waiting: defaultdict[str, list[str]] = defaultdict(list)  # for each task, the tasks that need it
        self._by_name = {task.name: task for task in tasks}
        self._order = {task.name: place for place, task in enumerate(tasks)}
        self._ticked = time.monotonic()
        self._killed_at: float | None = None  # after a request to stop, the time when processes are killed
        self.outcomes: Outcomes = {}

    def run(self) -> Outcomes:
        """Carry out all tasks. All worker processes end with this call, even if it raises an error.

        On SIGINT, SIGTERM or SIGHUP, all runs save their state within ten seconds, and KeyboardInterrupt is raised. A
        second SIGINT raises it at once.

        Raises:
            OutOfTimeError: if tasks are left when the time is over. All runs have saved their state.
        """
        for task in self._tasks:
            if task.needs in self._by_name:
                self._waiting[str(task.needs)].append(task.name)
            else:
                heapq.heappush(self._ready, (self._order[task.name], task.name))
        with Requests(*STOP_SIGNALS, until=self._until) as requests:
            try:
                self._workers = [self._start(slot) for slot in self._slots]
                while self._goes_on():
                    if requests.made or self._has_failed_fast():
                        self._stop()
                    self._hand_out()
                    self._listen()
                    self._bury_hung()
            finally:
                self._end_workers()
        if requests.received:
            raise KeyboardInterrupt
        failed = self._fail_fast and any(failure and not failure.stopped for failure in self.outcomes.values())
        why = "hydra.launcher.fail_fast is set, and another run failed" if failed else "hydra.launcher.minutes is over"
        for name in self._by_name.keys() - self.outcomes.keys():
            self.outcomes[name] = Failure(f"not begun: {why}", stopped=True)
        outcomes = {name: failure for name, failure in self.outcomes.items() if not self._by_name[name].previewed}
        if not failed and any(failure is not None and failure.stopped for failure in outcomes.values()):
            raise OutOfTimeError(outcomes)
        return outcomes

    # handing out

    def _goes_on(self) -> bool:
        busy = any(worker.task for worker in self._workers)
        if self._killed_at is not None:
            return busy and time.monotonic() < self._killed_at
        return busy or bool(self._ready or self._later)

    def _hand_out(self) -> None:
        """Give every idle worker a task that can start. Two evaluations of one run never work at the same time."""
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

    # messages

    def _listen(self) -> None:
        """Wait a moment for messages of the workers, and handle them."""
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
        """Record the outcome of a task. The tasks that need it can then start, or are blocked.

        If a preview fails, its run has failed.
        """
        self.outcomes[task.name] = failure
        followers = self._waiting.pop(task.name, [])
        if failure is None:
            for name in followers:
                heapq.heappush(self._ready, (self._order[name], name))
            return
        if task.previewed and followers:
            for name in followers:
                self._end(self._by_name[name], failure)
            return
        self._reporter.ends(task.run.name, failure.state, f"{failure.state}: {failure}")
        message = "not begun" if failure.stopped else f"its base {task.run.name} failed"
        blocked = Failure(message, stopped=failure.stopped, blocked=True)
        for name in followers:
            self._end(self._by_name[name], blocked)

    # failures

    def _bury(self, worker: _WorkerProcess, why: str = "") -> None:
        """Handle the end of a process. Its run, if it had one, failed. Another process replaces it."""
        worker.process.join()
        if worker.task is not None:
            task, message = worker.task, why or worker.last_words
            self._write_down(task, "failed", message)
            self._end(task, Failure(message, log=self._store.kept_log(task.run.name)))
        self._replace(worker)

    def _write_down(self, task: Task, state: str, message: str) -> None:
        """Write the status of a run for a process that has ended, unless another process works on the run."""
        with suppress(InputError):
            if not self._store.is_locked(task.run.name):
                self._store.run(task.run.name).end_status(state, message)

    def _bury_hung(self) -> None:
        """Kill processes that have given no sign of life for too long. Their stacks are written to their logs."""
        now = time.monotonic()
        if now - self._ticked > PAUSE_SECONDS:  # all processes were suspended, for example by Ctrl-Z and fg
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
        worker.process.kill()  # an unsafe process has sent its last message, but might not end by itself
        self._workers[self._workers.index(worker)] = self._start(worker.slot)

    def _has_failed_fast(self) -> bool:
        return self._fail_fast and any(failure is not None for failure in self.outcomes.values())

    def _stop(self) -> None:
        """Ask all workers to save their state and end. No other task is started."""
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
            worker.process.kill()  # safe at any moment, because files are written atomically
        for worker in self._workers:
            worker.process.join()
            if worker.task is not None:
                message = "killed before it could save its state; it continues from its last checkpoint"
                self._write_down(worker.task, "interrupted", message)
                self.outcomes[worker.task.name] = Failure(message, stopped=True)
