"""The initial values of a network's layers, chosen by configuration (`model.initialization`)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import ConfigDict
from torch import nn
from typing_extensions import TypedDict

from bnft.common.compat import is_batchnorm
from bnft.common.constraints import one_of

if TYPE_CHECKING:
    from bnft.common.compat import BatchNorm

LAYERS = ("kaiming_fan_out", "kaiming_fan_in", "pytorch")
GAMMAS = ("ones", "zeros", "uniform")


class Initialization(TypedDict, total=False):
    """How layers are initialised.

    Convolutions and the head (the last linear layer): `kaiming_fan_out` or `kaiming_fan_in` is a normal distribution
    with the standard deviation sqrt(2 / fan) (He et al., 2015), with a zero bias. `pytorch` is PyTorch's own: uniform,
    with the standard deviation sqrt(1 / (3 fan_in)), weight and bias alike.

    The scale gamma of BN layers, and of the last BN layer of each block: `ones`, `zeros` (Goyal et al., 2017), or
    `uniform`, from 0 to 1 (Frankle et al., 2021). beta is always 0.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    convolutions: Annotated[str | None, one_of(*LAYERS)]
    head: Annotated[str | None, one_of(*LAYERS)]
    gamma: Annotated[str | None, one_of(*GAMMAS)]
    last_gamma: Annotated[str | None, one_of(*GAMMAS)]


DEFAULT = {"convolutions": "kaiming_fan_out", "head": "pytorch", "gamma": "ones", "last_gamma": "zeros"}
"""What version 0.1 used, and what a network uses for parts that are not given."""


def initialize(network: nn.Module, head: nn.Linear, last: Iterable[nn.Module], config: Initialization | None) -> None:
    """Set the initial values of a new network.

    Args:
        network: all of the network.
        head: its last linear layer.
        last: the last BN layer of each block.
        config: see `Initialization`; DEFAULT completes it.
    """
    complete = DEFAULT | {part: str(how) for part, how in (config or {}).items() if how is not None}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            _layer(module, complete["convolutions"])
    _layer(head, complete["head"])
    ends = set(last)
    for module in network.modules():
        if is_batchnorm(module) and module.affine:
            _gamma(module, complete["last_gamma" if module in ends else "gamma"])


def _layer(layer: nn.Conv2d | nn.Linear, how: str) -> None:
    if how == "pytorch":  # the constructor has done it
        return
    nn.init.kaiming_normal_(layer.weight, mode="fan_in" if how == "kaiming_fan_in" else "fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _gamma(layer: "BatchNorm", how: str) -> None:
    with torch.no_grad():
        gamma = torch.rand(layer.num_features) if how == "uniform" else torch.full_like(layer.weight, how == "ones")
        layer.weight.copy_(gamma - getattr(layer, "offset", 0.0))
