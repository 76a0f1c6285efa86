"""A job: `python -m bnft job STORE TASKS` carries out the task with the job's index in the array.

Before its time limit, and when it is ended, a job saves the state of its run. Before its time limit it also requeues
itself, and later continues under the same number.
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

END_SECONDS = 120.0  # time for SLURM to end a requeued job
LOOK_SECONDS = 1.0
TIME_LIMIT = signal.SIGUSR2  # sent before the time limit, by `sbatch --signal`


def job(store: Path, tasks: Path, track: "Track") -> int:
    """Carry out this job's task.

    Args:
        store: the folder of the store.
        tasks: the file with the tasks of the array.
        track: tracks the run.

    Returns:
        The exit code. It is 0 only if the task is done, because other jobs wait for this.
    """
    with Requests(TIME_LIMIT, signal.SIGTERM, signal.SIGINT) as requests:
        return _carry_out(store, tasks, int(os.environ["SLURM_ARRAY_TASK_ID"]), requests, track)


def _carry_out(root: Path, tasks: Path, index: int, requests: Requests, track: "Track") -> int:
    from bnft.common.errors import InputError  # here and below: signals must be handled before PyTorch is imported
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
            if folder.progress_made() == before and not store.is_locked(task.run.name):  # else it waited for a lock
                message = "no progress within the job's time limit; give it more with hydra.launcher.time"
                folder.end_status("failed", message)
                raise InputError(message) from None
            return _requeue(requests)
    except InputError as error:
        print(f"bnft: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def _sweep_of(store: "Store", tasks: Path) -> tuple[str, str | None]:
    """Return the sweep that a file of tasks belongs to, and the commit of its code."""
    from bnft.common.errors import InputError

    name = tasks.parent.name
    try:
        return name, store.sweep(name)["commit"]
    except InputError:
        return name, None


def _requeue(requests: Requests) -> int:
    """Requeue this job, and wait for the signal with which SLURM ends it."""
    from bnft.sweeps.slurm import cluster

    while requests.received == TIME_LIMIT:
        try:
            cluster.requeue(os.environ["SLURM_JOB_ID"])
            break
        except cluster.UnreachableError as error:  # try again until the time limit
            print(error, flush=True)
            time.sleep(LOOK_SECONDS)
    end = time.monotonic() + END_SECONDS
    while requests.received == TIME_LIMIT and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    return 1
