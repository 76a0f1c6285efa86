"""The undocumented parts of pyautoattack that bnft uses, as they are in pyautoattack 0.2.0.

The attributes of the attack objects that `autoattack.py` reads and sets are undocumented too. See `bnft.common.compat`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from pyautoattack import checks


def forget_calls() -> None:
    """Reset the counters of `check_dynamic`, which would otherwise add to the counts of an earlier check."""
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))


def runs_inside(attack: Any, block: Callable[[torch.Tensor], AbstractContextManager[None]]) -> None:
    """Make an APGD object run each restart and each target class inside of `block(labels)`."""
    run: Callable[..., Any] = attack.attack_single_run

    def attack_single_run(x: torch.Tensor, y: torch.Tensor, x_init: torch.Tensor | None = None) -> Any:
        with block(y):
            return run(x, y, x_init)

    attack.attack_single_run = attack_single_run
