"""The training loop of all rows, on clean or adversarial images.

If no parameter learns (BN STATS), training consists of forward passes in train mode, which update the BN statistics.
"""

import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from bnft import models
from bnft.batchnorm.freezing import Freezing
from bnft.common.devices import Hardware
from bnft.common.randomness import generator
from bnft.common.stopping import Stopped
from bnft.data.dataset import Dataset
from bnft.training.monitor import SECONDS, Monitor
from bnft.training.recipe import Recipe
from bnft.training.state import TrainingState
from bnft.training.step import TrainingStep

CHECKPOINT_SECONDS = 300.0  # between checkpoints within an epoch
READ_SECONDS = 1.0  # how often losses and errors are read from a device other than the CPU, which waits for it
CLEAN_ERROR_IMAGES = 1000  # training images on which the clean error is logged after each epoch


class Keeper(Protocol):
    """Saves the state of training. It is called between batches."""

    def save(self, model: nn.Module, state: TrainingState) -> None:
        """Save the model and the state, so that training can continue from here."""

    def stepped(self, state: TrainingState, steps: int) -> None:
        """Called after each batch. `steps` is the number of batches per epoch.

        On devices other than the CPU, the losses and errors in `state` can be a second old.
        """

    def pulse(self) -> None:
        """Called before each batch, and before each forward pass of an attack unless it is a CUDA graph.

        Raises Stopped to end training. Its state is then saved.
        """


