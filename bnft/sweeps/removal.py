"""`bnft remove`: plan what can be removed from a store, and remove it.

What goes is first renamed into the folder `.removed/` of the store and then deleted. If the process is killed, each run
is therefore either complete or gone, and the next removal deletes what is left in this folder. Runs are removed before
the sweeps that list them, so that the same command removes the rest.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bnft.common.errors import InputError
from bnft.evaluation.settings import quick_instead
from bnft.runs import identity, layout, locks
from bnft.runs.run_folder import RunFolder
from bnft.runs.selection import runs_of
from bnft.runs.store import RUN_NAME, Store
from bnft.sweeps.status import StoreStatus

PARTS = ("checkpoints", "models")
_BASE = re.compile(rb"\bbase['\"]?\s*[:=]([^\n]*)")  # in a config.yaml or a result.json
_HASH = re.compile(rb"-([0-9a-f]{10})\b")


@dataclass(frozen=True)
class Item:
    """Something that can be removed: a `run`, a `sweep`, a `checkpoint` or a `model`."""

    kind: str
    name: str
    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The size of its files in bytes."""
        files = (file for path in self.paths for file in ([path] if path.is_file() else path.rglob("*")))
        return sum(file.stat().st_size for file in files if file.is_file())


@dataclass(frozen=True)
class Removal:
    """What would be removed, and the runs that stay, with the reasons."""

    items: tuple[Item, ...]
    kept: dict[str, str]


def removal(
    view: StoreStatus, names: Sequence[str], *, only: str | None = None, keep_runs: bool = False, force: bool = False
) -> Removal:
    """Plan a removal. Writes nothing.

    Args:
        view: the state of the store and the queue.
        names: the names of sweeps and runs.
        only: one of PARTS, to remove only these files of the runs; None to remove runs and sweeps.
        keep_runs: whether to remove only the records of sweeps.
        force: whether to remove what other sweeps list and what other runs need too.

    Raises:
        InputError: if a name is neither a sweep nor a run, or if it must not be removed.
    """
    store = view.store
    _check_records(view, force)
    sweeps = [name for name in dict.fromkeys(names) if _is_plain(name) and name in view.sweeps]
    named = [name for name in dict.fromkeys(names) if name not in sweeps]
    for name in named:
        if not (_is_plain(name) and RUN_NAME.fullmatch(name) and store.run(name).path.is_dir()) or keep_runs:
            what = "a sweep" if keep_runs else "a sweep or a run"
            raise InputError(f"{name}: must be {what} in {store.root}; `bnft list` and `bnft status` list them")
    of_sweeps = [] if keep_runs else [run for name in sweeps for run in runs_of(view.sweeps[name])]
    runs = [run for run in dict.fromkeys((*named, *of_sweeps)) if store.run(run).path.is_dir()]
    reasons = _in_use(view, runs, [] if only else sweeps)
    for name in (*sweeps, *runs):
        if name in reasons:
            raise InputError(f"{name}: is in use, so it stays; {reasons[name]}")
    kept: dict[str, str] = {}
    if not force:
        kept = _needed_models(view, runs) if only == "models" else {} if only else _needed_runs(view, runs, sweeps)
    for name in named:
        if name in kept:
            raise InputError(f"{name}: stays, because {kept[name]}; --force removes it")
    items = [item for run in runs if run not in kept for item in _items(store, run, only)]
    if only is None:
        items += [Item("sweep", name, _of_sweep(store, name)) for name in sweeps]
    return Removal(tuple(items), kept)


def carry_out(store: Store, planned: Removal) -> None:
    """Remove what was planned. Raise InputError if another process works on it; what is removed by then is gone."""
    own = locks.lock(store.root, "remove")
    if not locks.acquired(own):
        raise InputError(
            f"store={store.root}: must not be in use by another `bnft remove`; try again when it has ended"
        )
    try:
        aside = store.root / layout.REMOVED
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed process
        for item in planned.items:
            _remove(store, item, aside)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        own.release()


def _remove(store: Store, item: Item, aside: Path) -> None:
    held = locks.lock(store.root, f"sweep-{item.name}" if item.kind == "sweep" else item.name)
    if not locks.acquired(held):
        raise InputError(f"{item.name}: another process began to work on it; the same command removes the rest later")
    try:
        aside.mkdir(exist_ok=True)
        for number, path in enumerate(item.paths):
            if path.exists():
                path.rename(aside / f"{item.kind}.{item.name}.{number}")
    finally:
        held.release()
    for path in aside.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_plain(name: str) -> bool:
    """Return whether a name cannot lead out of the store."""
    return Path(name).name == name


def _check_records(view: StoreStatus, force: bool) -> None:
    """Raise InputError if the record of a sweep is damaged, because the runs that it lists are not known."""
    damaged = [name for name in view.store.sweeps() if name not in view.sweeps]
    if damaged and not force:
        file = view.store.root / layout.SWEEPS / f"{damaged[0]}.json"
        raise InputError(f"{file}: is damaged, so the runs that it lists are not known; remove it, or use --force")


