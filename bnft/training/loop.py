"""One training loop for every row: clean and adversarial, all parameters or some, or none at all.

A row that learns no parameter (BN STATS) only forwards its batches in train mode, which updates the statistics.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from bnft.attacks.base import Attack, no_trace
from bnft.attacks.cuda_graphs import attack_graph
from bnft.attacks.folding import Folded
from bnft.batchnorm.freezing import Freezing
from bnft.batchnorm.log import BatchNormLog
from bnft.common.devices import Hardware
from bnft.common.randomness import generator, seed_for
from bnft.common.stopping import Pulse, Stopped, felt
from bnft.data.augmentation import Augmentation
from bnft.data.dataset import Dataset
from bnft.training.shapes import Shape

CHECKPOINT_SECONDS = 300.0  # a killed run repeats at most this much training, or one epoch
READ_SECONDS = 1.0  # how often a device other than the CPU is waited for, to see how training stands
CLEAN_ERROR_IMAGES = 1000  # training images on which the clean error is logged after each epoch


@dataclass(frozen=True)
class Recipe:
    """How to train: the parts of a run's configuration that the loop needs, built."""

    epochs: int
    batch_size: int
    lr: float
    shape: Shape
    momentum: float
    nesterov: bool
    weight_decay: float
    augmentation: Augmentation
    attack: Attack | None
    attack_mode: str
    seed: int


@dataclass
class Progress:
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
    ) -> "Progress":
        """The progress at `place`, with what belongs to it of logs that may be longer, since they are written first.

        Raises ValueError if the logs are shorter.
        """
        progress = cls(**place, velocity=velocity)
        progress.history = [line for line in history if line["epoch"] <= progress.epoch]
        progress.batchnorm = batchnorm.up_to(progress.epoch)
        if len(progress.history) != progress.epoch or len(progress.batchnorm.epochs) != progress.epoch + 1:
            raise ValueError("the logs lack epochs")
        return progress


class Keeper(Protocol):
    """Who keeps what training makes. Called between batches, with the model as it is then."""

    def save(self, model: nn.Module, progress: Progress) -> None:
        """Keep the state, so that training can go on from here."""

    def stepped(self, progress: Progress, steps: int) -> None:
        """A batch of the epoch's `steps` is done.

        Other devices than the CPU are not waited for after each batch: sums can then be a second old.
        """

    def pulse(self) -> None:
        """Training is alive: called before each batch and each forward pass of an attack that is no CUDA graph.

        Raises Stopped to end training there, with its state saved.
        """


