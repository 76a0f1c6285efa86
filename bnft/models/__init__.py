"""Networks for images in [0, 1]. Their first layer normalises the images, so that eps is always in pixel units.

A network is a class or function that returns a module. The module maps images (N, C, H, W) to logits (N, classes).
Configurations in `conf/model/` name it by `_target_`, which can be outside bnft.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from bnft.common.errors import InputError
from bnft.common.randomness import global_seed


class Normalize(nn.Module):
    """Subtracts the mean of each channel and divides by its standard deviation. Both are fixed buffers."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def build(network: Callable[[], nn.Module], mean: Sequence[float], std: Sequence[float], seed: int) -> nn.Module:
    """Return `Normalize` followed by the network. The initial values depend only on `seed`, not on earlier draws."""
    with global_seed(seed, "init"):
        return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network()))


def restore(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load the tensors of a file into a model.

    Beside the tensors of a state dict, PyTorch keeps the versions of modules. Files do not have them, but some networks
    of torchvision (MNASNet) refuse to be loaded without.

    Raises:
        RuntimeError: if names or shapes differ.
    """
    versioned = OrderedDict(state)
    versioned._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(versioned)


def check_output(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise InputError unless the model, in eval mode, maps images of this shape to one logit per class."""
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
        what = f"outputs of shape {shape}" if shape else f"a {type(logits).__name__}"
        raise InputError(f"model: gives {what} for two images; must give logits of shape (2, {num_classes})")
