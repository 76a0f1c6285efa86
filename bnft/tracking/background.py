"""The launcher's side of tracking: a process beside it that it starts, listens to, and does not wait for."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bnft.runs.reporter import Reporter
from bnft.runs.store import Store
from bnft.tracking.target import wanted_mode

GRACE_SECONDS, GRACE_SHARE = 2.0, 0.03  # how long tracking may go on once the runs are done
STOPPED_SECONDS = 1.0  # and once they were stopped
LATER = "`bnft sync` uploads it from there"


@contextmanager
def tracked(
    store: Store,
    runs: Mapping[str, Sequence[str]],
    settings: Mapping[str, Any],
    reporter: Reporter,
    group: str | None = None,
    commit: str | None = None,
    stopped_seconds: float = STOPPED_SECONDS,
) -> Iterator[None]:
    """Track `runs`, with the ids of the evaluations that are to come of each, for the time of this block.

    `settings` are those of `schema.Wandb`, `group` is the sweep. Nothing that tracking does or fails to do is raised
    here, and it delays the end of the block by 3 % of its time or two seconds at most, by `stopped_seconds` where the
    block is left by an exception.
    """
    tracker = _Tracker.start(store, runs, settings, reporter, group, commit)
    began = time.monotonic()
    grace = stopped_seconds
    try:
        yield
        grace = max(GRACE_SECONDS, GRACE_SHARE * (time.monotonic() - began))
    finally:
        if tracker is not None:
            tracker.end(grace)


class _Tracker:
    """The tracking process and the thread that passes on what it says."""

    def __init__(self, process: "subprocess.Popen[str]", asked: str, reporter: Reporter) -> None:
        self._process, self._reporter = process, reporter
        self._asked = threading.Event()
        self._ear = threading.Thread(target=self._converse, args=(asked,), daemon=True)
        self._ear.start()

    @classmethod
    def start(
        cls,
        store: Store,
        runs: Mapping[str, Sequence[str]],
        settings: Mapping[str, Any],
        reporter: Reporter,
        group: str | None,
        commit: str | None,
    ) -> "_Tracker | None":
        mode = wanted_mode(settings)
        if mode == "disabled" or not runs:
            return None
        asked = {"runs": {name: list(ids) for name, ids in runs.items()}, "settings": dict(settings), "mode": mode}
        line = json.dumps({**asked, "group": group, "commit": commit}) + "\n"
        try:
            with _log(store, group or next(iter(runs))) as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "bnft.tracking.follow", str(store.root)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, "PYTHONPATH": _path()},
                    start_new_session=True,  # no terminal: it can neither be interrupted from one nor ask there
                )
            return cls(process, line, reporter)
        except (OSError, RuntimeError) as error:  # no processes or threads left
            reporter.notes("W&B", f"cannot be started ({error}); everything is in {store.root}, and {LATER}")
            return None

    def end(self, seconds: float) -> None:
        """Let the process finish within `seconds`; else end it."""
        assert self._process.stdin is not None
        try:
            began = time.monotonic()
            if self._asked.wait(seconds):  # else it has not even read that, and closing would wait for it
                with suppress(OSError):
                    self._process.stdin.close()
            self._process.wait(max(0.0, began + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            if not seconds:  # a job that goes on after a requeue
                return
            self._reporter.notes("W&B", f"not everything is sent yet; everything is in the store, and {LATER}")
        finally:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPPED_SECONDS)
            self._ear.join(STOPPED_SECONDS)

    def _converse(self, asked: str) -> None:
        """Say what is to be tracked, and pass on what comes back."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(asked)
            self._process.stdin.flush()
            self._asked.set()
            for line in self._process.stdout:
                self._reporter.notes("W&B", line.rstrip())
        except (OSError, ValueError):  # it is gone, or is to go
            pass


@contextmanager
def _log(store: Store, name: str) -> Iterator[IO[str] | int]:
    """The log of the tracking process; none where there is no room for one."""
    file = store.log(f"tracking-{name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        log = file.open("a")
    except OSError:
        yield subprocess.DEVNULL
        return
    with log:
        yield log


def _path() -> str:
    """Where the process finds this very code."""
    own = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
