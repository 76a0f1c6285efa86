"""An attack's batches shared out over processes, which a small network uses better than one process with all threads.

Each process has the model and the images, and makes the attacks anew from the same configuration. Batches stay whole
and keep their numbers, since an attack's random draws depend on them: what is found is what one process would find.
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
from bnft.evaluation.autoattack import recorded
from bnft.evaluation.cascade import Attack
from bnft.evaluation.settings import AUTOATTACK_PASSES, Evaluation

LOOK_SECONDS = 0.2  # how often the pulse is felt while others compute
ALIVE_SECONDS = 1.0  # how often a helper looks whether it is still wanted
SHARED_FROM = 5e11  # multiply-accumulates, about ten seconds of a core: helpers take some three to start

Build = Callable[..., Sequence[Attack]]
"""Makes the attacks of a cascade from a job and a pulse; a function of a module, since it is sent to processes."""


@dataclass(frozen=True)
class Job:
    """What a helper is to know: the model in eval mode, the images (n, C, H, W) and labels (n,), and how to attack."""

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    config: Evaluation
    classes: int


class Helpers:
    """Processes that attack batches. `found` may be asked for one attack at a time."""

    def __init__(self, workers: Sequence[tuple[Any, Connection]], pulse: Pulse, warnings: list[str]) -> None:
        self._workers, self._pulse, self._warnings = workers, pulse, warnings

    def found(self, attack: int, batches: Sequence[torch.Tensor], first: int) -> Iterator[torch.Tensor]:
        """What the attack (by its place) makes of batches `first`, ... of image numbers, one after another.

        Raises Stopped if the pulse does, RuntimeError with what it says if a helper fails.
        """
        idle = [connection for _, connection in self._workers]
        waiting = list(range(first, len(batches)))
        busy: dict[Connection, int] = {}
        results: dict[int, torch.Tensor] = {}
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

    def _answer(self, connection: Connection) -> torch.Tensor:
        try:
            found, warnings = connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError("a process that shared in the evaluation ended; ask for the run again") from None
        if isinstance(found, str):
            raise RuntimeError(f"in a process that shared in the evaluation: {found}")
        self._warnings[:] = dict.fromkeys([*self._warnings, *warnings])
        return torch.from_numpy(found)


@contextmanager
def helpers(job: Job, build: Build, processes: int, pulse: Pulse, warnings: list[str]) -> Iterator[Helpers | None]:
    """At most as many helpers as `processes`, with this process's threads between them, for the length of the block.

    None where nothing is gained (one batch, a GPU, an evaluation of seconds) or where it cannot be: in a process that
    may start no others, and with a model that cannot be sent to one. `warnings` takes in what AutoAttack warns of.
    """
    count = min(processes, -(-len(job.images) // job.config.batch_size))
    possible = job.images.device.type == "cpu" and not multiprocessing.current_process().daemon
    if count < 2 or not possible or _size(job) < SHARED_FROM or not _can_be_sent(job.model):
        yield None
        return
    context = multiprocessing.get_context("spawn")
    threads, workers = max(1, torch.get_num_threads() // count), []
    try:
        with without_main(), ignored(*STOP_SIGNALS):  # what goes to all of a terminal is for this process to handle
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
    """Multiply-accumulates of the evaluation, about. Depends on the configuration alone, as what is shared out must."""
    config = job.config
    passes = AUTOATTACK_PASSES if config.attack == "autoattack" else 2 * (config.iterations or 1)
    return flops(job.model, job.images[:1]) / 2 * passes * len(job.images)


def _can_be_sent(model: nn.Module) -> bool:
    try:
        pickle.dumps(model)
    except Exception:  # whatever a person's own class raises
        return False
    return all(not type(module).__module__.startswith("__main__") for module in model.modules())


def _help(connection: Connection, job: Job, build: Build, threads: int) -> None:
    """What a helper does: attacks the batches that it is sent, until nobody listens."""
    leave_no_locks()
    torch.set_num_threads(threads)
    attacks: Sequence[Attack] = ()
    with suppress(EOFError, ConnectionError, Stopped):
        while True:
            attack, numbers, batch = connection.recv()
            try:
                attacks = attacks or build(job, _wanted())
                indices = torch.from_numpy(numbers)
                with torch.no_grad(), recorded() as warnings:
                    found = attacks[attack].run(job.images[indices], job.labels[indices], batch)
                connection.send((found.numpy(), warnings))
            except (Stopped, ConnectionError):
                raise
            except Exception as error:  # the other side says so, with what it is
                connection.send((f"{type(error).__name__}: {error}", []))


def _wanted() -> Pulse:
    """A pulse that raises Stopped once the process that started this one is gone."""
    looked = 0.0

    def pulse() -> None:
        nonlocal looked
        if time.monotonic() - looked > ALIVE_SECONDS:
            looked = time.monotonic()
            parent = multiprocessing.parent_process()
            if parent is None or not parent.is_alive():
                raise Stopped("the process that evaluates is gone")

    return pulse
