"""The private and undocumented parts of Hydra and OmegaConf that bnft uses.

Any version may change them; see `bnft.common.compat`. This module is for Hydra 1.3 and OmegaConf 2.3, and the bounds in
`pyproject.toml` allow no other versions. `--help` and tab completion import it, so it must import quickly.
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
"""Returns OmegaConf's class of YAML loaders. Private."""


def use_yaml_loader(loader: Callable[[], type]) -> None:
    """Make OmegaConf read all YAML with the class that `loader` returns. It must be derived from that of `yaml_loader`.

    OmegaConf has no setting for this. `OmegaConf.load` and `create` look up the private function at every call.
    """
    omegaconf._utils.get_yaml_loader = loader


def apply_values(overrides: list[Override], config: DictConfig) -> None:
    """Apply overrides that set values to a configuration, in place, as Hydra does after composing it.

    The method is private. The public `compose` composes everything again for each run.
    """
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)


def is_group(name: str) -> bool:
    """Return whether Hydra's search path has a group of this name.

    `repository` is an attribute of Hydra's own loader only. The public `list_groups` needs a parent group.
    """
    return bool(GlobalHydra.instance().config_loader().repository.group_exists(name))  # type: ignore[attr-defined]


def context_of(loader: ConfigLoader) -> HydraContext:
    """Return the context to set up a sweeper with, in a process that Hydra did not start. `Callbacks` is private."""
    return HydraContext(config_loader=loader, callbacks=Callbacks())


def flag_parser() -> argparse.ArgumentParser:
    """Return the parser with which `hydra.main` reads the command line, to print its errors in one line.

    `get_args_parser` is private.
    """
    return get_args_parser()


def error_of(job: JobReturn) -> BaseException | None:
    """Return the exception of a failed job; None if it did not fail.

    `_return_value` is private. The public `return_value` prints to stderr and raises the exception.
    """
    return job._return_value if job.status == JobStatus.FAILED else None


def jobs_of(overrides: list[Override]) -> Sequence[Sequence[str]]:
    """Return the overrides of each job of a sweep: all combinations, as Hydra's own sweeper makes them.

    The class is private. It is imported here, because Hydra executes its module again when it searches for plugins.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return jobs


# The next functions tell what Hydra was doing when it raised an error. Not every error says so. They look for names of
# Hydra's functions and variables in the traceback. If they find nothing, the message is only less precise.


def file_in_hand(error: BaseException) -> str | None:
    """Return the configuration file that Hydra was reading. In `load_config`, it is `full_path`."""
    for frame in _frames(error):
        if frame.f_code.co_name == "load_config" and "full_path" in frame.f_locals:
            return str(frame.f_locals["full_path"])
    return None


def override_in_hand(error: BaseException) -> Override | None:
    """Return the override that Hydra was processing. In its loops, it is `override`."""
    for frame in _frames(error):
        override = frame.f_locals.get("override")
        if isinstance(override, Override):
            return override
    return None


def failed_part(error: BaseException) -> str | None:
    """Return `launcher` or `sweeper` if Hydra could not make it in `instantiate_launcher` or `instantiate_sweeper`."""
    called = {frame.f_code.co_name for frame in _frames(error)}
    # Hydra makes the sweeper, and the sweeper makes the launcher.
    return next((part for part in ("launcher", "sweeper") if f"instantiate_{part}" in called), None)


def _frames(error: BaseException) -> Iterator[FrameType]:
    return (frame for frame, _ in traceback.walk_tb(error.__traceback__))
