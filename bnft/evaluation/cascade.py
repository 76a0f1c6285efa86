"""Attacks one after another, each on the images that still stand, saved after every batch.

The order of events is that of AutoAttack's `run_standard_evaluation`: an attack's batches are cut from the images that
stood when it began, and its seed is set anew for every batch. So on one seed and batch size every image falls to the
same attack as in the official run; and a run that was killed goes on from its last batch with the same partition.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from bnft.attacks.base import perturbation_size
from bnft.evaluation.settings import CLEAN, STANDS


class EvaluationError(RuntimeError):
    """The evaluation would have reported something untrue."""


@dataclass(frozen=True)
class Attack:
    """One attack of the cascade: `run(images, labels, batch_index)` returns as many images."""

    name: str
    run: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


@dataclass
class Cascade:
    """The state of a cascade over n images.

    `fallen_at` is int8 of shape (n,): STANDS, CLEAN, or the number (from 1) of the attack the image fell to.
    `adversarial` has the images' shape: the adversarial image of those that fell to an attack, the image itself for
    all others. `attack` and `batch` say where to go on; `members` are the images that stood when that attack began.
    """

    fallen_at: torch.Tensor
    adversarial: torch.Tensor
    members: torch.Tensor
    attack: int = 0
    batch: int = 0
    seconds: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, images: torch.Tensor, correct: torch.Tensor) -> "Cascade":
        """The cascade before its first attack; `correct` says which of the n images are classified correctly."""
        fallen_at = torch.where(correct, STANDS, CLEAN).to(torch.int8).cpu()
        return cls(fallen_at, images.clone().cpu(), (fallen_at == STANDS).nonzero().squeeze(1))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The fields that are tensors; with `place`, the whole state."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def place(self) -> dict[str, Any]:
        """The other fields, as JSON."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, torch.Tensor)}

    @property
    def standing(self) -> int:
        return int((self.fallen_at == STANDS).sum())


class Watcher(Protocol):
    """Who keeps the cascade and shows how it stands, after every batch."""

    def attacked(self, cascade: Cascade, attacks: Sequence[Attack]) -> None: ...

    def pulse(self) -> None:
        """Called before each forward pass of an attack; raises Stopped to end there, after the last whole batch."""


Shared = Callable[[int, Sequence[torch.Tensor], int], Iterator[torch.Tensor]]
"""What attack k (from 0) makes of batches of image numbers, from a given one on; see `sharing.Helpers.found`."""


@torch.no_grad()
def run(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    attacks: Sequence[Attack],
    *,
    norm: str,
    eps: float,
    batch_size: int,
    cascade: Cascade,
    watcher: Watcher,
    shared: Shared | None = None,
) -> None:
    """Run or go on with `cascade`, in place, on `images` (n, C, H, W) in [0, 1] with `labels` (n,).

    `model` scores what the attacks return; `shared` stands in for their `run` where other processes run them. Raises
    EvaluationError for an adversarial image that is not an image or is further than `eps` from the original.
    """
    device = images.device
    while cascade.attack < len(attacks) and cascade.standing:
        attack = attacks[cascade.attack]
        batches = cascade.members.split(batch_size)
        if len(cascade.seconds) == cascade.attack:
            cascade.seconds.append(0.0)
        finds = shared(cascade.attack, batches, cascade.batch) if shared is not None else None
        while cascade.batch < len(batches):
            started = time.monotonic()
            indices = batches[cascade.batch]
            originals, truth = images[indices.to(device)], labels[indices.to(device)]
            found = attack.run(originals, truth, cascade.batch) if finds is None else next(finds)
            found = laid_out(found, originals)
            fooled = model(found).argmax(1) != truth
            check_adversarial(found[fooled], originals[fooled], norm, eps, attack.name)
            fallen = indices[fooled.cpu()]
            cascade.fallen_at[fallen] = cascade.attack + 1
            cascade.adversarial[fallen] = found[fooled].cpu()
            cascade.batch += 1
            cascade.seconds[cascade.attack] += time.monotonic() - started
            watcher.attacked(cascade, attacks)
        cascade.attack, cascade.batch = cascade.attack + 1, 0
        cascade.members = (cascade.fallen_at == STANDS).nonzero().squeeze(1)


def laid_out(images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A copy of `images` in the memory layout of `like`, which has their shape, and on its device.

    Convolutions round differently in another layout, and both files and other processes change the layout.
    """
    return torch.empty_like(like).copy_(images)


def check_adversarial(found: torch.Tensor, originals: torch.Tensor, norm: str, eps: float, name: str) -> None:
    """Raise EvaluationError unless every image in `found` is one, within `eps` of its original but for rounding."""
    if not len(found):
        return
    check_images(found, f"{name} returned")
    largest = float(perturbation_size(found, originals, norm).max())
    if not largest <= eps + tolerance(originals, norm):
        raise EvaluationError(f"{name} overstepped its budget: {norm} {largest:.8f} where eps is {eps:.8f}")


def tolerance(originals: torch.Tensor, norm: str) -> float:
    """What float32 rounding of x + delta can add to a perturbation's size: one unit in the last place per pixel."""
    unit = torch.finfo(torch.float32).eps
    return 2 * unit if norm == "Linf" else 2 * unit * float(originals[0].numel()) ** 0.5 + 1e-5


def check_images(images: torch.Tensor, what: str) -> None:
    """Raise EvaluationError unless all values lie in [0, 1]."""
    if not bool(torch.isfinite(images).all()):
        raise EvaluationError(f"{what} images with values that are not finite")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise EvaluationError(f"{what} images with values from {low:.4g} to {high:.4g}: must be in [0, 1]")
