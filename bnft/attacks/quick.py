"""An attack on many images that spends its passes on the images that are closest to being broken.

It begins with a few steps of Auto-PGD (Croce and Hein, 2020) for all images, on the cross-entropy and on the difference
of logits ratio, and with random stripes, which need no gradient (the start of Square Attack, Andriushchenko et al.,
2020). The margin that an image has left then says how close it is: the largest other logit minus that of the true
class, divided by the margin without an attack. Only the closest images are attacked further, towards their closest
target classes. An image is not attacked any more once it is broken.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from bnft.attacks.apgd import apgd_search
from bnft.attacks.ball import Ball, Norm
from bnft.attacks.found import Found
from bnft.attacks.losses import cross_entropy, dlr, targeted_margin


@dataclass(frozen=True)
class Round:
    """One round of targeted attacks: up to which remaining margin, towards how many classes, and how long."""

    margin: float
    targets: int
    iterations: int


FIRST_ITERATIONS = 10  # on the cross-entropy
STRIPES = 10  # random stripes
SECOND_ITERATIONS = 20  # on the difference of logits ratio
ROUNDS = (Round(0.25, 3, 20), Round(0.2, 9, 25), Round(0.1, 9, 50))
FEW = 8  # a round attacks at least so many images
STUCK = 0.98  # the remaining margin from which an image counts as not brought closer


@dataclass(frozen=True)
class Outcome:
    """The result of the attack on N images.

    Attributes:
        found: the adversarial image or the closest point of each image.
        hidden: bool (N,), whether a random stripe came closer than the gradient steps for all images. If this is true
            for many images, the gradients of the model do not show where adversarial images are.
    """

    found: Found
    hidden: torch.Tensor


def quick_attack(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    generator: torch.Generator,
    eps: float,
    norm: Norm,
    thorough: bool = False,
) -> Outcome:
    """Search an adversarial image for each image, once.

    Use it inside of `no_trace` (`bnft.attacks.base`). On devices other than the CPU, it waits for the device between
    its parts only.

    Args:
        model: maps images to logits (N, classes).
        inputs: float images (N, C, H, W) in [0, 1].
        labels: their labels (N,).
        generator: draws all random numbers.
        eps: the maximal size of a perturbation, in pixel units.
        norm: the norm of perturbations.
        thorough: whether the rounds attack all images that are left, towards all classes, instead of the closest ones.

    Returns:
        What was found. Points are in [0, 1] and within `eps` of the inputs.
    """
    search = partial(apgd_search, model, generator=generator, eps=eps, norm=norm)
    with torch.no_grad():
        found = Found.at(inputs, model(inputs).float(), labels)
    clean, classes = found.closest, found.margins.shape[1]
    hidden = torch.zeros_like(found.broken)
    for iterations, loss in ((FIRST_ITERATIONS, cross_entropy), (SECOND_ITERATIONS, dlr)):
        if len(left := found.standing()):
            found.take(left, search(inputs[left], labels[left], iterations=iterations, loss=loss))
    if len(left := found.standing()):
        stripes = random_stripes(
            model, inputs[left], labels[left], generator=generator, eps=eps, norm=norm, queries=STRIPES
        )
        hidden[left] = stripes.broken | (stripes.closest > found.closest[left])
        found.take(left, stripes)
    for part in ROUNDS:
        if not len(left := found.standing()):
            break
        tried = classes - 1 if thorough else min(part.targets, classes - 1)
        if not thorough:
            left = _worthwhile(left, (found.closest / clean).nan_to_num(1.0)[left], part.margin)  # 0 of 0 is stuck
        targets = found.margins.argsort(dim=1, descending=True, stable=True)[:, :tried]
        for images in left.split(max(1, len(inputs) // tried)):  # so that batches do not become larger
            found.take(
                images,
                search(
                    inputs[images],
                    labels[images],
                    iterations=part.iterations,
                    loss=targeted_margin,
                    targets=targets[images],
                ),
            )
    return Outcome(found, hidden)


def _worthwhile(images: torch.Tensor, margins: torch.Tensor, limit: float) -> torch.Tensor:
    """Return those of the images that are close to being broken, or that no attack has brought closer so far.

    Args:
        images: the indices of the images.
        margins: the remaining margin (n,) of each of them.
        limit: the largest margin of an image that is close. At least the FEW closest images count as close.
    """
    order = margins.argsort(stable=True)
    close = max(FEW, int((margins < limit).sum()))
    stuck = int((margins > STUCK).sum())
    return images[torch.cat([order[:close], order[max(close, len(order) - stuck) :]])]


@torch.no_grad()
def random_stripes(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    generator: torch.Generator,
    eps: float,
    norm: Norm,
    queries: int,
) -> Found:
    """Try perturbations of vertical stripes with random signs. For the arguments, see `quick_attack`."""
    count, channels, _, width = inputs.shape
    ball = Ball(inputs, eps, norm)
    images = torch.arange(count, device=inputs.device)
    found: Found | None = None
    for _ in range(queries):
        signs = torch.rand((count, channels, 1, width), generator=generator, device=inputs.device).sub(0.5).sign()
        points = ball.project(inputs + eps * ball.direction(signs.expand_as(inputs)))
        here = Found.at(points, model(points).float(), labels)
        if found is None:
            found = here
        else:
            found.take(images, here)
    assert found is not None
    return found
