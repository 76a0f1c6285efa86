"""The record of a run's BN layers, read without PyTorch, and Equation 1 of the paper."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Array = TypeVar("Array", "NDArray[Any]", torch.Tensor)

RECORDED = ("gamma", "beta", "mean", "variance")
QUANTITIES = (*RECORDED, "m", "b")  # the last two are those of Equation 1


def normalized(gamma: "Array", beta: "Array", mean: "Array", variance: "Array", eps: float) -> "tuple[Array, Array]":
    """Return the normalized weight m = gamma / sqrt(variance + eps) and bias b = beta - m * mean: BN(z) = m z + b.

    All arrays or tensors, m and b included, have the same shape. Its last axis is the channel.
    """
    weight = gamma / (variance + eps) ** 0.5
    return weight, beta - weight * mean


class BatchNormRecord:
    """The six quantities of every BN layer at every logged epoch. Epoch 0 is before training.

    Args:
        arrays: the arrays that `BatchNormLog.stacked` returns.
        eps: the eps of each layer.
        kept: the epoch whose model is that of the run. None is the last one.
    """

    def __init__(self, arrays: "Mapping[str, NDArray[Any]]", eps: Mapping[str, float], kept: int | None = None) -> None:
        self.arrays, self.eps, self.kept = arrays, eps, kept

    @cached_property
    def epochs(self) -> list[int]:
        """The epochs that were logged, in order."""
        return [int(epoch) for epoch in self.arrays["epochs"]]

    @property
    def layers(self) -> list[str]:
        """The names of the BN layers, in the order of the model."""
        return list(self.eps)

    def values(self, layer: str, quantity: str) -> "NDArray[Any]":
        """Return one of QUANTITIES of a layer, of shape (logged epochs, channels)."""
        if quantity in RECORDED:
            return self.arrays[f"{layer}.{quantity}"]
        gamma, beta, mean, variance = (self.arrays[f"{layer}.{name}"] for name in RECORDED)
        m, b = normalized(gamma, beta, mean, variance, self.eps[layer])
        return m if quantity == "m" else b
