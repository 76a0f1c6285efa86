"""The images within a budget of given images, in a norm."""

from typing import Literal

import torch

Norm = Literal["Linf", "L2"]


class Ball:
    """The images in [0, 1] within `eps` of `inputs` (N, C, H, W).

    Args:
        inputs: the images at the centre.
        eps: the maximal size of a perturbation, in pixel units.
        norm: the norm of perturbations.
    """

    def __init__(self, inputs: torch.Tensor, eps: float, norm: Norm) -> None:
        self.inputs, self.eps, self.norm = inputs, eps, norm
        if norm == "Linf":  # both conditions are one pair of bounds
            self.lower, self.upper = (inputs - eps).clamp(0, 1), (inputs + eps).clamp(0, 1)

    def random_point(self, generator: torch.Generator) -> torch.Tensor:
        """Draw points uniformly in the ball, and project them to [0, 1]."""
        shape, device = self.inputs.shape, self.inputs.device
        if self.norm == "Linf":
            uniform = torch.rand(shape, generator=generator, device=device)
            return self.project(self.inputs + self.eps * (2 * uniform - 1))
        normal = torch.randn(shape, generator=generator, device=device)
        radius = torch.rand(len(normal), generator=generator, device=device) ** (1 / normal[0].numel())
        return self.project(self.inputs + self.eps * per_image(radius) * unit(normal))

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the step of size one that increases a linear loss the most."""
        return gradient.sign() if self.norm == "Linf" else unit(gradient)

    def project(self, points: torch.Tensor) -> torch.Tensor:
        """Return the nearest points in the ball for Linf, and points in the ball for L2."""
        if self.norm == "Linf":
            return torch.minimum(torch.maximum(points, self.lower), self.upper)
        difference = points - self.inputs
        shrink = (self.eps / _length(difference).clamp_min(1e-12)).clamp_max(1)
        return (self.inputs + shrink * difference).clamp(0, 1)

    def of(self, images: torch.Tensor) -> "Ball":
        """Return the ball of some of the images; `images` are their indices."""
        return Ball(self.inputs[images], self.eps, self.norm)


def per_image(values: torch.Tensor) -> torch.Tensor:
    """Return values (N,) in the shape (N, 1, 1, 1), to be combined with images."""
    return values[:, None, None, None]


def unit(x: torch.Tensor) -> torch.Tensor:
    """Return images (N, C, H, W), each divided by its length. An image of zeros stays zero."""
    largest = per_image(x.abs().flatten(1).amax(1))
    x = x / largest.clamp_min(torch.finfo(x.dtype).tiny)  # the square of a very small gradient would be 0
    return x / _length(x).clamp_min(1e-12)


def _length(x: torch.Tensor) -> torch.Tensor:
    return per_image(x.flatten(1).norm(dim=1))
