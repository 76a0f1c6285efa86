"""Helpers for the tests of evaluation."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from bnft.evaluation.cascade import Attack, Cascade, run
from bnft.evaluation.passes import Counter

EPS = 0.1


class Watched:
    """Keeps a copy of the cascade after each batch, and can interrupt it there."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.states: list[Cascade] = []
        self.stop_after = stop_after

    def attacked(self, cascade: Cascade, attacks: object) -> None:
        self.states.append(copy.deepcopy(cascade))
        if self.stop_after == len(self.states):
            raise KeyboardInterrupt

    def pulse(self) -> None:
        pass


def cascaded(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, attacks: Sequence[Attack], batch_size: int
) -> Cascade:
    """Run a cascade within EPS on images that all count as classified correctly, and return its state."""
    cascade = Cascade.start(images, torch.ones(len(images), dtype=torch.bool))
    run(
        model,
        images,
        labels,
        attacks,
        norm="Linf",
        eps=EPS,
        batch_size=batch_size,
        cascade=cascade,
        watcher=Watched(),
        counter=Counter(),
    )
    return cascade
