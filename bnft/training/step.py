"""One step of training: it makes adversarial examples for a batch, if there is an attack, and updates the model."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional
from torch.optim.sgd import sgd

from bnft.attacks.base import Attack, no_trace
from bnft.attacks.cuda_graphs import attack_graph
from bnft.attacks.folding import Folded
from bnft.batchnorm.freezing import Freezing
from bnft.batchnorm.layers import batchnorm_parameters
from bnft.common.devices import Hardware
from bnft.common.randomness import generator, seed_for
from bnft.common.stopping import Pulse, before_each_forward, steady
from bnft.training.recipe import Recipe

Velocity = dict[str, torch.Tensor]
"""The momentum of parameters, by name. If a parameter learns in part, it is the momentum of these entries."""


class Entries:
    """Some entries of a parameter, as a tensor of their own for SGD.

    Weight decay and momentum therefore do not change the other entries. `mask` has the shape of the parameter.
    """

    def __init__(self, parameter: nn.Parameter, mask: torch.Tensor) -> None:
        self._parameter = parameter
        self._places = mask.to(parameter.device).nonzero(as_tuple=True) if parameter.dim() else ()
        self.values = nn.Parameter(parameter.detach()[self._places])

    def take_gradient(self) -> None:
        """Move the gradient from the parameter to the entries."""
        gradient, self._parameter.grad = self._parameter.grad, None
        self.values.grad = None if gradient is None else gradient[self._places]

    @torch.no_grad()
    def put_back(self) -> None:
        """Write the entries into the parameter."""
        self._parameter[self._places] = self.values


class Sgd:
    """SGD with momentum for tensors that share a weight decay.

    It is the function behind `torch.optim.SGD`, which itself would import torch._dynamo: more than a second.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], weight_decay: float, recipe: Recipe, velocity: Velocity
    ) -> None:
        self._tensors, self._weight_decay, self._recipe = tensors, weight_decay, recipe
        self._velocity: dict[str, torch.Tensor | None] = {
            name: velocity[name].to(tensor.device, copy=True) if name in velocity else None
            for name, tensor in tensors.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the tensors that have a gradient."""
        learning = {name: tensor for name, tensor in self._tensors.items() if tensor.grad is not None}
        buffers = [self._velocity[name] for name in learning]
        sgd(
            list(learning.values()),
            [tensor.grad for tensor in learning.values() if tensor.grad is not None],
            buffers,
            weight_decay=self._weight_decay,
            momentum=self._recipe.momentum,
            lr=rate,
            dampening=0,
            nesterov=self._recipe.nesterov,
            maximize=False,
        )
        self._velocity.update(zip(learning, buffers, strict=True))

    def velocity(self) -> Velocity:
        return {name: buffer for name, buffer in self._velocity.items() if buffer is not None}


class TrainingStep:
    """A step of training. It holds the folded view for the attack, the CUDA graph of the attack, and the momentum.

    Args:
        model: the model, on `hardware.device` (see `Hardware.place`).
        freezing: what learns, and what happens to the BN statistics.
        recipe: how to train.
        hardware: the precision of forward passes. Weights, momentum and BN statistics are fp32.
        images: float images (N, C, H, W) in [0, 1] of the shape of all batches, on the device.
        labels: their labels (N,).
        velocity: the momentum to continue with, by parameter name.
    """

    def __init__(
        self,
        model: nn.Module,
        freezing: Freezing,
        recipe: Recipe,
        hardware: Hardware,
        images: torch.Tensor,
        labels: torch.Tensor,
        velocity: Velocity | None = None,
    ) -> None:
        self._model, self._freezing, self._recipe, self._hardware = model, freezing, recipe, hardware
        self._folded = Folded(model, images[:2]) if recipe.attack and recipe.attack_mode == "eval" else None
        self._graph: Attack | None = None
        if self._folded is not None and recipe.attack is not None and len(images) == recipe.batch_size:
            self._graph = attack_graph(recipe.attack, self._folded, hardware, images, labels)
        self._entries = {name: Entries(freezing.learning[name], mask) for name, mask in freezing.masks.items()}
        self._optimized = freezing.learning | {name: entries.values for name, entries in self._entries.items()}
        self._sgd = self._by_weight_decay(velocity or {})

    @property
    def learns(self) -> bool:
        """Whether any parameter learns. If not, an update is a forward pass that updates the BN statistics."""
        return bool(self._sgd)

    @property
    def folded(self) -> Folded | None:
        """The view of the model that is attacked; None without an attack, or if it attacks the model in train mode."""
        return self._folded

    def __call__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        epoch: int,
        step: int,
        rate: float,
        pulse: Pulse = steady,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attack and update on one batch.

        Args:
            images: float images (N, C, H, W) in [0, 1].
            labels: their labels (N,).
            epoch: the epoch, counted from 0. With `step`, it selects the random draws.
            step: the step within the epoch, counted from 0.
            rate: the learning rate.
            pulse: called before each forward pass of the attack, unless it is a CUDA graph.

        Returns:
            The mean loss and the number of errors of the batch, both of shape (), on the device. This function does not
            wait for the device.

        Raises:
            Stopped: if the pulse raises it. The model is then the same as before the step.
        """
        torch.manual_seed(seed_for(self._recipe.seed, "modules", epoch, step))  # for modules such as dropout
        if self._recipe.attack is not None:
            images = self.attack(images, labels, epoch, step, pulse)
        return self.update(images, labels, rate)

    def attack(
        self, images: torch.Tensor, labels: torch.Tensor, epoch: int, step: int, pulse: Pulse = steady
    ) -> torch.Tensor:
        """Make adversarial examples for a batch and the current model. The recipe must have an attack."""
        assert self._recipe.attack is not None
        draws = generator(self._hardware.device, self._recipe.seed, "attack", epoch, step)
        if self._graph is not None:
            return self._graph(images, labels, generator=draws)
        target = self._model if self._folded is None else self._folded.refresh()
        with (
            no_trace(self._model, self._recipe.attack_mode, self._freezing.frozen_layers),
            self._hardware.autocast(),
            before_each_forward(target, pulse),
        ):
            return self._recipe.attack(target, images, labels, generator=draws)

    def update(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Carry out one step of SGD, or a forward pass if nothing learns. Returns the same as `__call__`."""
        self._freezing.train_mode()
        with self._hardware.autocast(), torch.set_grad_enabled(self.learns):
            logits = self._model(images).float()
            loss = functional.cross_entropy(logits, labels)
        if self.learns:
            for tensor in self._optimized.values():
                tensor.grad = None
            loss.backward()
            for entries in self._entries.values():
                entries.take_gradient()
            for group in self._sgd:
                group.step(rate)
            for entries in self._entries.values():
                entries.put_back()
        return loss.detach(), (logits.argmax(1) != labels).sum()

    def velocity(self) -> Velocity:
        """Return the momentum."""
        return {name: buffer for group in self._sgd for name, buffer in group.velocity().items()}

    def _by_weight_decay(self, velocity: Velocity) -> list[Sgd]:
        """Return SGD for each group of tensors with the same weight decay; none if nothing learns."""
        recipe = self._recipe
        batchnorm = {id(parameter) for parameter in batchnorm_parameters(self._model)}
        groups: dict[float, dict[str, torch.Tensor]] = {}
        for name, tensor in self._optimized.items():
            own = recipe.batchnorm_weight_decay if id(tensor) in batchnorm else None
            groups.setdefault(recipe.weight_decay if own is None else own, {})[name] = tensor
        return [Sgd(tensors, decay, recipe, velocity) for decay, tensors in groups.items()]
