"""Learning-rate shapes. They map the progress of training, from 0 to 1, to a factor of the peak learning rate.

`conf/schedule/shape/` names them by `_target_`.
"""

import math
from collections.abc import Callable
from typing import Annotated

from bnft.common.constraints import above, at_least, at_most, below, not_empty

Shape = Callable[[float], float]
Fraction = Annotated[float, at_least(0), at_most(1)]


def step(
    progress: float,
    milestones: Annotated[list[Fraction], not_empty] = [0.4, 0.6, 0.8],  # noqa: B006 (never changed)
    factor: Annotated[float, above(0), at_most(1)] = 0.1,
) -> float:
    """Multiply by `factor` at each milestone. The defaults are epochs 60, 90 and 120 of 150."""
    return float(factor ** sum(progress >= milestone for milestone in milestones))


def cosine(progress: float, final: Fraction = 0.0) -> float:
    """Decrease from 1 to `final` along half a cosine (Loshchilov and Hutter, 2017, without restarts)."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(
    progress: float,
    warmup: Annotated[float, above(0), below(1)] = 0.25,
    start: Fraction = 0.05,
    final: Fraction = 0.0,
) -> float:
    """Increase linearly from `start` to 1 until `warmup`, then decrease linearly to `final` (Smith and Topin, 2018)."""
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return final + (1 - final) * (1 - progress) / (1 - warmup)
