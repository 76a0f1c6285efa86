"""Count the passes that attacks make through a model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bnft.evaluation.summary import Passes


class Counter:
    """The passes of single images through a model since the last call of `take`."""

    def __init__(self) -> None:
        self._forward = self._backward = 0

    def take(self) -> Passes:
        """Return the passes so far, and begin again at zero."""
        passes = Passes(forward=self._forward, backward=self._backward)
        self._forward = self._backward = 0
        return passes

    def see(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor) -> None:
        """Count a forward pass, and later its backward passes. This is a forward hook."""
        self._forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._see_backward)

    def _see_backward(self, gradient: torch.Tensor) -> None:
        self._backward += len(gradient)


@contextmanager
def counted(model: nn.Module) -> Iterator[Counter]:
    """Count the passes through a model in this block."""
    counter = Counter()
    hook = model.register_forward_hook(counter.see)
    try:
        yield counter
    finally:
        hook.remove()
