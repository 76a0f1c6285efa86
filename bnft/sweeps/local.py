"""Runs side by side on this machine: one process per GPU, or per share of the CPUs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Hydra imports this for every command, --help too
    from bnft.runs.plan import Plan
    from bnft.sweeps.backend import Track
    from bnft.sweeps.pool import Outcomes


@dataclass
class Local:
    """`runs_per_gpu` processes per GPU, or `workers` processes that share the CPU's threads. A backend."""

    gpus: Any = None  # how many, or a list of those to use; null takes all
    runs_per_gpu: int = 1
    workers: int | None = None  # runs at a time without a GPU; null takes one per CPU
    fail_fast: bool = False  # stop the rest when one fails
    hang_minutes: float = 30.0  # a run that shows no sign of life for so long is killed

    @property
    def here(self) -> bool:
        return True

    def warm_up(self) -> None:
        from bnft.sweeps.pool import warm_up

        warm_up()

    def check(self) -> None:
        from bnft.common.errors import rejected

        for key, least in (("workers", self.workers), ("runs_per_gpu", self.runs_per_gpu)):
            if least is not None and least < 1:
                raise rejected(f"hydra.launcher.{key}", least, "a whole number, at least 1")
        if not self.hang_minutes > 0:
            raise rejected("hydra.launcher.hang_minutes", self.hang_minutes, "a number, above 0")
        self._chosen_gpus()

    def _chosen_gpus(self) -> list[str]:
        """The GPUs to use, as CUDA_VISIBLE_DEVICES names them. Raises InputError for one that is not there."""
        from bnft.common.errors import rejected
        from bnft.sweeps.pool import visible_gpus

        there = visible_gpus()
        if self.gpus is None:
            return there
        if isinstance(self.gpus, int) and not isinstance(self.gpus, bool) and 0 <= self.gpus <= len(there):
            return there[: self.gpus]
        chosen = [str(gpu) for gpu in self.gpus] if isinstance(self.gpus, Sequence) else []
        if not chosen or isinstance(self.gpus, str) or not set(chosen) <= set(there):
            here = f"this machine has {', '.join(there)}" if there else "this machine has none"
            raise rejected("hydra.launcher.gpus", self.gpus, f"how many GPUs, or a list of them; {here}")
        return chosen

    def carry_out(self, planned: "Plan", sweep: str, track: "Track") -> "Outcomes":
        from bnft.common.console import notice
        from bnft.common.stopping import steady
        from bnft.sweeps.pool import Pool, slots
        from bnft.sweeps.tasks import tasks, undone
        from bnft.sweeps.terminal import Terminal

        everything = tasks(planned)
        todo = undone(everything, planned.store)
        if not todo:
            return {}
        if len(todo) < len(everything):
            notice(f"{len(everything) - len(todo)} of {len(everything)} tasks are done already")
        devices = {task.run.config["device"] for task in todo}
        if any(device.startswith("cuda:") for device in devices):
            places = slots(1, [])  # one GPU was named: one run at a time, each on its own
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
            return Pool(todo, places, planned.store, terminal, self.fail_fast, 60 * self.hang_minutes).run()
