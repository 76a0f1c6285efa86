"""PGD in evaluation: the loss on its examples, and an attack that is faster than AutoAttack but finds less."""

import torch
from torch import nn
from torch.nn import functional

from bnft.attacks.ball import Norm
from bnft.attacks.pgd import pgd
from bnft.common.randomness import generator
from bnft.evaluation.cascade import Attack
from bnft.evaluation.settings import Evaluation

LOSS_ITERATIONS = 10  # as in the paper's adversarial training


def attacks(model: nn.Module, config: Evaluation, device: torch.device) -> list[Attack]:
    """Return one PGD attack per restart."""

    def stage(restart: int) -> Attack:
        def run(images: torch.Tensor, labels: torch.Tensor, batch: int) -> torch.Tensor:
            draws = generator(device, config.seed, f"evaluation/{restart}", step=batch)
            return pgd(
                model,
                images,
                labels,
                generator=draws,
                eps=config.eps,
                iterations=config.iterations or 40,
                step_size=config.step_size or config.eps / 4,
                norm=norm_of(config),
            )

        name = f"pgd-{config.iterations}" + (f" ({restart + 1})" if (config.restarts or 1) > 1 else "")
        return Attack(name, run)

    return [stage(restart) for restart in range(config.restarts or 1)]


def logits(
    model: nn.Module, view: nn.Module, images: torch.Tensor, labels: torch.Tensor, config: Evaluation
) -> torch.Tensor:
    """Return the logits (N, classes) of `model` on PGD examples within the budget, for figures and the loss on them.

    Section 3.3 of the paper compares the cross-entropy, logits and confidences on such examples. AutoAttack's examples
    cannot be used for this, because AutoAttack does not maximise a loss and keeps an image once it is broken.

    Args:
        model: the model.
        view: the view of the model on which PGD searches.
        images: images (N, C, H, W) in [0, 1].
        labels: their labels (N,).
        config: the budget, the batch size and the seed.
    """
    parts = []
    for batch, (inputs, truth) in enumerate(
        zip(images.split(config.batch_size), labels.split(config.batch_size), strict=True)
    ):
        adversarial = pgd(
            view,
            inputs,
            truth,
            generator=generator(images.device, config.seed, "evaluation/loss", step=batch),
            eps=config.eps,
            iterations=LOSS_ITERATIONS,
            step_size=config.eps / 4,
            norm=norm_of(config),
        )
        with torch.no_grad():
            parts.append(model(adversarial).float())
    return torch.cat(parts)


def loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean cross-entropy of logits (N, classes)."""
    return float(functional.cross_entropy(logits, labels, reduction="none").mean())


def norm_of(config: Evaluation) -> Norm:
    """Return the norm of an evaluation."""
    return "Linf" if config.norm == "Linf" else "L2"
