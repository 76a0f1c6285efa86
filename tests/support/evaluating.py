"""Helpers for the tests of evaluation."""

import copy

from bnft.evaluation.cascade import Cascade

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
