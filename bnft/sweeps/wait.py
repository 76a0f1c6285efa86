"""Looking at sweeps until nothing more happens to them."""

import time
from collections.abc import Sequence

from bnft.runs.store import Store
from bnft.sweeps.slurm.cluster import UnreachableError
from bnft.sweeps.status import SETTLED, Standing, View
from bnft.sweeps.terminal import Terminal

LOOK_SECONDS = 1.0  # between two looks, at least
LOOK_SHARE = 10  # and this many times what a look takes


def watch(store: Store, sweeps: Sequence[str], terminal: Terminal | None = None) -> list[Standing]:
    """Return where the runs of `sweeps` stand once nobody works on them any more, nor will.

    `terminal` shows them meanwhile. A controller of SLURM that does not answer is asked again. What is not done must
    be so twice in a row, since a job that is requeued leaves the queue for a moment.
    """
    before: list[Standing] = []
    while True:
        began = time.monotonic()
        try:
            view = View(store)
            found = view.standings(sweeps)
        except UnreachableError:
            time.sleep(LOOK_SHARE * LOOK_SECONDS)
            continue
        if terminal is not None:
            for standing in found:
                terminal.shows(standing.line())
        settled = all(standing.state in SETTLED for standing in found)
        settled = settled and not any(store.is_locked(f"sweep-{sweep}") for sweep in sweeps)
        if settled and (found == before or all(standing.state == "done" for standing in found)):
            return found
        before = found
        time.sleep(max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - began)))
