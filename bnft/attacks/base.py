"""Attacks used in training: pure functions `attack(model, inputs, labels, *, generator, ...) -> adversarial inputs`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bnft.batchnorm.layers import batchnorm_layers

Attack = Callable[..., torch.Tensor]


@contextmanager
def no_trace(model: nn.Module, mode: str = "eval") -> Iterator[None]:
    """Attack inside this block, and the model is afterwards as it was.

    Parameters take no gradient, BN statistics do not move, and the mode of every module is restored. In `train` mode
    BN layers normalise by the batch without recording it; in `eval` mode they use their running statistics.
    """
    modes = {module: module.training for module in model.modules()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = list(batchnorm_layers(model).values())
    tracking = [layer.track_running_stats for layer in layers]
    model.train(mode == "train")
    for parameter in learning:
        parameter.requires_grad_(False)
    for layer in layers:
        layer.track_running_stats = layer.track_running_stats and mode != "train"
    try:
        yield
    finally:
        for layer, tracked in zip(layers, tracking, strict=True):
            layer.track_running_stats = tracked
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training


def perturbation_size(adversarial: torch.Tensor, inputs: torch.Tensor, norm: str) -> torch.Tensor:
    """The size of each perturbation in its norm (`Linf` or `L2`), shape (N,), in pixel units."""
    difference = (adversarial - inputs).flatten(1)
    return difference.abs().amax(1) if norm == "Linf" else difference.norm(dim=1)
