"""Runs side by side on this machine: one process a slot, bases first, each run's trouble its own.

A slot is a GPU where there are any, else a share of the CPU's threads. A process that dies takes down the run that it
was at and is replaced; runs that start from one that failed are blocked.
"""

import multiprocessing
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from bnft.devices import available_threads
from bnft.errors import InputError
from bnft.plan import Plan, Run
from bnft.progress import Reporter


class RunFailedError(Exception):
    """A run failed in its own process; `details` is its traceback, empty for what a person can put right."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: its environment and its CPU threads."""

    environment: Mapping[str, str]
    threads: int


def slots(workers: int | None, gpus: Sequence[str], runs: int) -> list[Slot]:
    """One slot a GPU; without GPUs `workers` slots, by default as many as there are CPUs, but no more than runs."""
    cpus = available_threads()
    if gpus:
        threads = max(1, cpus // len(gpus))
        return [Slot({"CUDA_VISIBLE_DEVICES": gpu}, threads) for gpu in gpus][:runs]
    count = max(1, min(workers or cpus, runs))
    return [Slot({}, max(1, cpus // count))] * count


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]


@dataclass
class _Worker:
    """A process and what it is at."""

    slot: Slot
    process: Any
    connection: Connection
    run: Run | None = None


@dataclass
class Pool:
    """Carries out a plan on some slots; `outcomes` maps a run's name to None or to what went wrong."""

    planned: Plan
    slots: Sequence[Slot]
    reporter: Reporter
    outcomes: dict[str, RunFailedError | None] = field(default_factory=dict)

    def run(self) -> dict[str, RunFailedError | None]:
        """Carry out everything, bases before what starts from them. Workers end with this call, however it ends."""
        waiting = self._in_order()
        context = multiprocessing.get_context("spawn")
        workers: list[_Worker] = []
        try:
            workers += [self._start(context, slot) for slot in self.slots]
            while waiting or any(worker.run for worker in workers):
                waiting = self._assign(waiting, workers)
                self._listen(context, workers)
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.process.join()
        return self.outcomes

    def _in_order(self) -> list[tuple[Run, bool]]:
        """Every run and whether it is evaluated: first what others start from, then the longest."""
        tasks = [(run, False) for run in self.planned.bases] + [(run, True) for run in self.planned.runs]
        needed = {run.base_name for run, _ in tasks}
        return sorted(tasks, key=lambda task: (task[0].name not in needed, -_cost(task[0])))

    def _assign(self, waiting: list[tuple[Run, bool]], workers: Sequence[_Worker]) -> list[tuple[Run, bool]]:
        """Give every idle worker a run that can start; returns what is left."""
        left = []
        tasks = self._unblocked(waiting)
        for run, evaluated in tasks:
            idle = next((worker for worker in workers if worker.run is None), None)
            busy = {worker.run.name for worker in workers if worker.run}
            ready = run.base_name is None or run.base_name in self.outcomes
            if idle is None or not ready or run.name in busy:
                left.append((run, evaluated))
                continue
            threads = run.config["threads"] or idle.slot.threads
            idle.connection.send(
                (replace(run, config={**run.config, "threads": threads}), self.planned.store, evaluated)
            )
            idle.run = run
        return left

    def _unblocked(self, waiting: list[tuple[Run, bool]]) -> list[tuple[Run, bool]]:
        """`waiting` without the runs whose base failed, which are written down as blocked."""
        kept = []
        for run, evaluated in waiting:
            if run.base_name is not None and self.outcomes.get(run.base_name) is not None:
                blocked = RunFailedError(f"blocked: its base {run.base_name} failed")
                self.outcomes[run.name] = blocked
                self.reporter.ends(run.name, str(blocked))
            else:
                kept.append((run, evaluated))
        return kept

    def _listen(self, context: Any, workers: list[_Worker]) -> None:
        """Wait for news of the workers that are at something, and take it in."""
        busy = {worker.connection: worker for worker in workers if worker.run}
        for connection in wait(list(busy)) if busy else []:
            worker = busy[connection]  # type: ignore[index]
            assert worker.run is not None
            try:
                what, *arguments = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                self._end(worker.run, RunFailedError(f"its process ended with code {worker.process.exitcode}"))
                workers[workers.index(worker)] = self._start(context, worker.slot)
                continue
            if what == "end":
                self._end(worker.run, arguments[0])
                worker.run = None
            else:
                getattr(self.reporter, what)(*arguments)

    def _end(self, run: Run, failure: RunFailedError | None) -> None:
        self.outcomes[run.name] = self.outcomes.get(run.name) or failure
        if failure is not None:
            self.reporter.ends(run.name, f"failed: {failure}")

    def _start(self, context: Any, slot: Slot) -> _Worker:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, slot), daemon=True)
        process.start()
        theirs.close()
        return _Worker(slot, process, ours)


def _cost(run: Run) -> float:
    """A guess at a run's length, good enough to begin with the longest."""
    attack, schedule = run.config["attack"], run.config["schedule"]
    passes = 1 + (attack.get("iterations", 10) if attack else 0)
    return float(schedule["epochs"] * passes)


class _Wire:
    """A reporter that sends what it is told to the parent process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begins(self, run: str, stage: str, detail: str) -> None:
        self._connection.send(("begins", run, stage, detail))

    def moves(self, run: str, text: str) -> None:
        self._connection.send(("moves", run, text))

    def ends(self, run: str, text: str) -> None:
        self._connection.send(("ends", run, text))


def _serve(connection: Connection, slot: Slot) -> None:
    """A worker: carry out the runs that are sent, until the parent is gone. Stays warm between runs."""
    os.environ.update(slot.environment)
    from bnft.run import execute  # here, with the environment set; PyTorch and its start are shared by all its runs

    try:
        while True:
            run, store, evaluated = connection.recv()
            failure = None
            try:
                execute(run, store, _Wire(connection), evaluated)
            except InputError as error:
                failure = RunFailedError(str(error))
            except Exception as error:  # whatever it is, it is this run's alone; the parent shows it
                failure = RunFailedError(f"{type(error).__name__}: {error}", traceback.format_exc())
            connection.send(("end", failure))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
