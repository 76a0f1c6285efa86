"""The launcher's side of tracking: it starts a process and reports its messages."""

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

GRACE_SECONDS, GRACE_SHARE = 2.0, 0.03  # time for tracking to end after the runs are done
STOPPED_SECONDS = 1.0  # time for tracking to end after the runs were stopped
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
    """Track runs in this block. Errors of tracking are reported, but not raised.

    Tracking delays the end of the block by at most two seconds or 3 % of its time, whichever is longer.

    Args:
        store: the store.
        runs: for each run, the ids of its evaluations.
        settings: those of `schema.Wandb`.
        reporter: receives the messages.
        group: the sweep.
        commit: the git commit of the code.
        stopped_seconds: the longest delay if the block raises an exception.
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
    """The tracking process, and the thread that reports its messages."""

    def __init__(self, process: "subprocess.Popen[str]", request: str, reporter: Reporter) -> None:
        self._process, self._reporter = process, reporter
        self._requested = threading.Event()
        self._listener = threading.Thread(target=self._converse, args=(request,), daemon=True)
        self._listener.start()

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
        request = {"runs": {name: list(ids) for name, ids in runs.items()}, "settings": dict(settings), "mode": mode}
        line = json.dumps({**request, "group": group, "commit": commit}) + "\n"
        try:
            with _log(store, group or next(iter(runs))) as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "bnft.tracking.follow", str(store.root)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={**os.environ, "PYTHONPATH": _path()},
                    start_new_session=True,  # without a terminal: it is not interrupted, and cannot ask questions
                )
            return cls(process, line, reporter)
        except (OSError, RuntimeError) as error:  # no processes or threads left
            reporter.notes("W&B", f"cannot be started ({error}); everything is in {store.root}, and {LATER}")
            return None

    def end(self, seconds: float) -> None:
        """Wait at most `seconds` until the process ends, and kill it otherwise."""
        assert self._process.stdin is not None
        try:
            began = time.monotonic()
            if self._requested.wait(seconds):  # else the request is still being written, and `close` would wait for it
                with suppress(OSError):
                    self._process.stdin.close()
            self._process.wait(max(0.0, began + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            if not seconds:  # a requeued job, which will continue
                return
            self._reporter.notes("W&B", f"not everything has been sent; everything is in the store, and {LATER}")
        finally:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPPED_SECONDS)
            self._listener.join(STOPPED_SECONDS)

    def _converse(self, request: str) -> None:
        """Send the request to the process, and report its messages."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            self._requested.set()
            for line in self._process.stdout:
                self._reporter.notes("W&B", line.rstrip())
        except (OSError, ValueError):  # the process has ended, or is about to end
            pass


@contextmanager
def _log(store: Store, name: str) -> Iterator[IO[str] | int]:
    """Open the log of the tracking process; DEVNULL if it cannot be written."""
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
    """Return a PYTHONPATH with which the process imports this copy of bnft."""
    own = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
