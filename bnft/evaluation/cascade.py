"""A cascade of attacks. Each attack runs on the images that no attack has broken yet. Every batch can be saved.

The order is the same as in AutoAttack's `run_standard_evaluation`: the batches of an attack consist of the images that
were robust when it began, and the seed is set again for every batch. With the same seed and batch size, every image is
therefore broken by the same attack as in the official run. An interrupted run continues from its last batch with the
same batches.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from bnft.attacks.base import perturbation_size
from bnft.evaluation.passes import Counter
from bnft.evaluation.settings import CLEAN, STANDS
from bnft.evaluation.summary import Passes


class EvaluationError(RuntimeError):
    """The evaluation would report wrong numbers."""


@dataclass(frozen=True)
class Attack:
    """One attack of the cascade.

    Attributes:
        name: its name.
        run: `run(images, labels, batch_index)` returns one image for each image.
        eps: the maximal size of its perturbations, if it is not that of the evaluation.
    """

    name: str
    run: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
    eps: float | None = None


@dataclass
class Cascade:
    """The state of a cascade over n images.

    Attributes:
        fallen_at: int8 of shape (n,): STANDS for a robust image, CLEAN for a misclassified one, or the number of the
            attack that broke the image, counted from 1.
        adversarial: images (n, C, H, W): the adversarial image if an attack broke the image, else the image itself.
        members: the indices of the images that were robust when the current attack began.
        attack: the current attack, counted from 0.
        batch: the next batch of this attack, counted from 0.
        seconds: the duration of each attack.
        warnings: the warnings of the attacks.
        passes: the passes of all attacks, as the fields of `Passes`. None if they are not known, because a part of them
            was made before passes were counted.
    """

    fallen_at: torch.Tensor
    adversarial: torch.Tensor
    members: torch.Tensor
    attack: int = 0
    batch: int = 0
    seconds: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    passes: dict[str, int] | None = None  # as in saved states that lack it

    @classmethod
    def start(cls, images: torch.Tensor, correct: torch.Tensor) -> "Cascade":
        """Begin a cascade. `correct` (n,) says which images are classified correctly."""
        fallen_at = torch.where(correct, STANDS, CLEAN).to(torch.int8).cpu()
        members = (fallen_at == STANDS).nonzero().squeeze(1)
        return cls(fallen_at, images.clone().cpu(), members, passes=asdict(Passes()))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the fields that are tensors. Together with `place`, they are the whole state."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def place(self) -> dict[str, Any]:
        """Return the fields that are not tensors, as JSON."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, torch.Tensor)}

    @property
    def standing(self) -> int:
        """The number of images that are robust so far."""
        return int((self.fallen_at == STANDS).sum())


class Watcher(Protocol):
    """Saves the cascade and shows its progress."""

    def attacked(self, cascade: Cascade, attacks: Sequence[Attack]) -> None:
        """Called after each batch."""

    def pulse(self) -> None:
        """Called before each forward pass of an attack. Raises Stopped to end the evaluation after the last batch."""


Shared = Callable[[int, Sequence[torch.Tensor], int], Iterator[tuple[torch.Tensor, Passes]]]
"""Runs an attack, by its index, on batches of image indices, from a given batch on; see `processes.Helpers.found`."""


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
    counter: Counter,
    shared: Shared | None = None,
) -> None:
    """Run a cascade in place, from its current state.

    Args:
        model: scores the images that the attacks return.
        images: images (n, C, H, W) in [0, 1].
        labels: their labels (n,).
        attacks: all attacks of the cascade.
        norm: the norm of perturbations.
        eps: the maximal size of a perturbation, for attacks that have no `eps` of their own.
        batch_size: images per batch.
        cascade: the state.
        watcher: called after each batch.
        counter: counts the passes of attacks that run in this process.
        shared: runs the attacks in other processes, in place of their own `run`.

    Raises:
        EvaluationError: if an adversarial image is not in [0, 1] or not within the budget of its attack.
    """
    device = images.device
    while cascade.attack < len(attacks) and cascade.standing:
        attack = attacks[cascade.attack]
        batches = cascade.members.split(batch_size)
        if len(cascade.seconds) == cascade.attack:
            cascade.seconds.append(0.0)
        results = shared(cascade.attack, batches, cascade.batch) if shared is not None else None
        while cascade.batch < len(batches):
            started = time.monotonic()
            indices = batches[cascade.batch]
            originals, truth = images[indices.to(device)], labels[indices.to(device)]
            if results is None:
                counter.take()  # what was scored before, if the attacks search on `model` itself
                candidates, passes = attack.run(originals, truth, cascade.batch), counter.take()
            else:
                candidates, passes = next(results)
            candidates = laid_out(candidates, originals)
            fooled = model(candidates).argmax(1) != truth
            check_adversarial(candidates[fooled], originals[fooled], norm, attack.eps or eps, attack.name)
            broken = indices[fooled.cpu()]
            cascade.fallen_at[broken] = cascade.attack + 1
            cascade.adversarial[broken] = candidates[fooled].cpu()
            if cascade.passes is not None:
                cascade.passes = asdict(Passes(**cascade.passes) + passes)
            cascade.batch += 1
            cascade.seconds[cascade.attack] += time.monotonic() - started
            watcher.attacked(cascade, attacks)
        cascade.attack, cascade.batch = cascade.attack + 1, 0
        cascade.members = (cascade.fallen_at == STANDS).nonzero().squeeze(1)


def laid_out(images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Copy `images` to the memory layout and device of `like`, which has the same shape.

    The rounding of convolutions depends on the layout. Writing images to a file or sending them to another process
    changes it.
    """
    return torch.empty_like(like).copy_(images)


def check_adversarial(images: torch.Tensor, originals: torch.Tensor, norm: str, eps: float, name: str) -> None:
    """Raise EvaluationError unless all images are in [0, 1] and within `eps` of their originals, up to rounding."""
    if not len(images):
        return
    check_images(images, f"{name} returned")
    largest = float(perturbation_size(images, originals, norm).max())
    if not largest <= eps + tolerance(originals, norm):
        raise EvaluationError(f"{name} exceeded its budget: {norm} {largest:.8f} with eps {eps:.8f}")


def tolerance(originals: torch.Tensor, norm: str) -> float:
    """Return how much the size of a perturbation can grow by rounding: one unit in the last place per pixel."""
    unit = torch.finfo(torch.float32).eps
    return 2 * unit if norm == "Linf" else 2 * unit * float(originals[0].numel()) ** 0.5 + 1e-5


def check_images(images: torch.Tensor, what: str) -> None:
    """Raise EvaluationError unless all values lie in [0, 1]."""
    if not bool(torch.isfinite(images).all()):
        raise EvaluationError(f"{what} images with values that are not finite")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise EvaluationError(f"{what} images with values from {low:.4g} to {high:.4g}: must be in [0, 1]")
