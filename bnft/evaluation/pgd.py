"""PGD in evaluation: the loss that it reaches, and a quick attack for trials, which finds less than AutoAttack."""

import torch
from torch import nn
from torch.nn import functional

from bnft.attacks.pgd import Norm, pgd
from bnft.common.randomness import generator
from bnft.evaluation.cascade import Attack
from bnft.evaluation.settings import Evaluation

LOSS_ITERATIONS = 10  # as in the paper's adversarial training


def attacks(model: nn.Module, config: Evaluation, device: torch.device) -> list[Attack]:
    """One PGD attack a restart, each on the images that still stand."""

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
                norm=_norm(config),
            )

        name = f"pgd-{config.iterations}" + (f" ({restart + 1})" if (config.restarts or 1) > 1 else "")
        return Attack(name, run)

    return [stage(restart) for restart in range(config.restarts or 1)]


def loss(model: nn.Module, view: nn.Module, images: torch.Tensor, labels: torch.Tensor, config: Evaluation) -> float:
    """The mean cross-entropy of `model` on PGD examples for `images`, searched on `view`, within the budget.

    AutoAttack does not maximise a loss, so this is what section 3.3 of the paper measures with PGD.
    """
    losses = []
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
            norm=_norm(config),
        )
        with torch.no_grad():
            losses.append(functional.cross_entropy(model(adversarial).float(), truth, reduction="none"))
    return float(torch.cat(losses).mean())


def _norm(config: Evaluation) -> Norm:
    return "Linf" if config.norm == "Linf" else "L2"
