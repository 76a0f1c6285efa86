"""Registers the sweeper behind `-m`, the launchers `local` and `slurm`, and a user's own folders with Hydra.

The implementation is in `bnft`. Hydra imports this module for every command, including `--help`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from bnft.config import folders
from bnft.config.compat import FileConfigSource, jobs_of
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
    """A launcher that passes everything to its backend."""

    backend: Backend

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Do nothing. Runs are planned when they are launched."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Launch jobs for sweepers other than bnft's."""
        from bnft.launching import launch  # here and below, because the import takes seconds

        return launch(job_overrides, self.backend)


class LocalLauncher(BackendLauncher):
    def __init__(self, **settings: Any) -> None:
        self.backend = Local(**settings)


class SlurmLauncher(BackendLauncher):
    def __init__(self, **settings: Any) -> None:
        self.backend = Slurm(**settings)


class Sweeper(HydraSweeper):
    """Makes the same list of jobs as Hydra's basic sweeper, and launches it as a sweep of bnft."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        self.params = params or {}
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None and self.hydra_context is not None
        backend = self.launcher.backend if isinstance(self.launcher, BackendLauncher) else None
        if backend is not None:
            backend.warm_up()
        from bnft.launching import sweep

        return sweep(self.jobs(arguments), backend or self.launcher, self.study())

    def jobs(self, arguments: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return the overrides of every job. Raises InputError if an override matches no option."""
        from bnft.launching import expanded

        assert self.hydra_context is not None
        given = [f"{key}={value}" for key, value in self.params.items()]
        return jobs_of(expanded([*given, *arguments], self.hydra_context.config_loader))

    def study(self) -> tuple[str, dict[str, Any]] | None:
        """Return the name and the contents of the study that was chosen; None if there is none."""
        assert self.config is not None
        if self.config.study is None:
            return None
        from bnft.studies.jobs import contents

        return contents(self.config)


class OwnFolder(FileConfigSource):
    """A user's own folder of configuration. Provides the options of groups, but not the files at its top level.

    A config.yaml at the top level can belong to another program.
    """

    @staticmethod
    def scheme() -> str:
        return folders.SCHEME

    def is_config(self, config_path: str) -> bool:
        return "/" in config_path.strip("/") and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names = super().list(config_path, results_filter)
        return names if config_path.strip("/") else [name for name in names if self.is_group(name)]


class OwnFolders(SearchPathPlugin):
    """Makes Hydra search a user's own folders first, in bnft only and not in other programs that use Hydra."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if any(entry.path == str(folders.own()) for entry in search_path.get_path()):
            for folder in reversed(folders.searched_first()):
                search_path.prepend("own", f"{folders.SCHEME}://{folder}")
