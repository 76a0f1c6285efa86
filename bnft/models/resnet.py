"""The CIFAR ResNet of the paper: BN before ReLU, projection shortcuts, no convolution bias."""

from typing import Annotated

import torch
from torch import nn
from torch.nn import functional

from bnft.common.constraints import at_least, not_empty


class Block(nn.Module):
    """conv-BN-ReLU-conv-BN, added to the shortcut, then ReLU.

    The last BN starts at gamma = 0, so that a block starts as its shortcut (Goyal et al., 2017), as in the second
    author's public code.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return functional.relu(out, inplace=True)


class ResNet(nn.Module):
    """A ResNet for small images: a 3x3 stem, then stages of basic blocks, each half the size and twice as wide.

    With `width=64` and `blocks=[3, 3, 3]` it is the paper's ResNet-20: 4,327,754 parameters, 6,272 of them in BN layers
    (0.145 %; Table 1 says 0.15 %). Takes (N, channels, H, W), gives logits (N, num_classes).
    """

    def __init__(
        self,
        channels: Annotated[int, at_least(1)],
        num_classes: Annotated[int, at_least(2)],
        width: Annotated[int, at_least(1)] = 64,
        blocks: Annotated[list[Annotated[int, at_least(1)]], not_empty] = [3, 3, 3],  # noqa: B006 (never changed)
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stages = nn.Sequential()
        previous = width
        for index, count in enumerate(blocks):
            current = width * 2**index
            stage = nn.Sequential()
            for position in range(count):
                stage.append(Block(previous, current, stride=2 if index and not position else 1))
                previous = current
            self.stages.append(stage)
        self.logits = nn.Linear(previous, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn(self.conv(x)), inplace=True)
        return self.logits(self.stages(x).mean((2, 3)))
