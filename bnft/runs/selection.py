"""Which sweeps and runs a command is about: those that are named, else the newest sweep."""

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
    """What is meant: sweeps with their records, by name, and runs. `everything` if that is all runs of the store."""

    sweeps: Mapping[str, Mapping[str, Any]]
    runs: Sequence[str]
    everything: bool = False


def pick(store: Store, names: Sequence[str] = ()) -> Picked:
    """The sweeps and runs of these names, or of `all`; what `default` says if there are no names.

    Raises InputError for a name that is neither, DamagedError for a sweep whose record cannot be read.
    """
    names = names or default(store)
    if list(names) == [ALL]:
        return Picked({}, _all_runs(store), True)
    if ALL in names:
        raise InputError(f"{ALL}: must stand alone, without other names")
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
    """The names that a command was given; without any, what `default` says.

    Which sweep that is, is told at the end of the block, unless it raises: a refusal is one line.
    """
    found = list(names) or default(store)
    yield found
    if not names and found != [ALL]:
        tell(f"sweep {found[0]} (the newest)")


def tell(what: str) -> None:
    """Say what a command is about that was given no names."""
    notice(f"bnft: {what}")


def default(store: Store) -> list[str]:
    """The newest sweep, or `all` if there is none."""
    name = newest(store)
    return [ALL] if name is None else [name]


def newest(store: Store) -> str | None:
    """The sweep that was recorded last, apart from damaged ones; None if there is none."""
    return next((name for name, _ in _readable(store, reversed(store.sweeps()))), None)


def readable(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every sweep with its record, oldest first. A damaged one is left out, and a line says so."""
    return _readable(store, store.sweeps())


def some_sweeps(store: Store, names: Sequence[str]) -> list[str]:
    """The names, if all of them are of sweeps. Raises InputError for one that is not, and if there is no sweep."""
    if not names and newest(store) is None:
        raise InputError(f"store={store.root}: must be a folder with sweeps; this one has none")
    for name in names:
        store.sweep(name)
    return list(names)


def runs_of(sweep: Mapping[str, Any]) -> list[str]:
    """The runs that a sweep asked for, after the bases that it makes for them."""
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
    """For what is come upon again and again, as while a sweep is watched."""
    notice(line)


def _all_runs(store: Store) -> list[str]:
    """Every run in the store, with those of which only results were kept."""
    evaluated = {run.name for run in store.folders() if run.evaluations()}
    return sorted(evaluated | {run.name for run in store.runs()})


def _known(store: Store) -> str:
    sweeps, runs = store.sweeps()[-3:], [run.name for run in store.runs()][:3]
    parts = [f"{kind} {', '.join(names)}" for kind, names in (("sweeps", sweeps), ("runs", runs)) if names]
    return f"there are {', and '.join(parts)}" if parts else "it is empty"
