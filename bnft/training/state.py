"""Where training stands, and what it goes on from."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch

from bnft.batchnorm.log import BatchNormLog


@dataclass
class TrainingState:
    """Where training stands: after `step` batches of `epoch` (from 0), with what is needed to go on from there.

    `velocity` is the optimizer's momentum by parameter name. `losses` and `errors` are sums over `images`: all of the
    epoch so far, but where Keeper says otherwise. `seconds` is its duration so far.
    """

    epoch: int = 0
    step: int = 0
    losses: float = 0.0
    errors: int = 0
    images: int = 0
    seconds: float = 0.0
    velocity: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    batchnorm: BatchNormLog = field(default_factory=BatchNormLog)

    def place(self) -> dict[str, Any]:
        """The fields that are numbers, as JSON; the others are tensors and logs, which have files of their own."""
        apart = ("velocity", "history", "batchnorm")
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name not in apart}

    @classmethod
    def resumed(
        cls,
        place: dict[str, Any],
        velocity: dict[str, torch.Tensor],
        history: list[dict[str, Any]],
        batchnorm: BatchNormLog,
    ) -> "TrainingState":
        """The state at `place`, with what belongs to it of logs that may be longer, since they are written first.

        Raises ValueError if the logs are shorter.
        """
        state = cls(**place, velocity=velocity)
        state.history = [line for line in history if line["epoch"] <= state.epoch]
        state.batchnorm = batchnorm.up_to(state.epoch)
        if len(state.history) != state.epoch or len(state.batchnorm.epochs) != state.epoch + 1:
            raise ValueError("the logs lack epochs")
        return state
