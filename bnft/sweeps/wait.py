"""Wait for sweeps."""

import time
from collections.abc import Sequence

from bnft.runs.store import Store
from bnft.sweeps.slurm.cluster import UnreachableError
from bnft.sweeps.status import SETTLED, RunStatus, StoreStatus
from bnft.sweeps.terminal import Terminal

LOOK_SECONDS = 1.0  # minimal time between two looks at the store and the queue
LOOK_SHARE = 10  # minimal time between two looks, as a multiple of the duration of a look


def look(store: Store) -> StoreStatus:
    """Return the state of the store and the queue. If SLURM's controller does not answer, it is asked again."""
    while True:
        try:
            return StoreStatus(store)
        except UnreachableError:
            time.sleep(LOOK_SHARE * LOOK_SECONDS)


def watch(store: Store, sweeps: Sequence[str], terminal: Terminal | None = None) -> list[RunStatus]:
    """Wait until no run of some sweeps is queued or running.

    If a run is not done, its state must be the same twice in a row, because a requeued job leaves the queue for a
    moment.

    Args:
        store: the store.
        sweeps: the names of the sweeps.
        terminal: shows the runs.

    Returns:
        The state of each run.
    """
    before: list[RunStatus] = []
    while True:
        view = look(store)
        statuses = view.statuses(sweeps)
        if terminal is not None:
            for status in statuses:
                terminal.shows(status.line())
        settled = all(status.state in SETTLED for status in statuses)
        settled = settled and not any(map(view.is_launched, sweeps))
        if settled and (statuses == before or all(status.state == "done" for status in statuses)):
            return statuses
        before = statuses
        time.sleep(max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - view.began)))
