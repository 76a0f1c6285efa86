"""What is recorded of BN layers over training; see `records` for reading it back."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from bnft.batchnorm.layers import batchnorm_layers, gamma
from bnft.batchnorm.record import RECORDED

if TYPE_CHECKING:
    from bnft.common.compat import BatchNorm


def quantities(layer: "BatchNorm") -> dict[str, torch.Tensor]:
    """gamma, beta, mean and variance of one BN layer as float32 copies on the CPU, each of shape (channels,).

    A layer without affine parameters has gamma 1 and beta 0; one without running statistics has mean 0 and variance 1.
    """
    ones, zeros = torch.ones(layer.num_features), torch.zeros(layer.num_features)
    found = (gamma(layer), layer.bias, layer.running_mean, layer.running_var)
    defaults = (ones, zeros, zeros, ones)
    return {
        name: (value.detach().float().cpu() if value is not None else default).clone()
        for name, value, default in zip(RECORDED, found, defaults, strict=True)
    }


@dataclass
class BatchNormLog:
    """gamma, beta, mean and variance of every BN layer at several epochs; epoch 0 is before training."""

    epochs: list[int] = field(default_factory=list)
    tensors: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def append(self, epoch: int, model: nn.Module) -> None:
        """Record the model's BN layers as they are at the end of `epoch`."""
        self.epochs.append(epoch)
        for name, layer in batchnorm_layers(model).items():
            for quantity, value in quantities(layer).items():
                self.tensors.setdefault(f"{name}.{quantity}", []).append(value)

    def up_to(self, epoch: int) -> "BatchNormLog":
        """The part of this record that a run resumed at the end of `epoch` keeps."""
        kept = sum(1 for logged in self.epochs if logged <= epoch)
        return BatchNormLog(self.epochs[:kept], {name: values[:kept] for name, values in self.tensors.items()})

    def stacked(self) -> dict[str, torch.Tensor]:
        """`epochs` of shape (logged,), and `<layer>.<quantity>` of shape (logged, channels) for every BN layer."""
        stacks = {name: torch.stack(values) for name, values in self.tensors.items()}
        return {"epochs": torch.tensor(self.epochs), **stacks}

    @classmethod
    def from_stacked(cls, stacked: dict[str, torch.Tensor]) -> "BatchNormLog":
        tensors = {name: list(value) for name, value in stacked.items() if name != "epochs"}
        return cls(stacked["epochs"].tolist(), tensors)


def layer_eps(model: nn.Module) -> dict[str, float]:
    """The eps of every BN layer, needed for Equation 1."""
    return {name: layer.eps for name, layer in batchnorm_layers(model).items()}
