"""Auto-PGD (Croce and Hein, 2020), which stops attacking an image at its first adversarial example.

On a CPU, images leave the batch as soon as they are broken. On other devices, they stay in the batch, because looking
at them would wait for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import nn

from bnft.attacks.ball import Ball, Norm, per_image
from bnft.attacks.found import Found

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Returns the loss (N,) of logits (N, classes), labels (N,) and target classes (N,), if the loss has targets."""

MOMENTUM = 0.75  # the constants of Auto-PGD: the weight of the new step,
RISES = 0.75  # the share of steps that must increase the loss to keep the step size,
FIRST_STEP = 2.0  # the first step size, in units of eps,
CHECKPOINTS = (22, 3, 6)  # and the first checkpoint, by how much periods shrink, and the shortest one, in percent


def apgd_search(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    generator: torch.Generator,
    eps: float,
    norm: Norm,
    iterations: int,
    loss: Loss,
    targets: torch.Tensor | None = None,
) -> Found:
    """Search adversarial examples from one random start per image, or per image and target class.

    Use it inside of `no_trace` (`bnft.attacks.base`). Nothing is random but the start.

    Args:
        model: maps images to logits (N, classes).
        inputs: float images (N, C, H, W) in [0, 1].
        labels: their labels (N,).
        generator: draws the starts.
        eps: the maximal size of a perturbation, in pixel units.
        norm: the norm of perturbations.
        iterations: the number of gradient steps.
        loss: what to maximise.
        targets: the target classes (N, k) of each image. They are tried side by side.

    Returns:
        What was found for the N images. Points are in [0, 1] and within `eps` of the inputs.
    """
    copies = 1 if targets is None else targets.shape[1]
    owner = torch.arange(len(inputs), device=inputs.device).repeat_interleave(copies)
    labels, target = labels[owner], None if targets is None else targets.reshape(-1)
    ball = Ball(inputs[owner], eps, norm)
    climb = _Climb.begin(ball.random_point(generator), FIRST_STEP * eps)
    there = torch.arange(len(owner), device=inputs.device)  # the copies that are still attacked
    leave = _leaves(inputs.device)
    checkpoints = _checkpoints(iterations)
    found: Found | None = None
    for iteration in range(iterations + 1):
        last = iteration == iterations
        point = climb.point.detach().requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            logits = model(point).float()
            value = loss(logits, labels[there], None if target is None else target[there])
            total = value.sum()
        here = Found.at(climb.point, logits.detach(), labels[there])
        if found is None:
            found = here
        else:
            found.take(there, here)
        if leave and bool(found.broken[there].any()):
            gone = torch.zeros(len(inputs), dtype=torch.bool).index_fill(0, owner[found.broken], True)
            stay = (~gone[owner[there]]).nonzero().squeeze(1)
        else:
            stay = None
        if last or (stay is not None and not len(stay)):
            break
        (gradient,) = torch.autograd.grad(total, point)
        value = value.detach()
        if stay is not None:
            there, value, gradient = there[stay], value[stay], gradient[stay]
            climb, ball = climb.of(stay), ball.of(stay)
        climb.look(value, gradient)
        if iteration in checkpoints:
            gradient = climb.check(gradient, checkpoints[iteration])
        climb.advance(gradient, ball, momentum=iteration > 0)
    assert found is not None
    return found.best_of(copies)


def _leaves(device: torch.device) -> bool:
    """Return whether images leave the batch as soon as they are broken."""
    return device.type == "cpu"


def _checkpoints(iterations: int) -> dict[int, int]:
    """Return the iterations at which the step size is checked, and the number of steps since the last check."""
    period, shrink, shortest = CHECKPOINTS
    place, before, result = period, 0, {}
    while place < 100:
        here = -(-place * iterations // 100)
        if here > before:
            result[here] = here - before
            before = here
        period = max(period - shrink, shortest)
        place += period
    return result


@dataclass
class _Climb:
    """The state of the ascent of n images.

    Attributes:
        point: the current images (n, C, H, W).
        previous: the images before the last step.
        step: the step sizes (n,).
        value: the loss (n,) at the current images.
        best: the highest loss so far (n,), with its images `best_point` and their gradient `best_gradient`.
        rises: how many steps (n,) increased the loss since the last check.
        old_step: the step size (n,) before the last check.
        old_best: the highest loss (n,) at the last check.
    """

    point: torch.Tensor
    previous: torch.Tensor
    step: torch.Tensor
    value: torch.Tensor
    best: torch.Tensor
    best_point: torch.Tensor
    best_gradient: torch.Tensor
    rises: torch.Tensor
    old_step: torch.Tensor
    old_best: torch.Tensor

    @classmethod
    def begin(cls, start: torch.Tensor, step: float) -> "_Climb":
        steps = torch.full((len(start),), step, device=start.device)
        lowest = torch.full_like(steps, -torch.inf)
        return cls(
            point=start,
            previous=start,
            step=steps,
            value=-lowest,  # so that the first step is no rise
            best=lowest,
            best_point=start,
            best_gradient=torch.zeros_like(start),
            rises=torch.zeros_like(steps),
            old_step=torch.zeros_like(steps),
            old_best=lowest,
        )

    def of(self, images: torch.Tensor) -> "_Climb":
        """Return the state of some of the images; `images` are their indices."""
        return _Climb(*(getattr(self, part.name)[images] for part in fields(self)))

    def look(self, value: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take in the loss and its gradient at the current images."""
        self.rises = self.rises + (value > self.value)
        higher = value > self.best
        self.value = value
        self.best = torch.where(higher, value, self.best)
        self.best_point = torch.where(per_image(higher), self.point, self.best_point)
        self.best_gradient = torch.where(per_image(higher), gradient, self.best_gradient)

    def check(self, gradient: torch.Tensor, steps: int) -> torch.Tensor:
        """Halve the step size of images that make no progress, and return them to their best point.

        Returns:
            The gradient at the current images.
        """
        unchanged = (self.old_step == self.step) & (self.old_best >= self.best)
        halve = (self.rises <= RISES * steps) | unchanged
        self.old_step, self.old_best, self.rises = self.step, self.best, torch.zeros_like(self.rises)
        self.step = torch.where(halve, self.step / 2, self.step)
        self.point = torch.where(per_image(halve), self.best_point, self.point)
        return torch.where(per_image(halve), self.best_gradient, gradient)

    def advance(self, gradient: torch.Tensor, ball: Ball, momentum: bool) -> None:
        """Make a step."""
        new = ball.project(self.point + per_image(self.step) * ball.direction(gradient))
        if momentum:
            new = ball.project(
                self.point + MOMENTUM * (new - self.point) + (1 - MOMENTUM) * (self.point - self.previous)
            )
        self.previous, self.point = self.point, new
