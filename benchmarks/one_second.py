"""A training attack that takes a second and changes nothing: what a run costs beyond it is the launcher's."""

import time

import torch


def attack(
    model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, generator: torch.Generator
) -> torch.Tensor:
    time.sleep(1.0)
    return inputs
