"""Normalisation layers that a network can be built with. Each has a name for `model.normalization`."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


class ReparametrizedBatchNorm2d(nn.BatchNorm2d):
    """BN with the scale gamma = 1 + w, where w is the learned `weight`.

    Weight decay pulls gamma to 1 instead of 0. The second author's public code for a sister study uses it. Read gamma
    with `batchnorm.layers.gamma`, which adds `offset`.
    """

    offset = 1.0

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.weight)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(input)
        momentum, batch = self.momentum, self.training or self.running_mean is None
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:  # a cumulative average
                momentum = 1 / float(self.num_batches_tracked)
        used = not self.training or self.track_running_stats  # as in PyTorch's own forward
        mean, variance = (self.running_mean, self.running_var) if used else (None, None)
        gamma = self.offset + self.weight
        return functional.batch_norm(input, mean, variance, gamma, self.bias, batch, momentum or 0.0, self.eps)


NORMALIZATIONS: dict[str, Callable[[int], nn.BatchNorm2d]] = {
    "batch": nn.BatchNorm2d,
    "reparametrized": ReparametrizedBatchNorm2d,
}
