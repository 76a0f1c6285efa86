"""The BN layers of a model, found by type and never by name."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from bnft.common.compat import is_batchnorm
from bnft.models.normalization import ReparametrizedBatchNorm2d

if TYPE_CHECKING:
    from bnft.common.compat import BatchNorm


def batchnorm_layers(model: nn.Module) -> "dict[str, BatchNorm]":
    """Return the BN layers of a model (1d, 2d, 3d and synchronised), by name, in the order of their registration."""
    return {name: module for name, module in model.named_modules() if is_batchnorm(module)}


def batchnorm_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the learned parameters of all BN layers of a model."""
    return [value for layer in batchnorm_layers(model).values() for value in layer.parameters(recurse=False)]


def gamma(layer: "BatchNorm") -> torch.Tensor:
    """Return the scale of a BN layer, of shape (channels,): 1 for a layer without affine parameters.

    It is the layer's weight, plus 1 if the layer is reparametrised (see `models.normalization`).
    """
    if not layer.affine:
        return torch.ones(layer.num_features)
    return layer.weight + layer.offset if isinstance(layer, ReparametrizedBatchNorm2d) else layer.weight
