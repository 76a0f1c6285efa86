"""`bnft sync`: upload runs from the store to W&B. Each row is uploaded once, even if the command is repeated."""

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

TRIES = 3  # per run, if W&B's service process dies
UNREACHABLE = 1  # after so many failed runs in a row, the other runs are not tried
FINISH_SECONDS = 300.0


def sync(store: Store, names: Sequence[str], entity: str | None, project: str | None) -> int:
    """Upload sweeps and runs.

    Args:
        store: the store.
        names: names of sweeps and runs, or `all`. The default is the newest sweep.
        entity: the entity in W&B. The default is the configured one.
        project: the project in W&B. The default is the configured one.

    Returns:
        The exit code.

    Raises:
        InputError: if a name is unknown, or there are no credentials.
    """
    prepare("online")
    with meant(store, names) as selected:
        runs = select(store, selected)
        _target(store, next(iter(runs)), entity, project)  # raises InputError if there are no credentials
    try:
        return _upload_all(store, runs, entity, project)
    except KeyboardInterrupt:
        os._exit(130)  # a normal exit of W&B would send everything that is left first


def _upload_all(store: Store, runs: Mapping[str, str | None], entity: str | None, project: str | None) -> int:
    failed = unanswered = 0
    commits = {sweep: store.sweep(sweep).get("commit") for sweep in {*runs.values()} if sweep}
    for number, (name, sweep) in enumerate(runs.items(), start=1):
        target = _target(store, name, entity, project)
        try:
            message = _upload(store, name, target, sweep, commits.get(sweep or ""))
            unanswered = 0
        except (TrackingError, TakenError, ShortError, InputError, OSError) as error:
            message = "another process is tracking it" if isinstance(error, TakenError) else f"failed: {error}"
            failed += 1
            if isinstance(error, TrackingError):
                unanswered += UNREACHABLE if error.refused else int(error.unreachable)
        print(f"[{number}/{len(runs)}] {name}: {message}", flush=True)
        if unanswered >= UNREACHABLE:
            left = len(runs) - number
            if left:
                notice(f"bnft: {target.url} does not accept uploads; {left} more runs were not tried")
                failed += left
            break
    if failed:
        notice(f"bnft: {failed} of {len(runs)} runs are not fully uploaded; the same command continues from there")
    return 1 if failed else 0


def select(store: Store, names: Sequence[str]) -> dict[str, str | None]:
    """Return the selected runs, including bases, and the sweep of each."""
    picked = pick(store, names)
    sweep_of: dict[str, str | None] = {}
    for name, sweep in picked.sweeps.items():
        for run in runs_of(sweep):
            sweep_of.setdefault(run, name)
    for run in picked.runs:
        sweep_of.setdefault(run, None)
    if not sweep_of:
        raise InputError(f"store={store.root}: must be a folder with runs; this one has none")
    if None in sweep_of.values():
        for name, sweep in readable(store):  # a run belongs to the oldest sweep that has it
            for run in runs_of(sweep):
                if run in sweep_of and sweep_of[run] is None:
                    sweep_of[run] = name
    return sweep_of


def _target(store: Store, name: str, entity: str | None, project: str | None) -> Target:
    """Return the target of a run: the given entity and project, or else the configured ones."""
    settings: dict[str, Any] = {}
    if (store.run(name).path / layout.CONFIG).exists():
        settings = store.run(name).config().get("wandb") or {}
    entity = entity or settings.get("entity") or os.environ.get("WANDB_ENTITY")
    target, why = online(project or settings.get("project") or "bnft", entity)
    if target is None:
        raise InputError(f"sync: needs credentials of W&B: {why}")
    return target


def _upload(store: Store, name: str, target: Target, sweep: str | None, commit: str | None) -> str:
    """Upload the new rows of one run. Return a message."""
    folder = store.run(name)
    if not (folder.path / layout.CONFIG).exists():
        return "not begun"
    if complete(store, name, target):
        return "already complete"
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
