"""Record BN layers during training. `record` reads the result."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from bnft.batchnorm.layers import batchnorm_layers, gamma
from bnft.batchnorm.record import RECORDED

if TYPE_CHECKING:
    from bnft.common.compat import BatchNorm


def quantities(layer: "BatchNorm") -> dict[str, torch.Tensor]:
    """Return gamma, beta, mean and variance of a BN layer as float32 copies on the CPU, each of shape (channels,).

    A layer without affine parameters has gamma 1 and beta 0. A layer without running statistics has mean 0 and
    variance 1.
    """
    ones, zeros = torch.ones(layer.num_features), torch.zeros(layer.num_features)
    values = (gamma(layer), layer.bias, layer.running_mean, layer.running_var)
    defaults = (ones, zeros, zeros, ones)
    return {
        name: (value.detach().float().cpu() if value is not None else default).clone()
        for name, value, default in zip(RECORDED, values, defaults, strict=True)
    }


@dataclass
class BatchNormLog:
    """gamma, beta, mean and variance of every BN layer at several epochs. Epoch 0 is before training."""

    epochs: list[int] = field(default_factory=list)
    tensors: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def append(self, epoch: int, model: nn.Module) -> None:
        """Record the model's BN layers at the end of `epoch`."""
        self.epochs.append(epoch)
        for name, layer in batchnorm_layers(model).items():
            for quantity, value in quantities(layer).items():
                self.tensors.setdefault(f"{name}.{quantity}", []).append(value)

    def up_to(self, epoch: int) -> "BatchNormLog":
        """Return the part of this record up to the end of `epoch`."""
        kept = sum(1 for logged in self.epochs if logged <= epoch)
        return BatchNormLog(self.epochs[:kept], {name: values[:kept] for name, values in self.tensors.items()})

    def stacked(self) -> dict[str, torch.Tensor]:
        """Return `epochs` of shape (logged,), and `<layer>.<quantity>` of shape (logged, channels) for every layer."""
        stacks = {name: torch.stack(values) for name, values in self.tensors.items()}
        return {"epochs": torch.tensor(self.epochs), **stacks}

    @classmethod
    def from_stacked(cls, stacked: dict[str, torch.Tensor]) -> "BatchNormLog":
        tensors = {name: list(value) for name, value in stacked.items() if name != "epochs"}
        return cls(stacked["epochs"].tolist(), tensors)


def layer_eps(model: nn.Module) -> dict[str, float]:
    """Return the eps of every BN layer, which Equation 1 needs."""
    return {name: layer.eps for name, layer in batchnorm_layers(model).items()}
