"""Select the sweeps and runs of a command: those with the given names, or else the newest sweep."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from bnft.common.console import notice
from bnft.common.errors import DamagedError, InputError
from bnft.runs import layout
from bnft.runs.store import Store

ALL = "all"


@dataclass(frozen=True)
class Picked:
    """The selected sweeps and runs.

    Attributes:
        sweeps: the records of sweeps, by name.
        runs: the names of runs.
        everything: whether all runs of the store are selected.
    """

    sweeps: Mapping[str, Mapping[str, Any]]
    runs: Sequence[str]
    everything: bool = False


def pick(store: Store, names: Sequence[str] = ()) -> Picked:
    """Return the selected sweeps and runs.

    Args:
        store: the store.
        names: names of sweeps and runs, or `all`. The default is that of `default`.

    Raises:
        InputError: if a name is neither a sweep nor a run.
        DamagedError: if the record of a sweep is damaged.
    """
    names = names or default(store)
    if list(names) == [ALL]:
        return Picked({}, _all_runs(store), True)
    if ALL in names:
        raise InputError(f"{ALL}: must be given without other names")
    sweeps, runs = {}, []
    for name in names:
        if store.has_sweep(name):
            sweeps[name] = store.sweep(name)
        elif (store.run(name).path / layout.CONFIG).exists() or store.run(name).evaluations():
            runs.append(name)
        else:
            raise InputError(f"{name}: must be a sweep or a run in {store.root}, or {ALL}; {_known(store)}")
    return Picked(sweeps, runs)


@contextmanager
def meant(store: Store, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names that a command was given, or those of `default` if there are none.

    A default sweep is printed at the end of the block. It is not printed if the block raises an error, because an error
    is one line.
    """
    selected = list(names) or default(store)
    yield selected
    if not names and selected != [ALL]:
        tell(f"sweep {selected[0]} (the newest)")


def tell(what: str) -> None:
    """Print the selection of a command that was given no names."""
    notice(f"bnft: {what}")


def default(store: Store) -> list[str]:
    """Return the newest sweep, or `all` if there is none."""
    name = newest(store)
    return [ALL] if name is None else [name]


def newest(store: Store) -> str | None:
    """Return the sweep that was recorded last, apart from damaged ones; None if there is none."""
    return next((name for name, _ in _readable(store, reversed(store.sweeps()))), None)


def readable(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every sweep with its record, oldest first. A damaged sweep is left out, and a line reports it."""
    return _readable(store, store.sweeps())


def some_sweeps(store: Store, names: Sequence[str]) -> list[str]:
    """Return the names as a list. Raise InputError if one of them is not a sweep, or the store has no sweep."""
    if not names and newest(store) is None:
        raise InputError(f"store={store.root}: must be a folder with sweeps; this one has none")
    for name in names:
        store.sweep(name)
    return list(names)


def runs_of(sweep: Mapping[str, Any]) -> list[str]:
    """Return the runs of a sweep, after its bases."""
    return [entry["run"] for part in ("bases", "runs") for entry in sweep[part]]


def _readable(store: Store, names: Sequence[str] | Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        try:
            sweep = store.sweep(name)
        except DamagedError as error:
            _notice_once(f"bnft: left out: {error}")
        else:
            yield name, sweep


@cache
def _notice_once(line: str) -> None:
    """Print a line only once, even if its reason is met again, for example while a sweep is followed."""
    notice(line)


def _all_runs(store: Store) -> list[str]:
    """Return every run in the store, including those that have only results."""
    evaluated = {run.name for run in store.folders() if run.evaluations()}
    return sorted(evaluated | {run.name for run in store.runs()})


def _known(store: Store) -> str:
    sweeps, runs = store.sweeps()[-3:], [run.name for run in store.runs()][:3]
    parts = [f"{kind} {', '.join(names)}" for kind, names in (("sweeps", sweeps), ("runs", runs)) if names]
    return f"there are {', and '.join(parts)}" if parts else "it is empty"
