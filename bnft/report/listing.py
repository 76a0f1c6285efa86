"""`bnft list`: the sweeps of a store, newest first. Results are not read, so that it is fast in a large store."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from bnft.common.console import show_columns
from bnft.common.errors import InputError
from bnft.report.costs import as_typed
from bnft.runs.store import Store
from bnft.sweeps.status import StoreStatus, reached

HEADER = ("sweep", "age", "state", "runs", "of", "seeds", "command")
SHOWN_POLICIES = 4
_FILE = re.compile(r"\+?(?:sweep|study)=([\w.,-]+)")
_AGES = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class ListedSweep:
    """A sweep of the store.

    Attributes:
        name: its name.
        time: when it was recorded; "" in records of old versions.
        state: `done`, `running`, `failed` or `interrupted`; see `StoreStatus.state`.
        runs: the number of its runs.
        done: the number of those that have a result.
        study: the file of rows that it asked for, such as `table2`; None if it named policies.
        policies: its policies.
        seeds: its seeds; None if they are not known.
        command: its command line.
        commit: the git commit of the code, if known.
    """

    name: str
    time: str
    state: str
    runs: int
    done: int
    study: str | None
    policies: list[str]
    seeds: list[int] | None
    command: str
    commit: str | None

    def cells(self, now: datetime) -> tuple[str, ...]:
        runs = str(self.runs) if self.done == self.runs else f"{self.done} of {self.runs}"
        shown = ",".join(self.policies[:SHOWN_POLICIES])
        hidden = len(self.policies) - SHOWN_POLICIES
        what = self.study or (f"{shown} and {hidden} more" if hidden > 0 else shown)
        seeds = "?" if self.seeds is None else _range(self.seeds)
        return self.name, age(self.time, now), self.state, runs, what, seeds, self.command


def listed(store: Store) -> list[ListedSweep]:
    """Return the sweeps of a store, newest first. SLURM is only asked if a sweep of jobs is not done."""
    view = StoreStatus(store, jobs=())
    not_done = {name: len(view.not_done(name)) for name in view.sweeps}
    if any(view.sweeps[name].get("arrays") for name, count in not_done.items() if count):
        view = reached(store)
    if not view.sweeps:
        raise InputError(f"store={store.root}: must be a folder with sweeps; this one has none")
    return [
        _listed(name, sweep, "done" if not not_done.get(name) else view.state(name), not_done.get(name, 0))
        for name, sweep in reversed(view.sweeps.items())
    ]


def show(sweeps: Sequence[ListedSweep]) -> None:
    """Print the sweeps, one per line."""
    now = datetime.now(UTC)
    show_columns(HEADER, [sweep.cells(now) for sweep in sweeps], right=("age", "runs"))


def fields(sweeps: Sequence[ListedSweep]) -> list[dict[str, Any]]:
    """Return the sweeps as plain data."""
    return [asdict(sweep) for sweep in sweeps]


def age(time: str, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit: `3 h`, `2 d`. Return "" if the time is not known."""
    try:
        seconds = max(0.0, (now - datetime.fromisoformat(time)).total_seconds())
    except (ValueError, TypeError):
        return ""
    unit, size = next((pair for pair in _AGES if seconds >= pair[1]), _AGES[-1])
    return f"{seconds // size:.0f} {unit}"


def _listed(name: str, sweep: Mapping[str, Any], state: str, not_done: int) -> ListedSweep:
    runs, command = sweep["runs"], str(sweep["command"])
    policies = dict.fromkeys(str(entry["run"]).rpartition("-")[0] for entry in runs)
    words = _words(command)
    named = next((found[1] for word in words if (found := _FILE.fullmatch(word))), None)
    return ListedSweep(
        name=name,
        time=str(sweep.get("time", "")),
        state=state,
        runs=len(runs),
        done=len(runs) - not_done,
        study=(sweep.get("study") or {}).get("name") or named,
        policies=list(policies),
        seeds=sweep.get("seeds", _seeds(words)),
        command=as_typed(command),
        commit=sweep.get("commit"),
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # old records have no quotes
        return command.split()


def _seeds(words: Sequence[str]) -> list[int] | None:
    """Return the seeds that a command line names, for records of versions that did not keep them."""
    value = next((word.partition("=")[2] for word in reversed(words) if word.startswith("seed=")), "0")
    return [int(seed) for seed in value.split(",")] if re.fullmatch(r"\d+(,\d+)*", value) else None


def _range(seeds: Sequence[int]) -> str:
    """Return seeds in words: `0,1`, or `0-9` for more than two without a gap."""
    if len(seeds) > 2 and list(seeds) == [*range(seeds[0], seeds[-1] + 1)]:
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))
