"""Requests to stop, and stopping without losing state."""

import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # signals must be caught before PyTorch is imported, which takes seconds
    from torch import nn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Sent by Ctrl-C, by `kill`, and when the terminal is closed."""

Pulse = Callable[[], None]
"""A function that a long computation calls between forward passes. It raises Stopped to end the computation."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A run stopped on request. Its state is saved, so that the same command continues from there."""


def steady() -> None:
    """The pulse of a computation that cannot be stopped."""


class Requests:
    """A context manager that records signals as requests to stop. A second SIGINT raises KeyboardInterrupt at once.

    Signals that were ignored before, for example by nohup or in the background of a shell, stay ignored.

    Args:
        signals: the signals.
        until: when it is time to stop without a signal, on the clock of `time.monotonic`.
    """

    def __init__(self, *signals: signal.Signals, until: float = math.inf) -> None:
        self._signals, self._until = signals, until
        self._before: dict[signal.Signals, Any] = {}
        self.received: int | None = None

    def __enter__(self) -> "Requests":
        heeded = [number for number in self._signals if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    @property
    def out_of_time(self) -> bool:
        """Whether the time is over, and no signal was received."""
        return self.received is None and time.monotonic() >= self._until

    @property
    def made(self) -> bool:
        """Whether there is a reason to stop."""
        return self.received is not None or self.out_of_time

    def pulse(self) -> None:
        """Raise Stopped if a signal was received, or the time is over."""
        if self.received is not None:
            raise Stopped(f"stopped by {signal.Signals(self.received).name}")
        if self.out_of_time:
            raise Stopped("stopped, because hydra.launcher.minutes is over")


@contextmanager
def ignored(*signals: signal.Signals) -> Iterator[None]:
    """Ignore signals in this block. Processes started in it ignore them permanently."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_no_locks() -> None:
    """Prepare this process, which starts no others, to be killed at any moment.

    With a start method other than fork, a lock of multiprocessing has a name in the system until its process ends
    normally. tqdm, if it is installed, makes such a lock as soon as PyTorch uses it.
    """
    multiprocessing.set_start_method("fork", force=True)


@contextmanager
def before_each_forward(module: "nn.Module", pulse: Pulse) -> Iterator[None]:
    """Call `pulse` before each forward pass of `module` in this block."""
    hook = module.register_forward_pre_hook(lambda *_: pulse())
    try:
        yield
    finally:
        hook.remove()
