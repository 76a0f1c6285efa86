"""Attacks in several processes. For a small network, this is faster than one process with many threads.

Each process has the model and the images, and makes the attacks from the same configuration. Batches keep their members
and numbers, because random draws depend on them. The results are therefore the same as in one process.
"""

import multiprocessing
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import torch
from torch import nn

from bnft.common.compat import flops
from bnft.common.processes import without_main
from bnft.common.stopping import STOP_SIGNALS, Pulse, Stopped, ignored, leave_no_locks
from bnft.evaluation.cascade import Attack
from bnft.evaluation.notes import recorded
from bnft.evaluation.passes import Counter
from bnft.evaluation.settings import Evaluation, passes_per_image
from bnft.evaluation.summary import Passes

LOOK_SECONDS = 0.2  # how often the pulse is called while helpers compute
ALIVE_SECONDS = 1.0  # how often a helper checks whether its parent is alive
SHARED_FROM = 5e11  # multiply-accumulates, about ten seconds of a core; helpers need about three seconds to start

Build = Callable[..., tuple[Sequence[Attack], Counter]]
"""Makes the attacks of a cascade, and the counter of their passes, from a job and a pulse.

It must be a function of a module, to be sent to processes.
"""


@dataclass(frozen=True)
class Job:
    """The input of a helper: the model in eval mode, images (n, C, H, W), labels (n,), and the settings."""

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    config: Evaluation
    classes: int


class Helpers:
    """Processes that attack batches, for one attack at a time."""

    def __init__(self, workers: Sequence[tuple[Any, Connection]], pulse: Pulse, warnings: list[str]) -> None:
        self._workers, self._pulse, self._warnings = workers, pulse, warnings

    def found(self, attack: int, batches: Sequence[torch.Tensor], first: int) -> Iterator[tuple[torch.Tensor, Passes]]:
        """Attack batches, and yield the resulting images of each batch, and the passes for it, in order.

        Args:
            attack: the index of the attack.
            batches: the indices of the images of all batches.
            first: the first batch to attack.

        Raises:
            Stopped: if the pulse raises it.
            RuntimeError: if a helper fails, with its message.
        """
        idle = [connection for _, connection in self._workers]
        waiting = list(range(first, len(batches)))
        busy: dict[Connection, int] = {}
        results: dict[int, tuple[torch.Tensor, Passes]] = {}
        for wanted in range(first, len(batches)):
            while wanted not in results:
                while idle and waiting:
                    batch, connection = waiting.pop(0), idle.pop()
                    connection.send((attack, batches[batch].numpy(), batch))
                    busy[connection] = batch
                for connection in cast(list[Connection], wait(list(busy), LOOK_SECONDS)):
                    batch = busy.pop(connection)
                    results[batch] = self._answer(connection)
                    idle.append(connection)
                self._pulse()
            yield results.pop(wanted)

    def _answer(self, connection: Connection) -> tuple[torch.Tensor, Passes]:
        try:
            answer, passes, warnings = connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError("a helper process of the evaluation ended; the same command continues") from None
        if isinstance(answer, str):
            raise RuntimeError(f"in a helper process of the evaluation: {answer}")
        self._warnings[:] = dict.fromkeys([*self._warnings, *warnings])
        return torch.from_numpy(answer), passes


@contextmanager
def helpers(job: Job, build: Build, processes: int, pulse: Pulse, warnings: list[str]) -> Iterator[Helpers | None]:
    """Start helpers for this block.

    Args:
        job: the input of the helpers.
        build: makes the attacks in each helper.
        processes: the maximal number of helpers. They share the threads of this process.
        pulse: called while helpers compute. Raises Stopped to end the evaluation.
        warnings: a list to which the warnings of AutoAttack are added.

    Yields:
        The helpers. None if helpers do not save time (for one batch, on a GPU, for an evaluation of seconds), in a
        process that must not start others, and for a model that cannot be pickled.
    """
    count = min(processes, -(-len(job.images) // job.config.batch_size))
    possible = job.images.device.type == "cpu" and not multiprocessing.current_process().daemon
    if count < 2 or not possible or _size(job) < SHARED_FROM or not _can_be_sent(job.model):
        yield None
        return
    context = multiprocessing.get_context("spawn")
    threads, workers = max(1, torch.get_num_threads() // count), []
    try:
        with without_main(), ignored(*STOP_SIGNALS):  # this process handles signals of the terminal
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_help, args=(theirs, job, build, threads), daemon=True)
                process.start()
                theirs.close()
                workers.append((process, ours))
        yield Helpers(workers, pulse, warnings)
    finally:
        for process, connection in workers:
            connection.close()
            process.kill()
            process.join()


def _size(job: Job) -> float:
    """Estimate the multiply-accumulates of the evaluation, from the configuration only."""
    config = job.config
    passes = passes_per_image(config.attack, config.iterations, config.restarts, config.budgets)
    return flops(job.model, job.images[:1]) / 2 * passes * len(job.images)


def _can_be_sent(model: nn.Module) -> bool:
    try:
        pickle.dumps(model)
    except Exception:  # a user's own class can raise anything
        return False
    return all(not type(module).__module__.startswith("__main__") for module in model.modules())


def _help(connection: Connection, job: Job, build: Build, threads: int) -> None:
    """Attack the batches that are received, until the connection is closed."""
    leave_no_locks()
    torch.set_num_threads(threads)
    attacks: Sequence[Attack] = ()
    counter = Counter()
    with suppress(EOFError, ConnectionError, Stopped):
        while True:
            attack, numbers, batch = connection.recv()
            try:
                if not attacks:
                    attacks, counter = build(job, _wanted())
                indices = torch.from_numpy(numbers)
                with torch.no_grad(), recorded() as warnings:
                    images = attacks[attack].run(job.images[indices], job.labels[indices], batch)
                connection.send((images.numpy(), counter.take(), warnings))
            except (Stopped, ConnectionError):
                raise
            except Exception as error:  # the other side raises it
                connection.send((f"{type(error).__name__}: {error}", None, []))


def _wanted() -> Pulse:
    """Return a pulse that raises Stopped if the parent process has ended."""
    looked = 0.0

    def pulse() -> None:
        nonlocal looked
        if time.monotonic() - looked > ALIVE_SECONDS:
            looked = time.monotonic()
            parent = multiprocessing.parent_process()
            if parent is None or not parent.is_alive():
                raise Stopped("the process of the evaluation has ended")

    return pulse
