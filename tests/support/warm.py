"""`Popen` and `run` of `subprocess`, for Python programs that need not import PyTorch, Hydra and bnft first.

Such a program is forked from a process that has imported them. Apart from that, it is like any other: it is a child of
the process that starts it, and has its own arguments, environment, import path, streams, session and `__main__`, and it
handles signals as in a terminal. Only its command line and environment in /proc are those of the process that it was
forked from. Its sweeps fork their workers in the same way.

Use `subprocess` for programs whose start is tested, or that need another copy of bnft.
"""

import atexit
import ctypes
import gc
import importlib
import json
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (sys.executable, str(Path(sys.executable).with_name("bnft")))
IMPORTED = (
    *("torch", "bnft.api", "bnft.cli", "bnft.hydra_app", "bnft.launching", "bnft.runs.execution"),
    *("bnft.report.table", "bnft.sweeps.status", "bnft.sweeps.wait", "bnft.sweeps.terminal"),
)
CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, 0)  # the number of the system call; 0 if it is not known
CLONE_PARENT = 0x8000  # the new process is not a child of the process that is copied, but its sibling
LARGEST = 1 << 20  # bytes of a request

# in the process that starts programs


def Popen(*command: Any, **options: Any) -> subprocess.Popen:  # noqa: N802 - as in subprocess
    """Start a process as `subprocess.Popen` does. It is forked if its command begins with this Python or `bnft`."""
    with mock.patch.object(subprocess, "_fork_exec", _started):
        return subprocess.Popen(*command, **options)


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess:
    """Run a command as `subprocess.run` does; see `Popen`."""
    with mock.patch.object(subprocess, "_fork_exec", _started):
        return subprocess.run(*command, **options)


def _started(arguments: Sequence[Any], *others: Any) -> int:
    """Start a process and return its number. The arguments are those of `subprocess._fork_exec`."""
    _, _, _, folder, environment, stdin, _, _, stdout, _, stderr, _, _, _, session, *_ = others
    words = [os.fsdecode(word) for word in arguments]
    if not CLONE or words[0] not in PROGRAMS or any(map(callable, others)):  # the last is preexec_fn
        return int(FORK_EXEC(arguments, *others))
    variables = dict(os.environ) if environment is None else dict(os.fsdecode(one).split("=", 1) for one in environment)
    request = json.dumps([words, os.path.abspath(folder or "."), variables, session])
    streams = [stream if stream >= 0 else place for place, stream in enumerate((stdin, stdout, stderr))]
    socket.send_fds(_warm_process(), [request.encode()], streams)
    return int(_warm_process().recv(LARGEST))


FORK_EXEC = subprocess._fork_exec  # type: ignore[attr-defined]


@cache
def _warm_process() -> socket.socket:
    """Start the process that others are forked from. It ends with this process."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WANDB_"))}
    with theirs, mock.patch.object(subprocess, "_fork_exec", FORK_EXEC):
        subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            env={**environment, "OMP_NUM_THREADS": "1"},  # no threads, of which a copy would lack all but one
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours


# in the process that programs are forked from


def _asked(requests: socket.socket) -> Any:
    """Fork a process for each request. Return the request in the new process, which is a child of the one that asks."""
    while True:
        request, streams, _, _ = socket.recv_fds(requests, LARGEST, 3)
        if not request:
            os._exit(0)
        if pid := _cloned():
            requests.send(str(pid).encode())
            for stream in streams:
                os.close(stream)
        else:
            requests.close()
            return *json.loads(request), streams


def _cloned() -> int:
    """Fork this process as `os.fork` does, but make the new process a child of this one's parent."""
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = ctypes.PyDLL(None).syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    ctypes.pythonapi.PyOS_AfterFork_Parent() if pid else ctypes.pythonapi.PyOS_AfterFork_Child()
    return int(pid)


def _become(folder: str, environment: dict[str, str], session: bool, streams: Sequence[int]) -> None:
    """Give this process what a new one would have."""
    if session:
        os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    for stream in set(streams) - {0, 1, 2}:
        os.close(stream)
    unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, errors="backslashreplace", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    for file in (sys.stdout, sys.stderr):
        file.reconfigure(write_through=unbuffered)
    multiprocessing.util.spawnv_passfds = _spawned  # type: ignore[assignment]


def _spawned(path: bytes, arguments: Sequence[Any], kept: Sequence[int]) -> int:
    """Start a server of worker processes by a fork. Its arguments are those of `spawnv_passfds`."""
    code = str(arguments[-1])
    if "multiprocessing.forkserver" not in code:
        return int(SPAWN(path, arguments, kept))
    if pid := os.fork():
        return pid
    try:
        for file in map(int, os.listdir("/proc/self/fd")):
            if file > 2 and file not in kept:
                with suppress(OSError):
                    os.close(file)
        exec(code, {"__name__": "__main__"})
    finally:
        os._exit(0)


SPAWN = multiprocessing.util.spawnv_passfds


def _carry_out(words: list[str], paths: list[str]) -> None:
    """Run a program as Python does with these words on its command line."""
    if words[0] == sys.executable:
        del words[0]
    safe = words[0] == "-P" and bool(words.pop(0))
    kind, program = words[0], words[words[0] in ("-c", "-m")]
    place = {"-c": "", "-": "", "-m": os.getcwd()}.get(kind, os.path.dirname(os.path.abspath(program)))
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*([] if safe else [place]), *given, *paths]
    sys.argv = words[1:] if kind == "-m" else words
    if kind in ("-c", "-"):
        sys.argv = [kind, *words[2:]]
        program = program if kind == "-c" else sys.stdin.read()
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), vars(sys.modules["__main__"]))
    elif kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


def _end(error: BaseException | None) -> None:
    """End this process as Python does after a program, but without the time to take PyTorch apart."""
    code: object = 1
    if error is None or isinstance(error, SystemExit):
        code = error.code if error else None
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as trouble:
        code = 120
        with suppress(OSError):
            print(f"Exception ignored in: {sys.stdout!r}\nOSError: {trouble}", file=sys.stderr, flush=True)
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 255)


if __name__ == "__main__":
    paths = [*sys.path]
    sys.path.insert(0, str(ROOT))
    for name in IMPORTED:
        importlib.import_module(name)
    sys.path[:] = paths
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    words, folder, environment, session, streams = _asked(socket.socket(fileno=int(sys.argv[1])))
    _become(folder, environment, session, streams)
    try:
        _carry_out(words, paths)
    except BaseException as error:
        _end(error)
    _end(None)
