"""The tracking process: `python -m bnft.tracking.follow STORE` logs runs in W&B while they are running.

The request is a line of JSON on standard input. Standard input is closed when the launcher ends. Messages for the user
are written to standard output, one per line.
"""

import json
import math
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bnft.common.errors import InputError
from bnft.runs import layout
from bnft.runs.store import Store
from bnft.tracking.replay import INTERRUPTED, Replay, TakenError, complete, exit_code
from bnft.tracking.session import TrackingError, restart
from bnft.tracking.target import Target, choose, prepare

LOOK_SECONDS = 1.0
LOOK_SHARE = 0.05  # maximum share of the time that is spent reading the store
TRIES = 3  # per run, if W&B fails
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 600.0  # if a server does not answer
OPEN = 32  # W&B runs at a time
AFTER_SECONDS = 300.0  # maximum time that this process continues after its launcher has ended


@dataclass
class _Watched:
    """A run that is followed. `seen` describes its files when it was last updated in W&B."""

    expected: frozenset[str]
    replay: Replay
    status: Any = None
    seen: Any = None
    settled: bool = False
    tries: int = 0


@dataclass
class Follower:
    """Updates runs in W&B each time that `look` is called. `tell` receives messages for the user."""

    store: Store
    target: Target
    runs: Mapping[str, Iterable[str]]
    group: str | None
    commit: str | None
    tell: Callable[[str], None]
    trouble: str = ""
    _pause: float = PAUSE_SECONDS
    _not_before: float = 0.0
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, expected in self.runs.items():
            replay = Replay(self.store, name, self.target, self.group, self.commit)
            self._watched[name] = _Watched(frozenset(expected), replay, _stamp(self.store.run(name).path))

    def look(self, last: bool = False) -> None:
        """Log everything that is new. The `last` time, end every W&B run too."""
        if last and not math.isinf(self._not_before):
            self._not_before = 0.0  # this is the last try
        for name, watched in self._watched.items():
            if time.monotonic() < self._not_before:
                return
            stamp = _stamp(watched.replay.folder.path)
            if stamp is None or watched.tries >= TRIES or (watched.settled and stamp == watched.status):
                continue
            if stamp == watched.status and not last:
                continue
            try:
                self._bring(watched, last)
                watched.status = stamp
            except TakenError:  # another launcher or `bnft sync` works on it
                watched.settled = last
            except (TrackingError, InputError, OSError) as error:
                self._take(name, watched, error)
            except Exception as error:  # a bug only stops the tracking of this run
                traceback.print_exc()
                self._take(name, watched, error)
        self._close_idle()

    @property
    def unsent(self) -> list[str]:
        """The runs that are not complete in W&B after the last look."""
        watched = self._watched.items()
        return [name for name, run in watched if not run.settled and _stamp(run.replay.folder.path) is not None]

    def _bring(self, watched: _Watched, last: bool) -> None:
        """Update one run in W&B."""
        folder, replay = watched.replay.folder, watched.replay
        code = exit_code(folder.status())
        done = [evaluation.path.name for evaluation in folder.evaluations()]
        over = code is not None and (code != 0 or watched.expected <= set(done))
        now = (code, done, *(_stamp(folder.path, name) for name in (layout.HISTORY, layout.BATCHNORM)))
        if now == watched.seen and not last:
            return
        watched.settled = False
        if not replay.is_open and complete(self.store, folder.name, self.target):
            watched.settled = over or last
        else:
            replay.catch_up()
            if over or last:
                replay.close(INTERRUPTED if code is None else code)
                watched.settled = True
        watched.seen, watched.tries, self._pause = now, 0, PAUSE_SECONDS

    def _take(self, name: str, watched: _Watched, error: Exception) -> None:
        """Handle an error of one run: write it to the log, and try again later if that may help."""
        _log(f"{name}: {error}")
        watched.tries += 1
        watched.replay.drop()
        if not isinstance(error, TrackingError):
            self.trouble = str(error)
            return
        if error.lost:
            for other in self._watched.values():
                if other.replay.is_open:
                    other.replay.drop()
                    other.seen = other.status = None
            watched.seen = watched.status = None
            restart()
        elif error.refused or error.unreachable:
            if not self.trouble:
                how = "refuses the credentials" if error.refused else "does not answer correctly"
                self.tell(f"{self.target.url or 'W&B'} {how}; the runs continue, and `bnft sync` uploads them later")
            watched.tries = TRIES if error.refused else 1
            self._not_before = time.monotonic() + (math.inf if error.refused else self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self.trouble = str(error)

    def _close_idle(self) -> None:
        """If too many W&B runs are open, end those that have been idle longest, such as bases that wait."""
        opened = [watched for watched in self._watched.values() if watched.replay.is_open]
        opened.sort(key=lambda watched: watched.replay.touched)
        for watched in opened[: max(0, len(opened) - OPEN)]:
            try:
                watched.replay.close(exit_code(watched.replay.folder.status()) or 0)
            except (TrackingError, InputError, OSError) as error:
                self._take(watched.replay.folder.name, watched, error)


def _stamp(folder: Path, name: str = layout.STATUS) -> tuple[int, int] | None:
    """Return a value that changes whenever a file is written; None if the file does not exist."""
    try:
        status = os.stat(folder / name)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _log(text: str) -> None:
    print(f"{datetime.now().isoformat(timespec='seconds')}  {text}", file=sys.stderr, flush=True)


def _voice() -> Callable[[str], None]:
    """Return a function that sends a line to the launcher.

    From then on, standard output goes to the log, including that of W&B's own process.
    """
    voice = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(text: str) -> None:
        _log(text)
        with suppress(OSError, ValueError):  # the launcher has ended
            print(text, file=voice, flush=True)

    return tell


def _ended(seconds: float) -> bool:
    """Wait for at most `seconds`. Return whether standard input has been closed."""
    readable, _, _ = select.select([0], [], [], seconds)
    return bool(readable) and not os.read(0, 4096)


def _first_line() -> dict[str, Any]:
    content = bytearray()
    while not content.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            sys.exit(0)  # the launcher has ended before it sent the request
        content += part
    return dict(json.loads(content))


def main() -> None:
    """Follow runs until standard input is closed. Then end all W&B runs."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the launcher, and this process notices when it ends
    os.nice(10)
    store, request = Store(sys.argv[1]), _first_line()
    tell = _voice()
    prepare(request["mode"])
    target, description = choose(request["settings"], request["mode"])
    if target is None:
        tell(description)
        return
    uploads = "" if target.mode == "online" else f", in {store.root / 'wandb'}; `bnft sync` uploads"
    tell(f"{description}{uploads}")
    follower = Follower(store, target, request["runs"], request["group"], request["commit"], tell)
    took = 0.0
    while not _ended(max(LOOK_SECONDS, took / LOOK_SHARE)):
        began = time.monotonic()
        follower.look()
        took = time.monotonic() - began
    threading.Timer(AFTER_SECONDS, os._exit, [1]).start()
    follower.look(last=True)
    left = len(follower.unsent)
    if left:
        where = "uploaded" if target.mode == "online" else "written"
        tell(f"{left} run{'s are' if left > 1 else ' is'} not {where} in full ({follower.trouble}); see `bnft sync`")
    sys.stderr.flush()
    os._exit(0)  # a normal exit of W&B would wait for a server that does not answer


if __name__ == "__main__":
    main()
