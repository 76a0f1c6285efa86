"""Losses that attacks maximise, per image. `logits` are (N, classes), `labels` and `targets` are (N,)."""

import torch
from torch.nn import functional

TINY = 1e-12


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Return the cross-entropy."""
    return functional.cross_entropy(logits, labels, reduction="none")


def dlr(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Return the difference of logits ratio (Croce and Hein, 2020), which does not depend on the scale of logits.

    With two classes, it is the margin of the logits.
    """
    own = labels[:, None]
    true = logits.gather(1, own).squeeze(1)
    margin = logits.scatter(1, own, -torch.inf).amax(1) - true
    if logits.shape[1] < 3:
        return margin
    ordered = logits.sort(1, descending=True)[0]
    return margin / (ordered[:, 0] - ordered[:, 2] + TINY)


def targeted_margin(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:
    """Return the logit of the target class minus that of the true class."""
    assert targets is not None
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
