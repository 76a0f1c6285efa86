"""Attacks used in training: pure functions `attack(model, inputs, labels, *, generator, ...) -> adversarial inputs`."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bnft.batchnorm.layers import batchnorm_layers

Attack = Callable[..., torch.Tensor]


@contextmanager
def no_trace(model: nn.Module, mode: str = "eval", frozen: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Leave the model unchanged by an attack in this block.

    In the block, parameters take no gradients and BN statistics are not updated. Afterwards the mode of every module is
    restored.

    Args:
        model: the model to attack.
        mode: the mode of the model in the block. In `eval` mode, BN layers use their running statistics. In `train`
            mode, they use the statistics of the batch.
        frozen: BN layers with frozen statistics, which stay in eval mode.
    """
    modes = {module: module.training for module in model.modules()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = list(batchnorm_layers(model).values())
    tracking = [layer.track_running_stats for layer in layers]
    model.train(mode == "train")
    for layer in frozen:
        layer.eval()
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
    """Return the size of each perturbation in a norm (`Linf` or `L2`), of shape (N,), in pixel units."""
    difference = (adversarial - inputs).flatten(1)
    return difference.abs().amax(1) if norm == "Linf" else difference.norm(dim=1)