def train(
    model: nn.Module,
    freezing: Freezing,
    dataset: Dataset,
    recipe: Recipe,
    hardware: Hardware,
    keeper: Keeper,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """Train `model` in place, from `progress` or from the start, and return the final progress.

    Model and data must be on `hardware.device` (see `Hardware.place`). Weights, momentum and BN statistics are fp32;
    forward passes run in `hardware.precision`. Each epoch uses as many whole batches as the training images fill.
    Raises RuntimeError if the loss is not finite or something frozen has changed, Stopped if the keeper's pulse does.
    """
    frozen = freezing.frozen_state()
    if progress is None:
        freezing.reset()
        progress = Progress()
        progress.batchnorm.append(0, model)
    folded = (
        Folded(model, dataset.pixels(dataset.x_train[:2])) if recipe.attack and recipe.attack_mode == "eval" else None
    )
    graph = _graph(folded, dataset, recipe, hardware)
    optimizer = _optimizer(freezing, recipe, progress)
    while progress.epoch < recipe.epochs:
        _epoch(model, freezing, folded, graph, dataset, recipe, hardware, optimizer, keeper, progress, clock)
    freezing.check_unchanged(frozen)
    return progress


def _epoch(
    model: nn.Module,
    freezing: Freezing,
    folded: Folded | None,
    graph: Attack | None,
    dataset: Dataset,
    recipe: Recipe,
    hardware: Hardware,
    optimizer: torch.optim.SGD | None,
    keeper: Keeper,
    progress: Progress,
    clock: Callable[[], float],
) -> None:
    """The rest of the epoch that `progress` stands in, saved now and then and at its end, or where it is stopped."""
    steps = len(dataset.x_train) // recipe.batch_size
    sums = _Sums(progress, hardware.device, learning=optimizer is not None)
    saved_at, started = clock(), clock() - progress.seconds

    def save() -> None:
        sums.read()
        keeper.save(model, _with_velocity(progress, freezing, optimizer))

    images, labels = _epoch_of(dataset, recipe, progress.epoch)
    try:
        while progress.step < steps:
            keeper.pulse()
            batch = slice(progress.step * recipe.batch_size, (progress.step + 1) * recipe.batch_size)
            rate = _rate(recipe, progress.epoch, progress.step, steps)
            inputs = dataset.pixels(images[batch])
            torch.manual_seed(seed_for(recipe.seed, "modules", progress.epoch, progress.step))  # dropout and the like
            if recipe.attack is not None:
                inputs = _attacked(
                    model, folded, inputs, labels[batch], recipe, hardware, progress, keeper.pulse, graph
                )
            loss, errors = _update(model, freezing, inputs, labels[batch], hardware, optimizer, rate)
            sums.add(loss, errors, len(inputs))
            progress.step += 1
            sums.read_now_and_then(clock, last=progress.step == steps)
            progress.seconds = clock() - started
            keeper.stepped(progress, steps)
            if clock() - saved_at >= CHECKPOINT_SECONDS and progress.step < steps:
                save()
                saved_at = clock()
    except Stopped:  # by the pulse: the last batch is done, and the attack on the next one has left no trace
        save()
        raise
    _end_epoch(model, dataset, progress, _rate(recipe, progress.epoch, steps - 1, steps))
    keeper.save(model, _with_velocity(progress, freezing, optimizer))


class _Sums:
    """The sums of an epoch, kept on the device, since whoever reads them waits until it has done all that it was given.

    Reading brings `progress` up to date, and raises RuntimeError where parameters learn and the loss is not finite.
    """

    def __init__(self, progress: Progress, device: torch.device, learning: bool) -> None:
        self._progress, self._device, self._learning = progress, device, learning
        self._losses = torch.tensor(progress.losses, dtype=torch.float64, device=device)
        self._errors = torch.tensor(progress.errors, dtype=torch.int64, device=device)
        self._images = progress.images
        self._read_at = -math.inf

    def add(self, loss: torch.Tensor, errors: torch.Tensor, images: int) -> None:
        """A batch's mean loss and its errors, both of shape ()."""
        self._losses += loss.double() * images
        self._errors += errors
        self._images += images

    def read_now_and_then(self, clock: Callable[[], float], last: bool) -> None:
        """Read where that costs nothing, where a second has passed, and after the last batch."""
        if self._device.type == "cpu" or last:
            self.read()
        elif clock() - self._read_at >= READ_SECONDS:
            self.read()
            self._read_at = clock()

    def read(self) -> None:
        progress, losses = self._progress, float(self._losses)
        if self._learning and not math.isfinite(losses):  # once it is not finite, it never is again
            raise RuntimeError(f"the loss became {losses} in epoch {progress.epoch + 1}: lower schedule.lr")
        progress.losses, progress.errors, progress.images = losses, int(self._errors), self._images


def _rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The learning rate of a step of an epoch, both from 0."""
    return recipe.lr * recipe.shape((epoch + step / steps) / recipe.epochs)


def _epoch_of(dataset: Dataset, recipe: Recipe, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One epoch's images (uint8) and labels, shuffled and augmented."""
    device = dataset.x_train.device
    shuffle = generator(device, recipe.seed, "order", epoch)
    order = torch.randperm(len(dataset.x_train), generator=shuffle, device=device)
    augmented = recipe.augmentation(dataset.x_train[order], generator(device, recipe.seed, "augmentation", epoch))
    return augmented, dataset.y_train[order]


def _graph(folded: Folded | None, dataset: Dataset, recipe: Recipe, hardware: Hardware) -> Attack | None:
    """The attack as a CUDA graph, for whole batches; None where it cannot be one."""
    if folded is None or recipe.attack is None or len(dataset.x_train) < recipe.batch_size:
        return None
    first = slice(recipe.batch_size)
    return attack_graph(recipe.attack, folded, hardware, dataset.pixels(dataset.x_train[first]), dataset.y_train[first])


def _attacked(
    model: nn.Module,
    folded: Folded | None,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    recipe: Recipe,
    hardware: Hardware,
    progress: Progress,
    pulse: Pulse,
    graph: Attack | None = None,
) -> torch.Tensor:
    """Adversarial examples for a batch, against the model as it is now, by `graph` (see `_graph`) if there is one."""
    assert recipe.attack is not None
    draws = generator(hardware.device, recipe.seed, "attack", progress.epoch, progress.step)
    if graph is not None:
        return graph(inputs, labels, generator=draws)
    target = model if folded is None else folded.refresh()
    with no_trace(model, recipe.attack_mode), hardware.autocast(), felt(target, pulse):
        return recipe.attack(target, inputs, labels, generator=draws)


def _update(
    model: nn.Module,
    freezing: Freezing,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    hardware: Hardware,
    optimizer: torch.optim.SGD | None,
    rate: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of SGD, or a mere forward pass where nothing learns.

    Returns the batch's mean loss and its errors, of shape (), on the device: nothing here waits for it.
    """
    freezing.train_mode()
    with hardware.autocast(), torch.set_grad_enabled(optimizer is not None):
        logits = model(inputs).float()
        loss = functional.cross_entropy(logits, labels)
    if optimizer is not None:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return loss.detach(), (logits.argmax(1) != labels).sum()


def _end_epoch(model: nn.Module, dataset: Dataset, progress: Progress, rate: float) -> None:
    """Append the epoch's line to the history and its BN layers to their record, and turn to the next epoch."""
    first = slice(CLEAN_ERROR_IMAGES)
    progress.epoch += 1
    progress.history.append(
        {
            "epoch": progress.epoch,
            "loss": progress.losses / progress.images,
            "error": 100 * progress.errors / progress.images,
            "clean_error": error_percent(model, dataset.pixels(dataset.x_train[first]), dataset.y_train[first]),
            "lr": rate,
            "images": progress.images,
            "seconds": round(progress.seconds, 3),
        }
    )
    progress.batchnorm.append(progress.epoch, model)
    progress.step = progress.images = progress.errors = 0
    progress.losses = progress.seconds = 0.0


@torch.no_grad()
def error_percent(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Clean error in percent, in eval mode, on float images (N, C, H, W) in [0, 1]."""
    model.eval()
    wrong = sum(
        int((model(part).argmax(1) != truth).sum().item())
        for part, truth in zip(images.split(500), labels.split(500), strict=True)
    )
    return 100 * wrong / len(labels)


def _optimizer(freezing: Freezing, recipe: Recipe, progress: Progress) -> torch.optim.SGD | None:
    """SGD over what learns and nothing else, with its momentum as it was; None where nothing learns."""
    if not freezing.learning:
        return None
    optimizer = torch.optim.SGD(
        freezing.learning.values(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
    for name, parameter in freezing.learning.items():
        if name in progress.velocity:
            velocity = progress.velocity[name].to(parameter.device, copy=True)
            optimizer.state[parameter]["momentum_buffer"] = velocity
    return optimizer


def _with_velocity(progress: Progress, freezing: Freezing, optimizer: torch.optim.SGD | None) -> Progress:
    if optimizer is not None:
        states = {name: optimizer.state[parameter] for name, parameter in freezing.learning.items()}
        progress.velocity = {
            name: state["momentum_buffer"] for name, state in states.items() if state.get("momentum_buffer") is not None
        }
    return progress
