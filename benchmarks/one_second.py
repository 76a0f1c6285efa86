"""A training attack that takes one second and returns its inputs, to measure the overhead of launchers."""

import time

import torch


def attack(
    model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, generator: torch.Generator
) -> torch.Tensor:
    time.sleep(1.0)
    return inputs
