"""The clean and the robust error of a model while it trains, on training images that are held out.

Robust error is measured by the quick attack (see `bnft.attacks.quick`). A measurement changes no number of training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bnft.attacks.ball import Norm
from bnft.attacks.base import no_trace
from bnft.attacks.folding import Folded
from bnft.attacks.quick import quick_attack
from bnft.common.randomness import generator
from bnft.common.stopping import Pulse, before_each_forward, steady
from bnft.data.dataset import Dataset

BATCH = 250  # images attacked together; the quick attack compares the images of a batch with each other
CLEAN, ROBUST, SECONDS = "monitor_clean_error", "monitor_robust_error", "monitor_seconds"  # in a line of the history
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Monitoring:
    """When to measure, how, and which model to keep.

    Attributes:
        every: the number of epochs from one measurement to the next. There is also one after the last epoch.
        keep: the model to keep at the end, `last` or `best`.
        norm: the norm of perturbations.
        eps: their maximal size, in pixel units.
    """

    every: int
    keep: str
    norm: Norm
    eps: float


class Monitor:
    """Measures a model on the held-out images of a data set.

    Args:
        model: the model, on its device.
        dataset: the data set, on the same device, with held-out images.
        settings: how to measure.
        epochs: the number of epochs of training.
        seed: the seed of the run. The draws are the same in all epochs, so that epochs differ only in the model.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, settings: Monitoring, epochs: int, seed: int) -> None:
        assert dataset.held_out is not None
        self._model, self._dataset, self._settings, self._epochs, self._seed = model, dataset, settings, epochs, seed
        self._images, self._labels = dataset.held_out
        self._folded = Folded(model, dataset.pixels(self._images[:2]))

    def due(self, epoch: int) -> bool:
        """Return whether to measure at the end of `epoch`, counted from 1."""
        return epoch % self._settings.every == 0 or epoch == self._epochs

    def is_to_keep(self, history: Sequence[Line]) -> bool:
        """Return whether the model at the end of the last epoch of the history is to be kept, as the best so far."""
        return self._settings.keep == "best" and ROBUST in history[-1] and best_of(history) is history[-1]

    def errors(self, pulse: Pulse = steady) -> dict[str, float]:
        """Return CLEAN and ROBUST error in percent, for a line of the history.

        Images that are misclassified without an attack count in both. The attack searches on the folded view of the
        model. What it finds is scored on the model itself, in fp32.

        Args:
            pulse: called before each forward pass of the attack. If it raises Stopped, the model is unchanged.
        """
        view = self._folded.refresh()
        clean = robust = 0
        with no_trace(self._model), before_each_forward(view, pulse):
            parts = zip(self._images.split(BATCH), self._labels.split(BATCH), strict=True)
            for number, (images, labels) in enumerate(parts):
                inputs = self._dataset.pixels(images)
                wrong = self._wrong(inputs, labels)
                fooled = self._wrong(self._attacked(view, inputs, labels, number), labels)
                clean += int(wrong.sum())
                robust += int((wrong | fooled).sum())
        return {CLEAN: 100 * clean / len(self._labels), ROBUST: 100 * robust / len(self._labels)}

    def _attacked(self, view: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, batch: int) -> torch.Tensor:
        draws = generator(inputs.device, self._seed, "monitor", step=batch)
        settings = self._settings
        found = quick_attack(view, inputs, labels, generator=draws, eps=settings.eps, norm=settings.norm).found
        return found.points.contiguous()  # the memory layout of the data, because convolutions round by layout

    @torch.no_grad()
    def _wrong(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self._model(inputs).argmax(1) != labels


def monitored(history: Sequence[Line]) -> list[Line]:
    """Return the lines of a history that have a measurement."""
    return [line for line in history if ROBUST in line]


def best_of(history: Sequence[Line]) -> Line:
    """Return the line with the lowest robust error; of equal ones, that with the lowest clean error, then the first."""
    return min(monitored(history), key=lambda line: (line[ROBUST], line[CLEAN]))
