"""Looking at sweeps until nothing more happens to them."""

import time
from collections.abc import Sequence

from bnft.runs.store import Store
from bnft.sweeps.slurm.cluster import UnreachableError
from bnft.sweeps.status import SETTLED, RunStatus, StoreStatus
from bnft.sweeps.terminal import Terminal

LOOK_SECONDS = 1.0  # between two looks, at least
LOOK_SHARE = 10  # and this many times what a look takes


def look(store: Store) -> StoreStatus:
    """The store and the queue as they are. A controller of SLURM that does not answer is asked again."""
    while True:
        try:
            return StoreStatus(store)
        except UnreachableError:
            time.sleep(LOOK_SHARE * LOOK_SECONDS)


def watch(store: Store, sweeps: Sequence[str], terminal: Terminal | None = None) -> list[RunStatus]:
    """Return where the runs of `sweeps` stand once nobody works on them any more, nor will.

    `terminal` shows them meanwhile. What is not done must be so twice in a row, since a job that is requeued leaves
    the queue for a moment.
    """
    before: list[RunStatus] = []
    while True:
        view = look(store)
        found = view.statuses(sweeps)
        if terminal is not None:
            for standing in found:
                terminal.shows(standing.line())
        settled = all(standing.state in SETTLED for standing in found)
        settled = settled and not any(map(view.is_launched, sweeps))
        if settled and (found == before or all(standing.state == "done" for standing in found)):
            return found
        before = found
        time.sleep(max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - view.began)))
