"""A quick PGD evaluation, for trials. It finds fewer adversarial examples than AutoAttack."""

import torch
from torch import nn

from bnft.attacks.pgd import pgd
from bnft.evaluation.cascade import Attack
from bnft.randomness import generator
from bnft.schema import Evaluation


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
                norm="Linf" if config.norm == "Linf" else "L2",
            )

        name = f"pgd-{config.iterations}" + (f" ({restart + 1})" if (config.restarts or 1) > 1 else "")
        return Attack(name, run)

    return [stage(restart) for restart in range(config.restarts or 1)]
