"""Submit a sweep to the cluster, and follow it."""

from bnft.common.console import notice
from bnft.common.stopping import steady
from bnft.runs.plan import Plan
from bnft.runs.store import task_name
from bnft.sweeps.pool import Outcomes
from bnft.sweeps.slurm import cluster
from bnft.sweeps.slurm.arrays import arrays
from bnft.sweeps.slurm.submission import Request, Submission
from bnft.sweeps.status import StoreStatus, failure_of
from bnft.sweeps.tasks import tasks, undone
from bnft.sweeps.terminal import Terminal
from bnft.sweeps.wait import watch


def submit(planned: Plan, sweep: str, request: Request) -> None:
    """Submit the tasks that are not done, queued or running, and print their number. Other sweeps wait meanwhile."""
    store = planned.store
    with store.locked("submission", lambda: notice("waiting: another sweep is being submitted"), steady):
        everything = tasks(planned)
        todo = undone(everything, store)
        under_way = {name: job.id for name, job in StoreStatus(store).jobs.items() if not job.never_starts}
        new = arrays(todo, under_way, cluster.max_array_size())
        Submission(store, sweep, request).submit(new)
    count = sum(len(array.tasks) for array in new)
    counts = ((len(everything) - len(todo), "done already"), (len(todo) - count, "queued or running already"))
    others = ", ".join(f"{number} {state}" for number, state in counts if number)
    notice(f"submitted {count} of {len(everything)} tasks in {len(new)} job arrays{f' ({others})' if others else ''}")


def follow(planned: Plan, sweep: str) -> Outcomes:
    """Show a sweep until its end, and return its outcomes. If this is interrupted, the jobs continue."""
    try:
        with Terminal() as terminal:
            statuses = watch(planned.store, [sweep], terminal)
    except KeyboardInterrupt:
        notice(
            f"the jobs continue; `bnft wait {sweep}` waits for them, `bnft cancel {sweep}` cancels those of this sweep"
        )
        raise SystemExit(130) from None
    return {task_name(status.run, status.evaluation): failure_of(status) for status in statuses}
