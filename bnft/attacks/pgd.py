"""Projected gradient descent on the cross-entropy (Madry et al., 2018)."""

from typing import Annotated, Literal

import torch
from torch import nn
from torch.nn import functional

from bnft.attacks.ball import Ball, Norm, per_image
from bnft.common.constraints import above, at_least, number


def pgd(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    generator: torch.Generator,
    eps: Annotated[float, number, above(0)],
    iterations: Annotated[int, at_least(0)] = 10,
    step_size: Annotated[float, number, above(0)],
    norm: Norm = "Linf",
    random_start: bool = True,
    keep: Literal["worst", "last"] = "worst",
) -> torch.Tensor:
    """Compute adversarial examples by projected gradient descent (Madry et al., 2018).

    Only gradients with respect to the images are computed. Use it inside of `no_trace` (`bnft.attacks.base`), so that
    the model is left unchanged.

    Args:
        model: maps images to logits (N, classes).
        inputs: float images (N, C, H, W) in [0, 1].
        labels: their labels (N,).
        generator: draws the random start.
        eps: the maximal size of a perturbation, in pixel units.
        iterations: the number of gradient steps.
        step_size: the size of a step, in pixel units.
        norm: the norm of perturbations and steps.
        random_start: whether to start from a random point within `eps` of the inputs, not from the inputs.
        keep: `worst` returns the iterate with the highest loss of each image, including the start. `last` returns the
            last iterate.

    Returns:
        Images of the shape of `inputs`, in [0, 1] and within `eps` of the inputs.
    """
    begin = start(inputs, generator=generator, eps=eps, norm=norm, random_start=random_start)
    return climb(
        model, begin, inputs, labels, eps=eps, iterations=iterations, step_size=step_size, norm=norm, keep=keep
    )


def start(
    inputs: torch.Tensor, *, generator: torch.Generator, eps: float, norm: Norm, random_start: bool
) -> torch.Tensor:
    """Return the images from which `pgd` starts. This is the only random part of `pgd`."""
    return Ball(inputs, eps, norm).random_point(generator) if random_start else inputs.clone()


def climb(
    model: nn.Module,
    adversarial: torch.Tensor,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float,
    iterations: int,
    step_size: float,
    norm: Norm,
    keep: Literal["worst", "last"],
) -> torch.Tensor:
    """Carry out the iterations of `pgd` from the start `adversarial`. Nothing here is random or waits for the device.

    For the other arguments, see `pgd`.
    """
    ball = Ball(inputs, eps, norm)
    worst, worst_loss = adversarial, torch.full((len(inputs),), -torch.inf, device=inputs.device)
    for _ in range(iterations):
        adversarial = adversarial.detach().requires_grad_()
        with torch.enable_grad():
            loss = functional.cross_entropy(model(adversarial).float(), labels, reduction="none")
            (gradient,) = torch.autograd.grad(loss.sum(), adversarial)
        adversarial = adversarial.detach()
        if keep == "worst":
            worst, worst_loss = _worse(worst, worst_loss, adversarial, loss.detach())
        adversarial = ball.project(adversarial + step_size * ball.direction(gradient))
    if keep == "last":
        return adversarial
    with torch.no_grad():
        loss = functional.cross_entropy(model(adversarial).float(), labels, reduction="none")
    return _worse(worst, worst_loss, adversarial, loss)[0]


def _worse(
    worst: torch.Tensor, worst_loss: torch.Tensor, images: torch.Tensor, loss: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    higher = loss > worst_loss
    return torch.where(per_image(higher), images, worst), torch.where(higher, loss, worst_loss)
