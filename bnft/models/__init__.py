"""Networks for images in [0, 1]: normalisation is their first layer, so that eps is always in pixel units.

A network is a class or function that returns a module mapping (N, C, H, W) to logits (N, classes); `conf/model/` names
it by `_target_`, the user's own included.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

from bnft.common.errors import InputError
from bnft.common.randomness import global_seed


class Normalize(nn.Module):
    """Subtracts the mean and divides by the standard deviation of each channel; mean and std are fixed buffers."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def build(network: Callable[[], nn.Module], mean: Sequence[float], std: Sequence[float], seed: int) -> nn.Module:
    """`Normalize` followed by the network, initialised from `seed` and in no way from what was drawn before."""
    with global_seed(seed, "init"):
        return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network()))


def check_output(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise InputError unless the model, in eval mode, maps such images to one logit a class."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, *image_shape))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"model: cannot take images of shape {image_shape} (channels, height, width): "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    finally:
        model.train(training)
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (2, num_classes):
        found = f"outputs of shape {shape}" if shape else f"a {type(logits).__name__}"
        raise InputError(f"model: gives {found} for two images; must give logits of shape (2, {num_classes})")