def _in_use(view: StoreStatus, runs: Sequence[str], sweeps: Sequence[str]) -> dict[str, str]:
    """Return why runs and sweeps cannot be removed now, by name: something works on them, or will."""
    reasons = {name: f"`bnft cancel {name}` ends it" for name in sweeps if view.can_be_cancelled(name)}
    for name in filter(view.is_launched, view.sweeps):
        reasons |= dict.fromkeys(runs_of(view.sweeps[name]), f"sweep {name} is running")
    queued = {task.partition("/")[0] for task in view.jobs}
    for run in runs:
        if view.store.is_locked(run):
            reasons[run] = "another process works on it"
        elif run in queued:
            reasons[run] = "a job for it is queued or running"
    return reasons


def _needed_runs(view: StoreStatus, runs: Sequence[str], sweeps: Sequence[str]) -> dict[str, str]:
    """Return why runs must stay, by name: another sweep lists them, or a run that stays starts from them."""
    kept: dict[str, str] = {}
    going = set(runs)
    for name, record in view.sweeps.items():
        if name not in sweeps:
            kept |= {run: f"sweep {name} lists it" for run in runs_of(record) if run in going}
    starting = _starting_from(view.store, runs)
    while True:
        more = {
            run: f"{start} starts from it"
            for run, starts in starting.items()
            for start in starts
            if run not in kept and (start not in going or start in kept)
        }
        if not more:
            return kept
        kept |= more


def _needed_models(view: StoreStatus, runs: Sequence[str]) -> dict[str, str]:
    """Return why models must stay, by the name of the run: something that is not done needs them."""
    store, kept = view.store, dict[str, str]()
    for run, starts in _starting_from(store, runs).items():
        untrained = [start for start in starts if not _has_been_trained(store, start)]
        if untrained:
            kept[run] = f"{untrained[0]} starts from it and is not trained yet"
    for name in view.sweeps:
        for entry in view.not_done(name):
            needed = entry["run"] if _has_been_trained(store, entry["run"]) else entry.get("base")
            if needed is not None:
                kept[needed] = f"sweep {name} needs its model for {entry['run']}, which is not done"
    for run in runs:
        if not _has_result(store.run(run)):
            kept.setdefault(run, "it has no result, so its training would be lost")
    return {run: kept[run] for run in runs if run in kept and store.run(run).trained}


def _has_result(run: RunFolder) -> bool:
    """Return whether an evaluation of a run is done. The preview of the evaluation that it was begun for is none."""
    done = [evaluation.path.name for evaluation in run.evaluations()]
    with suppress(InputError, KeyError):  # of an old or damaged configuration
        evaluation = run.config()["evaluation"]
        if evaluation["attack"] == "autoattack":
            preview = identity.evaluation_id(quick_instead(evaluation))
            done = [name for name in done if name != preview]
    return bool(done)


def _has_been_trained(store: Store, run: str) -> bool:
    return store.run(run).trained or bool(store.run(run).evaluations())


def _starting_from(store: Store, runs: Sequence[str]) -> dict[str, list[str]]:
    """Return the runs of the store that start from each of some runs."""
    by_hash = {run.rpartition("-")[2]: run for run in runs}
    starting: dict[str, list[str]] = {}
    for folder in store.folders():
        for base in _bases(folder):
            if base in by_hash and by_hash[base] != folder.name:
                starting.setdefault(by_hash[base], []).append(folder.name)
    return starting


def _bases(run: RunFolder) -> set[str]:
    """Return the hashes of the runs that a run names as its base, from the text of its files, which is fast."""
    files = [run.path / layout.CONFIG, *run.path.glob(f"{layout.EVALUATION}/*/{layout.RESULT}")]
    content = next((file.read_bytes() for file in files if file.is_file()), b"")
    return {found.decode() for line in _BASE.findall(content) for found in _HASH.findall(line)}


def _items(store: Store, run: str, only: str | None) -> list[Item]:
    folder = store.run(run).path
    if only is None:
        return [Item("run", run, (store.log(run), folder))]
    if only == "models":
        paths, kind = [folder / layout.MODEL], "model"
    else:
        paths, kind = (
            [folder / layout.CHECKPOINT, *folder.glob(f"{layout.EVALUATION}/*/{layout.CASCADE}")],
            "checkpoint",
        )
    there = tuple(path for path in paths if path.is_file())
    return [Item(kind, run, there)] if there else []


def _of_sweep(store: Store, name: str) -> tuple[Path, ...]:
    """Return the files of a sweep: first those beside its record, so that a killed removal can be repeated."""
    tracking = store.root / layout.LOGS / f"tracking-{name}.log"
    return (store.root / layout.SLURM / name, tracking, store.root / layout.SWEEPS / f"{name}.json")
