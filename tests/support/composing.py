"""Compose each choice of groups once per process, since this is most of the time of a small run."""

import copy
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from bnft.config import folders


def once(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Return Hydra's `compose`, but it keeps what it composed from the files of bnft alone."""
    kept: dict[tuple[str, ...], DictConfig] = {}

    def composed(name: str, choices: list[str], **options: Any) -> DictConfig:
        if folders.searched_first():
            return compose(name, choices, **options)
        key = (name, *choices)
        if key not in kept:
            kept[key] = compose(name, choices, **options)
        return copy.deepcopy(kept[key])

    return composed
