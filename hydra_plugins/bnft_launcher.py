"""The launcher behind `-m`: runs side by side on this machine (`hydra/launcher=local`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from bnft.plan import Plan


@dataclass
class LocalLauncherConf:
    _target_: str = "hydra_plugins.bnft_launcher.LocalLauncher"
    workers: int | None = None  # runs at a time without a GPU; null takes one a CPU


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="bnft")


class LocalLauncher(Launcher):
    """One process a GPU, or `workers` processes that share the CPU's threads."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra hands over what is needed to compose the jobs; they are planned in `launch`."""

    def check(self) -> None:
        """Raise InputError for settings that cannot be; before anything is written."""
        from bnft.errors import rejected

        if self.workers is not None and self.workers < 1:
            raise rejected("hydra.launcher.workers", self.workers, "a whole number, at least 1, or null")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from bnft.plan import plan  # here and below, since Hydra imports every plugin for every command, --help too

        return self.carry_out(plan(job_overrides))

    def carry_out(self, planned: "Plan") -> Sequence[JobReturn]:
        """Launch a sweep that is planned already."""
        from bnft.pool import Pool, slots, visible_gpus
        from bnft.progress import Terminal

        devices, count = {run.config["device"] for run in planned.runs}, len(planned.runs) + len(planned.bases)
        if any(device.startswith("cuda:") for device in devices):
            places = slots(1, [], count)  # one GPU was named: one run at a time, each on its own
        else:
            places = slots(self.workers, visible_gpus() if devices != {"cpu"} else [], count)
        outcomes = Pool(planned, places, Terminal()).run()
        returns = []
        for run in (*planned.bases, *planned.runs):
            failure = outcomes[run.name]
            status = JobStatus.COMPLETED if failure is None else JobStatus.FAILED
            returns.append(JobReturn(overrides=[run.name], status=status, _return_value=failure))
        return returns
