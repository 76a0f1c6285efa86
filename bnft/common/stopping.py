"""Being asked to stop, and stopping where nothing is lost."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # signals are to be caught before PyTorch is there, which takes seconds
    from torch import nn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, being told to end, and the terminal being gone."""

Pulse = Callable[[], None]
"""Called between any two forward passes of a long computation; raises Stopped to end it there."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A run was asked to stop and did, with its state kept: asked for again, it goes on from there."""


def steady() -> None:
    """The pulse of a computation that nobody stops."""


class Requests:
    """Signals that ask to stop, inside a `with` block. A second SIGINT raises KeyboardInterrupt: the end, at once.

    A signal that is ignored already, as by nohup or in a shell's background, stays so.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._signals = signals
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

    def pulse(self) -> None:
        """Raises Stopped once a signal has come."""
        if self.received is not None:
            raise Stopped(f"stopped by {signal.Signals(self.received).name}")


@contextmanager
def ignored(*signals: signal.Signals) -> Iterator[None]:
    """Ignore signals in this block, and for good in every process that is started in it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_no_locks() -> None:
    """Prepare this process, which starts no others, to be killed at any moment.

    With a start method other than fork, a lock of multiprocessing keeps a name in the system until its process ends in
    order. tqdm, if it is installed, makes such a lock as soon as PyTorch uses it.
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
