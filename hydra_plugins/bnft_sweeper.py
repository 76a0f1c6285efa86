"""The sweeper behind `-m`: expands the sweep, checks and plans all of it before anything is written, then launches."""

from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.bnft_launcher import PlanLauncher


@dataclass
class BnftSweeperConf:
    _target_: str = "hydra_plugins.bnft_sweeper.BnftSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="bnft", node=BnftSweeperConf, provider="bnft")


class BnftSweeper(BasicSweeper):
    """Hydra's basic sweeper, but what it writes, and when, is ours."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None and self.hydra_context is not None
        if isinstance(self.launcher, PlanLauncher):
            self.launcher.warm_up()
        from bnft.errors import InputError
        from bnft.sweep import sweep  # here, since Hydra imports every plugin for every command, --help too

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        for override in overrides:
            if override.is_sweep_override() and not list(override.sweep_string_iterator()):
                raise InputError(f"{override.input_line}: must match at least one option; --help lists them")
        (jobs,) = self.split_arguments(overrides, None)
        return sweep(jobs, self.launcher)
