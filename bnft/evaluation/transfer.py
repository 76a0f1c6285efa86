"""How many of the adversarial images that break one model also fool another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bnft.evaluation.evaluate import SCORING_BATCH, score
from bnft.evaluation.scores import undisturbed
from bnft.evaluation.summary import ErrorRate


@dataclass(frozen=True)
class Attacked:
    """A model, and what an attack found for n images.

    Attributes:
        model: the model in eval mode and fp32. It maps images (N, C, H, W) to logits.
        adversarial: images (n, C, H, W): the adversarial image if the attack broke the image.
        broken: bool (n,), whether the attack broke the image.
        correct: bool (n,), whether the model classifies the image correctly without an attack.
    """

    model: nn.Module
    adversarial: torch.Tensor
    broken: torch.Tensor
    correct: torch.Tensor


def transfer(attacked: Sequence[Attacked], labels: torch.Tensor, device: torch.device) -> list[list[ErrorRate | None]]:
    """Measure the error of each model on the adversarial images of each model.

    Only images count that were broken for the source, and that the target classifies correctly without an attack. On
    the diagonal, these are all broken images, and the error is 100 % apart from rounding.

    Args:
        attacked: the models on the device, and their adversarial images. All are about the same n images.
        labels: the labels (n,) of the images.
        device: the device of the models.

    Returns:
        One list per source, with one error per target; None if no image counts.
    """
    with undisturbed(device):
        return [[_error(source, target, labels, device) for target in attacked] for source in attacked]


def _error(source: Attacked, target: Attacked, labels: torch.Tensor, device: torch.device) -> ErrorRate | None:
    tried = source.broken & target.correct
    count = int(tried.sum())
    if not count:
        return None
    logits = score(target.model, source.adversarial[tried].to(device), SCORING_BATCH)
    return ErrorRate.of(int((logits.argmax(1).cpu() != labels[tried]).sum()), count)
