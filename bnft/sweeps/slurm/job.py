"""What a job does: `python -m bnft job STORE TASKS` carries out the task with the job's index in the array.

A job that is told of its time limit, or to end, saves its run's state. At its time limit it has itself requeued, and
goes on from there under the same number.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bnft.common.stopping import Requests, Stopped

if TYPE_CHECKING:
    from bnft.runs.store import Store
    from bnft.sweeps.backend import Track

END_SECONDS = 120.0  # in which SLURM ends a job that has had itself requeued
LOOK_SECONDS = 1.0
TIME_LIMIT = signal.SIGUSR2  # told by `sbatch --signal`


def job(store: Path, tasks: Path, track: "Track") -> int:
    """Carry out this job's task of a file of tasks; returns its exit code.

    That is 0 only if the task is done, since other jobs wait for that.
    """
    with Requests(TIME_LIMIT, signal.SIGTERM, signal.SIGINT) as requests:
        return _carry_out(store, tasks, int(os.environ["SLURM_ARRAY_TASK_ID"]), requests, track)


def _carry_out(root: Path, tasks: Path, index: int, requests: Requests, track: "Track") -> int:
    from bnft.common.errors import InputError  # here and below, since PyTorch takes seconds to load: signals come first
    from bnft.runs.execution import execute
    from bnft.runs.store import Store
    from bnft.sweeps.slurm.submission import task_at
    from bnft.sweeps.tasks import is_done
    from bnft.sweeps.terminal import Terminal

    store = Store(root)
    try:
        task = task_at(tasks, index)
        folder = store.run(task.run.name)
        before = folder.progress_made()
        terminal = Terminal()
        expected = {} if is_done(task, store) else {task.run.name: [task.run.evaluation_id] * task.evaluated}
        tracking = track(
            store, expected, task.run.config["wandb"], terminal, *_sweep_of(store, tasks), stopped_seconds=0.0
        )
        try:
            with tracking:
                execute(task.run, store, terminal, task.evaluated, requests.pulse)
        except Stopped as stop:
            print(stop, flush=True)
            if requests.received != TIME_LIMIT:
                return 128 + int(requests.received or 0)
            if folder.progress_made() == before and not store.is_locked(task.run.name):  # else it waited for another
                message = "no progress within the job's time limit; give it more with hydra.launcher.time"
                folder.end_status("failed", message)
                raise InputError(message) from None
            return _requeue(requests)
    except InputError as error:
        print(f"bnft: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def _sweep_of(store: "Store", tasks: Path) -> tuple[str, str | None]:
    """The sweep that a file of tasks was submitted for, and the commit of its code."""
    from bnft.common.errors import InputError

    name = tasks.parent.name
    try:
        return name, store.sweep(name)["commit"]
    except InputError:
        return name, None


def _requeue(requests: Requests) -> int:
    """Have SLURM start this job again, and wait for the signal with which it ends the job before that."""
    from bnft.sweeps.slurm import cluster

    while requests.received == TIME_LIMIT:
        try:
            cluster.requeue(os.environ["SLURM_JOB_ID"])
            break
        except cluster.UnreachableError as error:  # until the time limit, there is nothing better to do
            print(error, flush=True)
            time.sleep(LOOK_SECONDS)
    end = time.monotonic() + END_SECONDS
    while requests.received == TIME_LIMIT and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    return 1
