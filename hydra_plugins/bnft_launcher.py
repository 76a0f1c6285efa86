"""The launcher behind `-m`: runs side by side on this machine (`hydra/launcher=local`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:  # Hydra imports every plugin for every command, --help too
    from bnft.plan import Plan
    from bnft.pool import Outcomes


@dataclass
class LocalLauncherConf:
    _target_: str = "hydra_plugins.bnft_launcher.LocalLauncher"
    gpus: Any = None  # how many, or a list of those to use; null takes all
    runs_per_gpu: int = 1
    workers: int | None = None  # runs at a time without a GPU; null takes one a CPU
    fail_fast: bool = False  # stop the rest when one fails
    hang_minutes: float = 30.0  # a run that shows no sign of life for so long is killed


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="bnft")


class PlanLauncher(Launcher):
    """A launcher that carries out a plan as a whole, since its runs depend on each other."""

    here = True  # whether runs find the devices of the machine that plans them

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra hands over what is needed to compose the jobs; they are planned in `launch`."""

    def warm_up(self) -> None:
        """Begin with what takes time and can go on beside the planning."""

    def check(self) -> None:
        """Raise InputError for settings that cannot be; before anything is written."""

    def carry_out(self, planned: "Plan", sweep: str) -> "Outcomes | None":
        """Launch the sweep of that name, written down already; None if it is left to go on without us."""
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For sweepers other than ours."""
        from bnft.plan import plan
        from bnft.sweep import record

        planned = plan(job_overrides, self.here)
        self.check()
        outcomes = self.carry_out(planned, record(planned)) or {}
        failures = {name: failure for name, failure in outcomes.items() if failure is not None}
        status = JobStatus.FAILED if failures else JobStatus.COMPLETED
        return [JobReturn(overrides=list(line), status=status, _return_value=failures) for line in job_overrides]


class LocalLauncher(PlanLauncher):
    """`runs_per_gpu` processes a GPU, or `workers` processes that share the CPU's threads."""

    def __init__(
        self,
        gpus: Any = None,
        runs_per_gpu: int = 1,
        workers: int | None = None,
        fail_fast: bool = False,
        hang_minutes: float = 30.0,
    ) -> None:
        self.gpus, self.runs_per_gpu, self.workers = gpus, runs_per_gpu, workers
        self.fail_fast, self.hang_minutes = fail_fast, hang_minutes

    def warm_up(self) -> None:
        from bnft.pool import warm_up

        warm_up()

    def check(self) -> None:
        from bnft.errors import rejected

        for key, least in (("workers", self.workers), ("runs_per_gpu", self.runs_per_gpu)):
            if least is not None and least < 1:
                raise rejected(f"hydra.launcher.{key}", least, "a whole number, at least 1")
        if not self.hang_minutes > 0:
            raise rejected("hydra.launcher.hang_minutes", self.hang_minutes, "a number, above 0")
        self._chosen_gpus()

    def _chosen_gpus(self) -> list[str]:
        """The GPUs to use, as CUDA_VISIBLE_DEVICES names them. Raises InputError for one that is not there."""
        from bnft.errors import rejected
        from bnft.pool import visible_gpus

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

    def carry_out(self, planned: "Plan", sweep: str) -> "Outcomes":
        from bnft.pool import Pool, slots
        from bnft.progress import Terminal, complain
        from bnft.stopping import steady
        from bnft.tasks import tasks, undone
        from bnft.tracking.beside import tracked

        everything = tasks(planned)
        todo = undone(everything, planned.store)
        if not todo:
            return {}
        if len(todo) < len(everything):
            complain(f"{len(everything) - len(todo)} of {len(everything)} tasks are done already")
        devices = {task.run.config["device"] for task in todo}
        if any(device.startswith("cuda:") for device in devices):
            places = slots(1, [])  # one GPU was named: one run at a time, each on its own
        else:
            gpus = self._chosen_gpus() if devices != {"cpu"} else []
            places = slots(len(todo), gpus, self.runs_per_gpu, self.workers)
        expected: dict[str, list[str]] = {task.run.name: [] for task in todo}
        for task in todo:
            expected[task.run.name] += [task.run.evaluation_id] if task.evaluated else []
        commit = planned.store.sweep(sweep)["commit"]
        with (
            planned.store.locked(f"sweep-{sweep}", steady, steady),
            Terminal(expected) as terminal,
            tracked(planned.store, expected, planned.wandb, terminal, sweep, commit),
        ):
            return Pool(todo, places, planned.store, terminal, self.fail_fast, 60 * self.hang_minutes).run()
