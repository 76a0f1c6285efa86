"""`bnft sync`: replays runs from the store into W&B, each row once, however often it is called."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from bnft.common.console import notice
from bnft.common.errors import InputError
from bnft.runs import layout
from bnft.runs.selection import meant, pick, readable, runs_of
from bnft.runs.store import Store
from bnft.tracking.replay import INTERRUPTED, Replay, ShortError, TakenError, complete, exit_code
from bnft.tracking.session import TrackingError, restart
from bnft.tracking.target import Target, online, prepare

TRIES = 3  # for one run, where W&B's service process is gone
UNREACHABLE = 1  # runs in a row, after which the rest is left for another time
FINISH_SECONDS = 300.0


def sync(store: Store, names: Sequence[str], entity: str | None, project: str | None) -> int:
    """Upload sweeps and runs by name, the newest sweep if there are no names, or `all`; returns the exit code.

    Raises InputError for unknown names and where there are no credentials.
    """
    prepare("online")
    with meant(store, names) as asked:
        runs = select(store, asked)
        _target(store, next(iter(runs)), entity, project)  # which refuses where there are no credentials
    try:
        return _upload_all(store, runs, entity, project)
    except KeyboardInterrupt:
        os._exit(130)  # W&B's own way out would send what is left first


def _upload_all(store: Store, runs: Mapping[str, str | None], entity: str | None, project: str | None) -> int:
    failed = unanswered = 0
    commits = {sweep: store.sweep(sweep).get("commit") for sweep in {*runs.values()} if sweep}
    for number, (name, sweep) in enumerate(runs.items(), start=1):
        found = _target(store, name, entity, project)
        try:
            told = _upload(store, name, found, sweep, commits.get(sweep or ""))
            unanswered = 0
        except (TrackingError, TakenError, ShortError, InputError, OSError) as error:
            told = "another process tracks it just now" if isinstance(error, TakenError) else f"failed: {error}"
            failed += 1
            if isinstance(error, TrackingError):
                unanswered += UNREACHABLE if error.refused else int(error.unreachable)
        print(f"[{number}/{len(runs)}] {name}: {told}", flush=True)
        if unanswered >= UNREACHABLE:
            left = len(runs) - number
            if left:
                notice(f"bnft: {found.url} does not take them; {left} more runs were not tried")
                failed += left
            break
    if failed:
        notice(f"bnft: {failed} of {len(runs)} runs are not uploaded in full; the same command goes on from there")
    return 1 if failed else 0


def select(store: Store, names: Sequence[str]) -> dict[str, str | None]:
    """The runs that are meant, each with the sweep that it belongs to; bases among them."""
    picked = pick(store, names)
    found: dict[str, str | None] = {}
    for name, sweep in picked.sweeps.items():
        for run in runs_of(sweep):
            found.setdefault(run, name)
    for run in picked.runs:
        found.setdefault(run, None)
    if not found:
        raise InputError(f"store={store.root}: must be a folder with runs; this one has none")
    if None in found.values():
        for name, sweep in readable(store):  # a run belongs to the oldest that asked for it
            for run in runs_of(sweep):
                if run in found and found[run] is None:
                    found[run] = name
    return found


def _target(store: Store, name: str, entity: str | None, project: str | None) -> Target:
    """Where a run goes: what was said now, else what it was asked for with."""
    settings: dict[str, Any] = {}
    if (store.run(name).path / layout.CONFIG).exists():
        settings = store.run(name).config().get("wandb") or {}
    entity = entity or settings.get("entity") or os.environ.get("WANDB_ENTITY")
    found, why = online(project or settings.get("project") or "bnft", entity)
    if found is None:
        raise InputError(f"sync: needs credentials of W&B: {why}")
    return found


def _upload(store: Store, name: str, target: Target, sweep: str | None, commit: str | None) -> str:
    """Bring one run up to date; returns what was done."""
    folder = store.run(name)
    if not (folder.path / layout.CONFIG).exists():
        return "not begun"
    if complete(store, name, target):
        return "complete already"
    code = exit_code(folder.status())
    for attempt in range(1, TRIES + 1):
        replay = Replay(store, name, target, sweep, commit, FINISH_SECONDS)
        try:
            rows = replay.catch_up()
            if not rows:
                return "nothing recorded yet"
            replay.close(INTERRUPTED if code is None else code, check=True)
            return f"{replay.sent} rows uploaded" + ("" if code == 0 else f"; it has {rows} so far")
        except TrackingError as error:
            replay.drop()
            if error.lost:
                restart()
            if not error.lost or attempt == TRIES:
                raise
    raise AssertionError
