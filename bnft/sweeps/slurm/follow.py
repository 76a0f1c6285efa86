"""A sweep on the cluster, from the machine that submits it."""

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
    """Submit what is neither done nor under way, and say how much that is. Two sweeps do not do so at once."""
    store = planned.store
    with store.locked("submission", lambda: notice("waiting: another sweep is being submitted"), steady):
        everything = tasks(planned)
        todo = undone(everything, store)
        under_way = {name: job.id for name, job in StoreStatus(store).jobs.items() if not job.never_starts}
        new = arrays(todo, under_way, cluster.max_array_size())
        Submission(store, sweep, request).submit(new)
    count = sum(len(array.tasks) for array in new)
    kept = ((len(everything) - len(todo), "done already"), (len(todo) - count, "queued or running already"))
    said = ", ".join(f"{number} {state}" for number, state in kept if number)
    notice(f"submitted {count} of {len(everything)} tasks in {len(new)} job arrays{f' ({said})' if said else ''}")


def follow(planned: Plan, sweep: str) -> Outcomes:
    """Watch the sweep to its end. Interrupted, it goes on without us."""
    try:
        with Terminal() as terminal:
            found = watch(planned.store, [sweep], terminal)
    except KeyboardInterrupt:
        notice(f"the jobs go on; `bnft wait {sweep}` waits for them, `bnft cancel {sweep}` ends those submitted for it")
        raise SystemExit(130) from None
    return {task_name(standing.run, standing.evaluation): failure_of(standing) for standing in found}
