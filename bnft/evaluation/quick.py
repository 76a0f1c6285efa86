"""The quick attack as stages of a cascade; see `bnft.attacks.quick`."""

import logging

import torch
from torch import nn

from bnft.attacks.quick import quick_attack
from bnft.common.errors import show
from bnft.common.randomness import generator
from bnft.evaluation.cascade import Attack
from bnft.evaluation.pgd import norm_of
from bnft.evaluation.settings import Evaluation

HIDDEN_SHARE = 0.05  # of a batch; trained networks have none such image, except if they are almost constant
HIDDEN_LEAST = 2
HIDDEN = (
    "random stripes came closer to breaking images than gradients did: gradients may be masked, and quick may miss"
    " adversarial images; use AutoAttack"
)


def attacks(model: nn.Module, config: Evaluation, device: torch.device, thorough: bool = False) -> list[Attack]:
    """Return one quick attack per restart. With several budgets, return so many for each of them, smallest first.

    Args:
        model: the model to search on.
        config: the budgets, the restarts and the seed.
        device: the device of the model.
        thorough: see `quick_attack`.
    """

    def stage(restart: int, eps: float) -> Attack:
        def run(images: torch.Tensor, labels: torch.Tensor, batch: int) -> torch.Tensor:
            outcome = quick_attack(
                model,
                images,
                labels,
                generator=generator(device, config.seed, f"evaluation/quick/{restart}", step=batch),
                eps=eps,
                norm=norm_of(config),
                thorough=thorough,
            )
            if int(outcome.hidden.sum()) >= max(HIDDEN_LEAST, HIDDEN_SHARE * len(images)):
                logging.getLogger(__name__).warning(HIDDEN)
            return outcome.found.points

        name = "quick" if config.budgets is None else f"quick {show(eps)}"
        return Attack(name if (config.restarts or 1) == 1 else f"{name} ({restart + 1})", run, eps)

    return [stage(restart, eps) for eps in config.budgets or [config.eps] for restart in range(config.restarts or 1)]
