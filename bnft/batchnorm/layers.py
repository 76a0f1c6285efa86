"""The BN layers of a model, found by type and never by name."""

from typing import TYPE_CHECKING

from torch import nn

from bnft.common.compat import is_batchnorm

if TYPE_CHECKING:
    from bnft.common.compat import BatchNorm


def batchnorm_layers(model: nn.Module) -> "dict[str, BatchNorm]":
    """The BN layers of a model (1d, 2d, 3d and synchronised) by name, in the order in which they are registered."""
    return {name: module for name, module in model.named_modules() if is_batchnorm(module)}
