"""Runs at the same time on this machine, with one process per GPU or per share of the CPUs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Hydra imports this for every command, --help too
    from bnft.runs.plan import Plan
    from bnft.sweeps.backend import Track
    from bnft.sweeps.pool import Outcomes


@dataclass
class Local:
    """A backend with `runs_per_gpu` processes per GPU, or without a GPU `workers` processes that share the threads."""

    gpus: Any = None  # the number of GPUs, or a list of GPUs; null uses all
    runs_per_gpu: int = 1
    workers: int | None = None  # runs at a time without a GPU; null is one per CPU
    fail_fast: bool = False  # whether the first failure stops all other runs
    hang_minutes: float = 30.0  # a run that gives no sign of life for so long is killed

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

        everything = tasks(planned)
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
            everything = with_previews(todo, planned.store)
            return Pool(everything, places, planned.store, terminal, self.fail_fast, 60 * self.hang_minutes).run()
