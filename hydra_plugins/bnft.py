"""What Hydra is told of: the sweeper behind `-m`, and the launchers `local` and `slurm`. What they do is in bnft.

Hydra imports this for every command, `--help` too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from bnft.sweeps.backend import Backend
from bnft.sweeps.local import Local
from bnft.sweeps.slurm.launch import Slurm


@dataclass
class LocalConf(Local):
    _target_: str = "hydra_plugins.bnft.LocalLauncher"


@dataclass
class SlurmConf(Slurm):
    _target_: str = "hydra_plugins.bnft.SlurmLauncher"


@dataclass
class SweeperConf:
    _target_: str = "hydra_plugins.bnft.Sweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


_STORE = ConfigStore.instance()
_STORE.store(group="hydra/launcher", name="local", node=LocalConf, provider="bnft")
_STORE.store(group="hydra/launcher", name="slurm", node=SlurmConf, provider="bnft")
_STORE.store(group="hydra/sweeper", name="bnft", node=SweeperConf, provider="bnft")


class BackendLauncher(Launcher):
    """A launcher that hands everything to its backend."""

    backend: Backend

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to do: runs are planned when they are launched."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For sweepers other than ours."""
        from bnft.launching import launch  # here and below: what it imports takes seconds

        return launch(job_overrides, self.backend)


class LocalLauncher(BackendLauncher):
    def __init__(self, **settings: Any) -> None:
        self.backend = Local(**settings)


class SlurmLauncher(BackendLauncher):
    def __init__(self, **settings: Any) -> None:
        self.backend = Slurm(**settings)


class Sweeper(BasicSweeper):
    """Hydra's basic sweeper up to the list of jobs; then ours."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None and self.hydra_context is not None
        backend = self.launcher.backend if isinstance(self.launcher, BackendLauncher) else None
        if backend is not None:
            backend.warm_up()
        from bnft.launching import expanded, sweep

        overrides = expanded([*self._parse_config(), *arguments], self.hydra_context.config_loader)
        (jobs,) = self.split_arguments(overrides, None)
        return sweep(jobs, backend or self.launcher)
