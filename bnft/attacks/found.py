"""What an attack has found for each image: an adversarial image, or the point closest to one."""

from dataclasses import dataclass

import torch

from bnft.attacks.ball import per_image


@dataclass
class Found:
    """The best points found for N images.

    The margins of a point are the logits of all classes minus that of the true class. The largest is negative if the
    image is classified correctly.

    Attributes:
        broken: bool (N,), whether the point is misclassified.
        points: images (N, C, H, W): the first misclassified point, or else the one with the largest margin.
        margins: the margins (N, classes) of the point. That of the true class is -inf.
    """

    broken: torch.Tensor
    points: torch.Tensor
    margins: torch.Tensor

    @classmethod
    def at(cls, points: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> "Found":
        """Start from points with these logits (N, classes) and labels (N,)."""
        return cls(logits.argmax(1) != labels, points.clone(), _margins(logits, labels))

    def take(self, images: torch.Tensor, other: "Found") -> None:
        """Keep those of the other points that are better. `images` are the indices of their images, each once."""
        before = self.of(images)
        better = ~before.broken & (other.broken | (other.closest > before.closest))
        self.points[images] = torch.where(per_image(better), other.points, before.points)
        self.margins[images] = torch.where(better[:, None], other.margins, before.margins)
        self.broken[images] = before.broken | other.broken

    def of(self, images: torch.Tensor) -> "Found":
        """Return what was found for some of the images; `images` are their indices."""
        return Found(self.broken[images], self.points[images], self.margins[images])

    def best_of(self, copies: int) -> "Found":
        """Return the best of each `copies` neighbouring points, which belong to one image."""
        score = torch.where(self.broken, torch.inf, self.closest).view(-1, copies)
        first = torch.arange(len(score), device=score.device) * copies
        return self.of(first + score.argmax(1))

    def standing(self) -> torch.Tensor:
        """Return the indices of the images that are not broken. This waits for the device."""
        return (~self.broken).nonzero().squeeze(1)

    @property
    def closest(self) -> torch.Tensor:
        """The largest margin (N,) of each point."""
        return self.margins.amax(1)


def _margins(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    own = labels[:, None]
    return (logits - logits.gather(1, own)).scatter(1, own, -torch.inf)
