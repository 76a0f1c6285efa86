"""Runs at the same time on this machine, with one process per GPU or per share of the CPUs."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Hydra imports this for every command, --help too
    from bnft.runs.plan import Plan
    from bnft.sweeps.backend import Track
    from bnft.sweeps.pool import Outcomes


SAVING_SECONDS = 20.0  # before the end of its time, a sweep stops: to save its runs, and to print its table
SAVING_SHARE = 0.25  # the largest part of its time for this


@dataclass
class Local:
    """A backend with `runs_per_gpu` processes per GPU, or without a GPU `workers` processes that share the threads."""

    gpus: Any = None  # the number of GPUs, or a list of GPUs; null uses all
    runs_per_gpu: int = 1
    workers: int | None = None  # runs at a time without a GPU; null is one per CPU
    fail_fast: bool = False  # whether the first failure stops all other runs
    hang_minutes: float = 30.0  # a run that gives no sign of life for so long is killed
    minutes: float | None = None  # the time of the whole program; before its end, all runs save their state
    order: str = "longest"  # longest | given: the longest runs first, or the order of the rows or the command line

    def __post_init__(self) -> None:
        self._began = time.monotonic()

    @property
    def until(self) -> float:
        """When runs must save their state, on the clock of `time.monotonic`. Raise InputError if it is invalid."""
        from bnft.common.errors import rejected

        if self.minutes is None:
            return math.inf
        if not self.minutes > 0:
            raise rejected("hydra.launcher.minutes", self.minutes, "a number, above 0, or null")
        seconds = 60 * self.minutes
        return self._began + seconds - min(SAVING_SECONDS, SAVING_SHARE * seconds)

    @property
    def here(self) -> bool:
        return True

    def warm_up(self) -> None:
        from bnft.sweeps.pool import warm_up

        warm_up()

    def check(self) -> None:
        from bnft.common.errors import rejected
        from bnft.sweeps.tasks import ORDERS

        for key, least in (("workers", self.workers), ("runs_per_gpu", self.runs_per_gpu)):
            if least is not None and least < 1:
                raise rejected(f"hydra.launcher.{key}", least, "a whole number, at least 1")
        if not self.hang_minutes > 0:
            raise rejected("hydra.launcher.hang_minutes", self.hang_minutes, "a number, above 0")
        if self.order not in ORDERS:
            raise rejected("hydra.launcher.order", self.order, f"one of {', '.join(ORDERS)}")
        _ = self.until
        self._chosen_gpus()

    def _chosen_gpus(self) -> list[str]:
        """Return the GPUs to use, named as in CUDA_VISIBLE_DEVICES. Raises InputError if one does not exist."""
        from bnft.common.errors import rejected
        from bnft.sweeps.pool import visible_gpus

        visible = visible_gpus()
        if self.gpus is None:
            return visible
        if isinstance(self.gpus, int) and not isinstance(self.gpus, bool) and 0 <= self.gpus <= len(visible):
            return visible[: self.gpus]
        chosen = [str(gpu) for gpu in self.gpus] if isinstance(self.gpus, Sequence) else []
        if not chosen or isinstance(self.gpus, str) or not set(chosen) <= set(visible):
            here = f"this machine has {', '.join(visible)}" if visible else "this machine has none"
            raise rejected("hydra.launcher.gpus", self.gpus, f"the number of GPUs or a list of GPUs; {here}")
        return chosen

    def carry_out(self, planned: "Plan", sweep: str, track: "Track") -> "Outcomes":
        from bnft.common.console import notice
        from bnft.common.stopping import steady
        from bnft.sweeps.pool import Pool, slots
        from bnft.sweeps.tasks import tasks, undone, with_previews
        from bnft.sweeps.terminal import Terminal

        everything = tasks(planned, self.order)
        todo = undone(everything, planned.store)
        if not todo:
            return {}
        if len(todo) < len(everything):
            notice(f"{len(everything) - len(todo)} of {len(everything)} tasks are done already")
        devices = {task.run.config["device"] for task in todo}
        if any(device.startswith("cuda:") for device in devices):
            places = slots(1, [])  # a single GPU was named: one run at a time
        else:
            gpus = self._chosen_gpus() if devices != {"cpu"} else []
            places = slots(len(todo), gpus, self.runs_per_gpu, self.workers)
        expected: dict[str, list[str]] = {task.run.name: [] for task in todo}
        for task in todo:
            expected[task.run.name] += [task.run.evaluation_id] if task.evaluated else []
        self.warm_up()
        commit = planned.store.sweep(sweep)["commit"]
        with (
            planned.store.locked(f"sweep-{sweep}", steady, steady),
            Terminal(expected) as terminal,
            track(planned.store, expected, planned.wandb, terminal, sweep, commit),
        ):
            everything = with_previews(todo, planned.store, self.order)
            hang_seconds = 60 * self.hang_minutes
            return Pool(everything, places, planned.store, terminal, self.fail_fast, hang_seconds, self.until).run()
