"""The fast search of AutoAttack.

An attack ignores images that it has broken. It computes gradients in bf16 if the device has fast bf16. Whether an image
is broken is always decided in fp32. The search differs from the standard evaluation in two ways. An image keeps the
first adversarial example that is found, but the official code continues to the last. And because of rounding, the
search can miss adversarial examples that the standard search finds, and find others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from bnft.evaluation.query_cache import STEP


class Sieve(nn.Module):
    """A model for attacks. Within `standing`, it does not compute images that have been misclassified before.

    For these images, it returns constant logits of the correct class, without a gradient. The attack therefore keeps
    the adversarial example that it has found.

    Args:
        view: the model to search on.
        exact: the model in fp32, which decides whether an image is misclassified.
        bf16: whether forward and backward passes of `view` run in bf16 autocast.
    """

    def __init__(self, view: nn.Module, exact: nn.Module, bf16: bool) -> None:
        super().__init__()
        self.view, self.exact, self.bf16 = view, exact, bf16
        self._labels: torch.Tensor | None = None
        self._broken = torch.empty(0)

    @contextmanager
    def standing(self, labels: torch.Tensor) -> Iterator[None]:
        """Skip broken images in this block. All forward passes must be of the same images, with these labels (n,)."""
        self._labels, self._broken = labels, torch.zeros_like(labels, dtype=torch.bool)
        try:
            yield
        finally:
            self._labels = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._labels is None:
            return self._logits(x)
        order = self._broken.sort(stable=True)[1]  # images that are not broken come first
        standing = int((~self._broken).sum())
        computed = order[: min(len(x), -(-max(standing, 1) // STEP) * STEP)]
        logits, labels = self._logits(x[computed]), self._labels[computed]
        wrong = logits.detach().argmax(1) != labels
        if self.bf16 and bool(wrong.any()):
            logits, wrong = self._corrected(x[computed], logits, labels, wrong)
        settled = functional.one_hot(self._labels, logits.shape[1]).to(logits.dtype)
        real = ~self._broken[computed]
        result = settled.index_copy(0, computed[real], logits[real])
        self._broken[computed[wrong]] = True
        return result

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return self.view(x).float()

    def _corrected(
        self, x: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, wrong: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Replace the logits of images that are misclassified in bf16 by those in fp32. Gradients are unchanged.

        Returns:
            The logits, and which images are misclassified.
        """
        with torch.no_grad():
            exact = self.exact(x[wrong].detach()).float()
            change = torch.zeros_like(logits)
            change[wrong] = exact - logits[wrong]
        logits = logits + change
        return logits, logits.detach().argmax(1) != labels
