"""The recipe with which tests train."""

import torch

from bnft.attacks.pgd import pgd
from bnft.common.devices import Hardware
from bnft.data.augmentation import crop
from bnft.training.recipe import Recipe
from bnft.training.shapes import one_cycle

CPU = Hardware(torch.device("cpu"), "fp32", 1)


def attack(model, inputs, labels, generator):
    return pgd(model, inputs, labels, generator=generator, eps=0.1, iterations=2, step_size=0.05)


RECIPE = Recipe(
    epochs=2,
    batch_size=64,
    lr=0.05,
    shape=one_cycle,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    augmentation=crop,
    attack=attack,
    attack_mode="eval",
    seed=0,
)
