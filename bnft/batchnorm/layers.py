"""The BN layers of a model, found by type and never by name."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BN layers of a model (1d, 2d, 3d and synchronised) by name, in the order in which they are registered."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
