"""A worker process of the pool, which carries out the tasks that it receives, one after another."""

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bnft.common.errors import Failure, InputError
from bnft.common.stopping import STOP_SIGNALS, Stopped, leave_no_locks
from bnft.runs.store import Store
from bnft.sweeps.tasks import Task

LOOK_SECONDS = 0.2  # how often a worker checks whether it must stop
ALIVE_SECONDS = 1.0  # how often it sends a sign of life
ORPHAN_SECONDS = 60.0  # time to save its state after the pool has ended
LAST_LINES = 5  # lines of a traceback that are printed; the log has all
DUMP_SIGNAL = signal.SIGUSR1  # writes the stacks of all threads to the run's log


BUSY = "busy"  # the outcome of a task if another process works on its run; other outcomes are None or a Failure


class Wire:
    """The worker's end of the pipe to the pool. It is the reporter and the pulse of the current task."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._looked = self._said = 0.0

    def begins(self, run: str, stage: str, detail: str) -> None:
        self._say("begins", run, stage, detail)

    def moves(self, run: str, text: str) -> None:
        self._say("moves", run, text)

    def scored(self, run: str, clean: str, robust: str) -> None:
        self._say("scored", run, clean, robust)

    def notes(self, run: str, text: str) -> None:
        self._say("notes", run, text)

    def ends(self, run: str, state: str, text: str) -> None:
        with suppress(Stopped):  # the task has ended already
            self._say("ends", run, state, text)

    def pulse(self) -> None:
        """Raise Stopped if the pool requests it or has ended."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._connection.poll():
            raise Stopped("the sweep was stopped")
        if now - self._said > ALIVE_SECONDS:
            self._say("alive")

    def _say(self, *message: Any) -> None:
        self._said = time.monotonic()
        try:
            self._connection.send(message)
        except ConnectionError:
            raise Stopped("the process that started the sweep has ended") from None


def serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """Carry out received tasks until the pool ends, requests to stop, or the process is unsafe after a task."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the pool receives them too, and requests to stop
    os.environ.update(environment)
    leave_no_locks()
    threading.Thread(target=_end_as_orphan, daemon=True).start()
    wire = Wire(connection)
    with suppress(EOFError, ConnectionError):
        while (message := connection.recv()) is not None:
            task, store = message
            outcome = _carry_out(task, store, wire)
            connection.send(("end", outcome))
            if not is_safe_after(outcome):
                return


def _end_as_orphan() -> None:
    """End this process some time after the pool. Otherwise a hung process would keep the lock of its run forever."""
    pool = parent_process()
    assert pool is not None
    pool.join()
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def is_safe_after(outcome: Failure | str | None) -> bool:
    """Return whether a worker can carry out more tasks. After an unexpected error, a device can be in any state."""
    return not isinstance(outcome, Failure) or not outcome.details


def _carry_out(task: Task, store: Store, wire: Wire) -> Failure | str | None:
    from bnft.runs.execution import BusyError, execute  # here, after the environment is set

    with suppress(BusyError), _logged(store.log(task.run.name)) as log:
        try:
            execute(task.run, store, wire, task.evaluated, wire.pulse, patient=False, previewed=task.previewed)
            return None
        except BusyError:
            raise
        except Stopped as stop:
            return Failure(str(stop), stopped=True)
        except InputError as error:
            return Failure(str(error))
        except (Exception, SystemExit) as error:  # any error fails this run only
            text = traceback.format_exc()
            with suppress(OSError):  # if the disk is full; written without a buffer that another file could receive
                os.write(2, text.encode(errors="backslashreplace"))
            return Failure(f"{type(error).__name__}: {error}", "\n".join(text.splitlines()[-LAST_LINES:]), log)
        finally:
            _free_memory()
    return BUSY


def _free_memory() -> None:
    """Free the memory of a run on a GPU, for other processes."""
    import torch

    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # raised if the device has failed
            torch.cuda.empty_cache()


@contextmanager
def _logged(path: Path) -> Iterator[Path]:
    """Redirect the output of this process, including that of C libraries, to a file. An empty file is removed.

    After an exception, the file is kept: it is BusyError, and the file belongs to the process that works on the run.
    """
    target = _log_file(path)
    before = [os.dup(stream) for stream in (1, 2)]
    try:
        for stream in (1, 2):
            os.dup2(target, stream)
        faulthandler.enable(file=2)
        faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True)
        yield path
    finally:
        with suppress(OSError):  # if the disk is full
            sys.stdout.flush()
            sys.stderr.flush()
        for stream, copy in zip((1, 2), before, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        written = os.fstat(target).st_size
        os.close(target)
    if not written:
        with suppress(OSError):
            path.unlink()


def _log_file(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:  # if the disk is full, the run itself must report it
        return os.open(os.devnull, os.O_WRONLY)
