"""What bnft uses of Hydra and OmegaConf that is private or undocumented there.

Any version may change it; see `bnft.common.compat`. All of it is as in Hydra 1.3 and OmegaConf 2.3, and the bounds in
`pyproject.toml` allow no others. Light, since `--help` and tab completion import it.
"""

import argparse
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import omegaconf._utils
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

__all__ = [
    "FileConfigSource",
    "apply_values",
    "context_of",
    "error_of",
    "failed_part",
    "file_in_hand",
    "flag_parser",
    "is_group",
    "jobs_of",
    "override_in_hand",
    "use_yaml_loader",
    "yaml_loader",
]

yaml_loader: Callable[[], type] = omegaconf._utils.get_yaml_loader
"""Makes OmegaConf's own class of YAML loaders. Private."""


def use_yaml_loader(loader: Callable[[], type]) -> None:
    """Have OmegaConf read all YAML with the class that `loader` returns, to be derived from that of `yaml_loader`.

    OmegaConf has no setting for it. `OmegaConf.load` and `create` look up the private function in its module at every
    call.
    """
    omegaconf._utils.get_yaml_loader = loader


def apply_values(overrides: list[Override], config: DictConfig) -> None:
    """Apply overrides that give keys their values to a configuration, in place, as Hydra does after composing it.

    The method is private. The public `compose` composes everything anew for each run.
    """
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)


def is_group(name: str) -> bool:
    """Whether there is a group of this name on Hydra's search path.

    `repository` is an attribute of Hydra's own loader only. The public `list_groups` needs a parent.
    """
    return bool(GlobalHydra.instance().config_loader().repository.group_exists(name))  # type: ignore[attr-defined]


def context_of(loader: ConfigLoader) -> HydraContext:
    """What a sweeper is set up with, in a process that Hydra did not start. `Callbacks` is private."""
    return HydraContext(config_loader=loader, callbacks=Callbacks())


def flag_parser() -> argparse.ArgumentParser:
    """The parser with which `hydra.main` reads the command line; we refuse wrong flags in one line.

    `get_args_parser` is private.
    """
    return get_args_parser()


def error_of(job: JobReturn) -> BaseException | None:
    """The exception that a job ended with, if it failed.

    `_return_value` is private. The public `return_value` prints to stderr and raises the exception.
    """
    return job._return_value if job.status == JobStatus.FAILED else None


def jobs_of(overrides: list[Override]) -> Sequence[Sequence[str]]:
    """The overrides of each job of a sweep: all combinations, as Hydra's own sweeper makes them.

    The class is private. Hydra executes its module again when it looks for plugins, so it is imported after that.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return jobs


# What Hydra was doing when it raised an error. Not every error says it, so these look at names of Hydra's functions and
# of their variables in the traceback. Where they find nothing, a message is less exact, but still there.


def file_in_hand(error: BaseException) -> str | None:
    """The file of the configuration that Hydra was reading. `load_config` has it as `full_path`."""
    for frame in _frames(error):
        if frame.f_code.co_name == "load_config" and "full_path" in frame.f_locals:
            return str(frame.f_locals["full_path"])
    return None


def override_in_hand(error: BaseException) -> Override | None:
    """The override that Hydra was at. Its loops have it as `override`."""
    for frame in _frames(error):
        override = frame.f_locals.get("override")
        if isinstance(override, Override):
            return override
    return None


def failed_part(error: BaseException) -> str | None:
    """`launcher` or `sweeper`, if Hydra could not make it, in `instantiate_launcher` and so on."""
    called = {frame.f_code.co_name for frame in _frames(error)}
    # Hydra makes the sweeper, and the sweeper makes the launcher.
    return next((part for part in ("launcher", "sweeper") if f"instantiate_{part}" in called), None)


def _frames(error: BaseException) -> Iterator[FrameType]:
    return (frame for frame, _ in traceback.walk_tb(error.__traceback__))
