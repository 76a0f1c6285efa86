"""The state of training, from which it can continue."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch

from bnft.batchnorm.log import BatchNormLog
from bnft.training.monitor import SECONDS


@dataclass
class TrainingState:
    """The state of training, from which it can continue.

    Attributes:
        epoch: the current epoch, counted from 0.
        step: the number of completed batches of this epoch.
        losses: the sum of the losses of `images`.
        errors: the number of errors on `images`.
        images: the number of images of this epoch so far. It can be older than `step`; see `Keeper.stepped`.
        seconds: the duration of this epoch so far.
        velocity: the optimizer's momentum, by parameter name.
        history: one line per completed epoch.
        batchnorm: the record of the BN layers.
        best: the weights and buffers of the best model so far, by name, if the best one is to be kept.
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
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """The seconds of training so far, with those of measuring errors."""
        return self.seconds + sum(line["seconds"] + line.get(SECONDS, 0.0) for line in self.history)

    def place(self) -> dict[str, Any]:
        """Return the fields that are numbers, as JSON. The tensors and logs have files of their own."""
        apart = ("velocity", "history", "batchnorm", "best")
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name not in apart}

    @classmethod
    def resumed(
        cls,
        place: dict[str, Any],
        velocity: dict[str, torch.Tensor],
        history: list[dict[str, Any]],
        batchnorm: BatchNormLog,
        best: dict[str, torch.Tensor],
    ) -> "TrainingState":
        """Restore the state at `place`. The logs can be longer than that, because they are written first.

        Raises ValueError if the logs are shorter.
        """
        state = cls(**place, velocity=velocity, best=best)
        state.history = [line for line in history if line["epoch"] <= state.epoch]
        state.batchnorm = batchnorm.up_to(state.epoch)
        if len(state.history) != state.epoch or len(state.batchnorm.epochs) != state.epoch + 1:
            raise ValueError("the logs lack epochs")
        return state
