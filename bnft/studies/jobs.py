"""The study that a command line chooses."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from bnft.common.errors import InputError


def contents(config: DictConfig) -> tuple[str, dict[str, Any]]:
    """Return the name and the contents of the study in a configuration that Hydra composed for a sweep.

    Raises InputError if it is not a file with keys.
    """
    choices = config.hydra.runtime.choices
    name = next((str(choices[key]) for key in ("study", "study@study") if choices.get(key)), "study")
    values = OmegaConf.to_container(config.study, resolve=False) if OmegaConf.is_dict(config.study) else None
    if not isinstance(values, dict) or not values:
        raise InputError(f"study={name}: must be a file in conf/study/ with `title` and `rows` (+study=NAME)")
    return name, {str(key): value for key, value in values.items()}
