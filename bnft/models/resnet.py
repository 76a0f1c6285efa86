"""The CIFAR ResNet of the paper: BN before ReLU, projection shortcuts, no convolution bias."""

from typing import Annotated

import torch
from torch import nn
from torch.nn import functional

from bnft.common.constraints import at_least, not_empty, one_of
from bnft.models.initialization import Initialization, initialize
from bnft.models.normalization import NORMALIZATIONS


class Block(nn.Module):
    """A basic block: conv-BN-ReLU-conv-BN, plus the shortcut, then ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int, normalization: str | None = None) -> None:
        super().__init__()
        batchnorm = NORMALIZATIONS[normalization or "batch"]
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = batchnorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = batchnorm(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, stride, bias=False))
            self.shortcut.append(batchnorm(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return functional.relu(out, inplace=True)


class ResNet(nn.Module):
    """A ResNet for small images: a 3x3 convolution, then stages of basic blocks.

    Each stage halves height and width, and doubles the number of channels. The network maps images (N, channels, H, W)
    to logits (N, num_classes). With `width=64` and `blocks=[3, 3, 3]` it is the paper's ResNet-20. It then has
    4,327,754 parameters, of which 6,272 are in BN layers (0.145 %; Table 1 says 0.15 %).

    Args:
        channels: the channels of an image.
        num_classes: the number of classes.
        width: the channels of the first stage.
        blocks: the number of blocks of each stage.
        initialization: the initial values of layers; see `models.initialization`.
        normalization: the kind of BN layers; see `models.normalization`.
    """

    def __init__(
        self,
        channels: Annotated[int, at_least(1)],
        num_classes: Annotated[int, at_least(2)],
        width: Annotated[int, at_least(1)] = 64,
        blocks: Annotated[list[Annotated[int, at_least(1)]], not_empty] = [3, 3, 3],  # noqa: B006 (never changed)
        initialization: Initialization | None = None,
        normalization: Annotated[str | None, one_of(*NORMALIZATIONS)] = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = NORMALIZATIONS[normalization or "batch"](width)
        self.stages = nn.Sequential()
        previous = width
        for index, count in enumerate(blocks):
            current = width * 2**index
            stage = nn.Sequential()
            for position in range(count):
                stage.append(Block(previous, current, 2 if index and not position else 1, normalization))
                previous = current
            self.stages.append(stage)
        self.logits = nn.Linear(previous, num_classes)
        last = [module.bn2 for module in self.modules() if isinstance(module, Block)]
        initialize(self, self.logits, last, initialization)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn(self.conv(x)), inplace=True)
        return self.logits(self.stages(x).mean((2, 3)))
