"""A worker process of the pool: carries out the tasks that it is sent, one after another, and stays warm in between."""

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

LOOK_SECONDS = 0.2  # how often a worker looks whether it is to stop
ALIVE_SECONDS = 1.0  # how often it says that it is alive
ORPHAN_SECONDS = 60.0  # how long it gets to save its state once the pool is gone
LAST_LINES = 5  # of a traceback, shown at once; the log has all
DUMP_SIGNAL = signal.SIGUSR1  # on this one, the stacks of all threads go to the run's log


BUSY = "busy"  # a task's outcome where another process works on its run; else None or a Failure


class Wire:
    """The worker's end of the pipe: the reporter and the pulse of the task at hand."""

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
        with suppress(Stopped):  # which comes too late
            self._say("ends", run, state, text)

    def pulse(self) -> None:
        """Raises Stopped if the pool says so, or is gone."""
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
            raise Stopped("the process that started the sweep is gone") from None


def serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """Carry out the tasks that are sent, until the pool is gone, says to stop, or a task left the process unsafe."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the pool gets them too, and asks us to stop where nothing is lost
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
    """With the pool gone nobody else would end a process that hangs, and it would keep its run's lock for good."""
    pool = parent_process()
    assert pool is not None
    pool.join()
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def is_safe_after(outcome: Failure | str | None) -> bool:
    """Whether a worker may do more: after an unforeseen error, a device or a library may be in any state."""
    return not isinstance(outcome, Failure) or not outcome.details


def _carry_out(task: Task, store: Store, wire: Wire) -> Failure | str | None:
    from bnft.runs.execution import BusyError, execute  # here, with the environment set

    with suppress(BusyError), _logged(store.log(task.run.name)) as log:
        try:
            execute(task.run, store, wire, task.evaluated, wire.pulse, patient=False)
            return None
        except BusyError:
            raise
        except Stopped as stop:
            return Failure(str(stop), stopped=True)
        except InputError as error:
            return Failure(str(error))
        except (Exception, SystemExit) as error:  # whatever it is, it is this run's alone
            text = traceback.format_exc()
            with suppress(OSError):  # a full disk; nothing is left in a buffer to be written elsewhere later
                os.write(2, text.encode(errors="backslashreplace"))
            return Failure(f"{type(error).__name__}: {error}", "\n".join(text.splitlines()[-LAST_LINES:]), log)
        finally:
            _free_memory()
    return BUSY


def _free_memory() -> None:
    """Give what the run used on a GPU back to the others there."""
    import torch

    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # a device that failed cannot give back either
            torch.cuda.empty_cache()


@contextmanager
def _logged(path: Path) -> Iterator[Path]:
    """Send this process's output, that of libraries in C too, to a file; without any, no file is left.

    An exception leaves the file alone: it is BusyError, and the file that of the process which has the run.
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
        with suppress(OSError):  # a full disk
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
    except OSError:  # a full disk must not hide what the run itself has to say of it
        return os.open(os.devnull, os.O_WRONLY)
