"""The fast search: images that fell leave an attack at once, and gradients are taken in bf16 where that is fast.

Whether an image falls is decided in fp32 all along. What differs from the standard evaluation: an image keeps the first
adversarial example that is found for it, where the official code goes on to the last; and a search that follows other
roundings can miss what the standard one finds, or the other way round.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from bnft.evaluation.query_cache import STEP


class Sieve(nn.Module):
    """A model for attacks. Inside `standing`, images that have been misclassified once are computed no more.

    What is given for them is a constant that looks as if they stood, with no gradient: the attack leaves them alone,
    and keeps the adversarial example that it has for them. `exact` is the model in fp32, which decides; with `bf16`,
    the forward and backward passes of `view` run in bf16 autocast.
    """

    def __init__(self, view: nn.Module, exact: nn.Module, bf16: bool) -> None:
        super().__init__()
        self.view, self.exact, self.bf16 = view, exact, bf16
        self._labels: torch.Tensor | None = None
        self._fallen = torch.empty(0)

    @contextmanager
    def standing(self, labels: torch.Tensor) -> Iterator[None]:
        """All forward passes in this block are of the same images in the same order, with these labels (n,)."""
        self._labels, self._fallen = labels, torch.zeros_like(labels, dtype=torch.bool)
        try:
            yield
        finally:
            self._labels = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._labels is None:
            return self._logits(x)
        order = self._fallen.sort(stable=True)[1]  # those that stand come first
        standing = int((~self._fallen).sum())
        computed = order[: min(len(x), -(-max(standing, 1) // STEP) * STEP)]
        logits, labels = self._logits(x[computed]), self._labels[computed]
        wrong = logits.detach().argmax(1) != labels
        if self.bf16 and bool(wrong.any()):
            logits, wrong = self._corrected(x[computed], logits, labels, wrong)
        settled = functional.one_hot(self._labels, logits.shape[1]).to(logits.dtype)
        real = ~self._fallen[computed]
        result = settled.index_copy(0, computed[real], logits[real])
        self._fallen[computed[wrong]] = True
        return result

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return self.view(x).float()

    def _corrected(
        self, x: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, wrong: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits in fp32, with gradients as they were, where bf16 says that an image fell; and which of them did."""
        with torch.no_grad():
            exact = self.exact(x[wrong].detach()).float()
            change = torch.zeros_like(logits)
            change[wrong] = exact - logits[wrong]
        logits = logits + change
        return logits, logits.detach().argmax(1) != labels