def train(
    model: nn.Module,
    freezing: Freezing,
    dataset: Dataset,
    recipe: Recipe,
    hardware: Hardware,
    keeper: Keeper,
    state: TrainingState | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainingState:
    """Train a model in place.

    Each epoch consists of whole batches. Training images that do not fill a batch are left out of the epoch. If the
    recipe keeps the best model, the model is that one at the end, while the logs in the state have all epochs.

    Args:
        model: the model, on `hardware.device` (see `Hardware.place`).
        freezing: what learns, and what happens to the BN statistics.
        dataset: the data set, on `hardware.device`. It has held-out images if the recipe monitors errors.
        recipe: how to train.
        hardware: the precision of forward passes. Weights, momentum and BN statistics are fp32.
        keeper: saves the state.
        state: the state to continue from. The default is to start training.
        clock: returns the time in seconds.

    Returns:
        The final state.

    Raises:
        RuntimeError: if the loss is not finite, or if a frozen parameter or buffer has changed.
        Stopped: if the keeper's pulse raises it.
    """
    frozen = freezing.frozen_state()
    if state is None:
        freezing.reset()
        state = TrainingState()
        state.batchnorm.append(0, model)
    training = _Training(model, freezing, dataset, recipe, hardware, keeper, state, clock)
    while state.epoch < recipe.epochs:
        training.epoch()
    if state.best:
        models.restore(model, state.best)
    freezing.check_unchanged(frozen)
    return state


class _Training:
    """Training in progress, with its step, its state and its keeper."""

    def __init__(
        self,
        model: nn.Module,
        freezing: Freezing,
        dataset: Dataset,
        recipe: Recipe,
        hardware: Hardware,
        keeper: Keeper,
        state: TrainingState,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._dataset, self._recipe, self._device = model, dataset, recipe, hardware.device
        self._keeper, self._state, self._clock = keeper, state, clock
        self._steps = len(dataset.x_train) // recipe.batch_size
        first = slice(recipe.batch_size)
        images, labels = dataset.pixels(dataset.x_train[first]), dataset.y_train[first]
        self._step = TrainingStep(model, freezing, recipe, hardware, images, labels, state.velocity)
        self._monitor = (
            Monitor(model, dataset, recipe.monitoring, recipe.epochs, recipe.seed) if recipe.monitoring else None
        )

    def epoch(self) -> None:
        """Complete the current epoch. Saves the state regularly, at the end, and when training is stopped."""
        state, clock, steps = self._state, self._clock, self._steps
        sums = _Sums(state, self._device, self._step.learns)
        saved_at, started = clock(), clock() - state.seconds
        images, labels = _epoch_of(self._dataset, self._recipe, state.epoch)
        try:
            while state.step < steps:
                self._keeper.pulse()
                batch = slice(state.step * self._recipe.batch_size, (state.step + 1) * self._recipe.batch_size)
                rate = self._recipe.rate(state.epoch, state.step, steps)
                inputs = self._dataset.pixels(images[batch])
                sums.add(
                    *self._step(inputs, labels[batch], state.epoch, state.step, rate, self._keeper.pulse), len(inputs)
                )
                state.step += 1
                sums.read_now_and_then(clock, last=state.step == steps)
                state.seconds = clock() - started
                self._keeper.stepped(state, steps)
                if clock() - saved_at >= CHECKPOINT_SECONDS and state.step < steps:
                    self._save(sums)
                    saved_at = clock()
            measured = self._measured(sums)
        except Stopped:  # by the pulse: the last batch is complete, and the next one has not changed the model
            self._save(sums)
            raise
        _end_epoch(self._model, self._dataset, state, self._recipe.rate(state.epoch, steps - 1, steps), measured)
        if self._monitor is not None and self._monitor.is_to_keep(state.history):
            state.best = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._save()

    def _measured(self, sums: "_Sums") -> dict[str, float]:
        """Return the monitored errors at the end of the current epoch, if they are due."""
        if self._monitor is None or not self._monitor.due(self._state.epoch + 1):
            return {}
        self._save(sums)  # because an attack can take as long as an epoch
        started = self._clock()
        errors = self._monitor.errors(self._keeper.pulse)
        return {**errors, SECONDS: round(self._clock() - started, 3)}

    def _save(self, sums: "_Sums | None" = None) -> None:
        if sums is not None:
            sums.read()
        self._state.velocity = self._step.velocity()
        self._keeper.save(self._model, self._state)


class _Sums:
    """The sums of losses and errors of an epoch, kept on the device.

    Reading them waits for the device and updates the state. It raises RuntimeError if parameters learn and the loss is
    not finite.
    """

    def __init__(self, state: TrainingState, device: torch.device, learning: bool) -> None:
        self._state, self._device, self._learning = state, device, learning
        self._losses = torch.tensor(state.losses, dtype=torch.float64, device=device)
        self._errors = torch.tensor(state.errors, dtype=torch.int64, device=device)
        self._images = state.images
        self._read_at = -math.inf

    def add(self, loss: torch.Tensor, errors: torch.Tensor, images: int) -> None:
        """Add the mean loss and the number of errors of a batch, both of shape ()."""
        self._losses += loss.double() * images
        self._errors += errors
        self._images += images

    def read_now_and_then(self, clock: Callable[[], float], last: bool) -> None:
        """Read the sums on the CPU, after the last batch, and else once per second."""
        if self._device.type == "cpu" or last:
            self.read()
        elif clock() - self._read_at >= READ_SECONDS:
            self.read()
            self._read_at = clock()

    def read(self) -> None:
        state, losses = self._state, float(self._losses)
        if self._learning and not math.isfinite(losses):  # the sum never becomes finite again
            raise RuntimeError(f"the loss became {losses} in epoch {state.epoch + 1}: lower schedule.lr")
        state.losses, state.errors, state.images = losses, int(self._errors), self._images


def _epoch_of(dataset: Dataset, recipe: Recipe, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shuffled and augmented images (uint8) of an epoch, and their labels."""
    device = dataset.x_train.device
    shuffle = generator(device, recipe.seed, "order", epoch)
    order = torch.randperm(len(dataset.x_train), generator=shuffle, device=device)
    draws = generator(device, recipe.seed, "augmentation", epoch)
    augmented = recipe.augmentation(dataset.x_train[order], draws, dataset.colour if recipe.fill == "mean" else None)
    return augmented, dataset.y_train[order]


def _end_epoch(
    model: nn.Module, dataset: Dataset, state: TrainingState, rate: float, measured: dict[str, float]
) -> None:
    """Append a line to the history and the BN layers to their record, and begin the next epoch."""
    first = slice(CLEAN_ERROR_IMAGES)
    state.epoch += 1
    state.history.append(
        {
            "epoch": state.epoch,
            "loss": state.losses / state.images,
            "error": 100 * state.errors / state.images,
            "clean_error": error_percent(model, dataset.pixels(dataset.x_train[first]), dataset.y_train[first]),
            "lr": rate,
            "images": state.images,
            "seconds": round(state.seconds, 3),
            **measured,
        }
    )
    state.batchnorm.append(state.epoch, model)
    state.step = state.images = state.errors = 0
    state.losses = state.seconds = 0.0


@torch.no_grad()
def error_percent(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the clean error in percent, in eval mode, on float images (N, C, H, W) in [0, 1]."""
    model.eval()
    wrong = sum(
        int((model(part).argmax(1) != truth).sum().item())
        for part, truth in zip(images.split(500), labels.split(500), strict=True)
    )
    return 100 * wrong / len(labels)
