"""Training steps beside the same steps written out in float64, and the random draws of training."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
import torch
from support.recipes import CPU, RECIPE
from torch import nn
from torch.nn import functional

from bnft.attacks.pgd import pgd
from bnft.batchnorm.freezing import Freezing
from bnft.data.augmentation import none
from bnft.data.dataset import Arrays, Dataset, prepare
from bnft.training.loop import train
from bnft.training.shapes import Shape, one_cycle, step
from bnft.training.step import TrainingStep

BATCH, STEPS, EPOCHS, CLASSES = 4, 3, 5, 3
STEP_SIZE = 0.2
# From docs/protocol.md and the literature, written out: the factor of the peak rate before each of the 15 steps.
RATES = {
    "step": [1.0] * 6 + [0.1] * 3 + [0.01] * 3 + [0.001] * 3,  # milestones at 40, 60 and 80 %
    "one_cycle": [0.05, 0.30333333, 0.55666667, 0.81, *(n / 45 for n in range(44, 0, -4))],  # the peak at 25 %
}
SHAPES: dict[str, Shape] = {"step": step, "one_cycle": one_cycle}


class Keeper:
    """Saves nothing and never stops."""

    def save(self, model, state): ...

    def stepped(self, state, steps): ...

    def pulse(self): ...


class Tiny(nn.Module):
    """Convolution, BN, a smooth activation, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.logits = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(torch.tanh(self.bn(self.conv(x))).square().mean((2, 3)))


def tiny() -> Tiny:
    """A network that is far from its initial values, as a base is."""
    torch.manual_seed(0)
    model = Tiny()
    with torch.no_grad():
        for value in (model.bn.weight, model.bn.running_var):
            value.copy_(torch.rand(4) + 0.5)
        for value in (model.bn.bias, model.bn.running_mean):
            value.copy_(0.3 * torch.randn(4))
        model.logits.weight.mul_(3)
    return model


@pytest.fixture(scope="module")
def data() -> Dataset:
    """13 grey images, of which 12 fill whole batches. The first pixel is the number of the image."""
    random = np.random.RandomState(0)
    images = random.randint(100, 156, (13, 4, 4, 1)).astype(np.uint8)
    images[:, 0, 0, 0] = 100 + np.arange(13)
    labels = random.randint(0, CLASSES, 13)
    labels[0] = 0
    return prepare(Arrays(images, labels, images, labels), CLASSES)


@dataclass
class Seen:
    """An augmentation that changes nothing and keeps the order of the images, the draws and the colour it is given."""

    orders: list[list[int]] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    fills: list[object] = field(default_factory=list)

    def __call__(self, images: torch.Tensor, generator: torch.Generator, fill: object = None) -> torch.Tensor:
        self.orders.append((images[:, 0, 0, 0].long() - 100).tolist())
        self.draws.append(generator.initial_seed())
        self.fills.append(fill)
        return images


@dataclass
class Oracle:
    """The network and SGD in float64, written out."""

    values: dict[str, torch.Tensor]
    decays: dict[str, float]
    nesterov: bool
    frozen: bool
    attack: str | None
    velocity: dict[str, torch.Tensor] = field(default_factory=dict)

    def logits(self, x: torch.Tensor, batch: bool) -> torch.Tensor:
        """The logits with the statistics of the batch or the running ones."""
        v = self.values
        z = functional.conv2d(x, v["conv.weight"], padding=1)
        mean, variance = v["bn.running_mean"], v["bn.running_var"]
        if batch:
            mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)
        normal = (z - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        z = normal * v["bn.weight"][:, None, None] + v["bn.bias"][:, None, None]
        return torch.tanh(z).square().mean((2, 3)) @ v["logits.weight"].T + v["logits.bias"]

    def loss(self, x: torch.Tensor, y: torch.Tensor, batch: bool) -> torch.Tensor:
        logits = self.logits(x, batch)
        return (logits.exp().sum(1).log() - logits[torch.arange(len(y)), y]).mean()

    def attacked(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One L2 step along the gradient, which is small enough to leave neither the ball nor the box."""
        x = x.clone().requires_grad_()
        batch = self.attack == "train" and not self.frozen
        (gradient,) = torch.autograd.grad(self.loss(x, y, batch), x)
        return (x + STEP_SIZE * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]).detach()

    def errors(self, x: torch.Tensor, y: torch.Tensor, batch: bool = False) -> int:
        return int((self.logits(x, batch).argmax(1) != y).sum())

    def step(self, x: torch.Tensor, y: torch.Tensor, rate: float) -> tuple[float, int]:
        """One update. Returns the loss and the number of errors on the images that it trained on."""
        x = self.attacked(x, y) if self.attack else x
        learning = {name: self.values[name].requires_grad_() for name in self.decays}
        loss, errors = self.loss(x, y, batch=not self.frozen), self.errors(x, y, batch=not self.frozen)
        gradients = torch.autograd.grad(loss, list(learning.values()))
        with torch.no_grad():
            if not self.frozen:
                z = functional.conv2d(x, self.values["conv.weight"], padding=1)
                self.values["bn.running_mean"] = 0.9 * self.values["bn.running_mean"] + 0.1 * z.mean((0, 2, 3))
                self.values["bn.running_var"] = 0.9 * self.values["bn.running_var"] + 0.1 * z.var((0, 2, 3))
            for (name, value), gradient in zip(learning.items(), gradients, strict=True):
                gradient = gradient + self.decays[name] * value
                self.velocity[name] = 0.9 * self.velocity.get(name, torch.zeros_like(value)) + gradient
                change = gradient + 0.9 * self.velocity[name] if self.nesterov else self.velocity[name]
                self.values[name] = (value - rate * change).detach()
        return float(loss.detach()), errors


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    ("shape", "parameters", "statistics", "attack", "bn_decay"),
    [
        ("step", "all", "update", None, None),
        ("one_cycle", "all", "update", "eval", 0.01),
        ("step", "all", "update", "train", 0.0),
        ("one_cycle", "batchnorm", "reset", "eval", None),
        ("step", "batchnorm", "frozen", "train", 0.01),
        ("one_cycle", "batchnorm", "frozen", "eval", None),
    ],
)
def test_fifteen_steps_equal_sgd_written_out(data, shape, parameters, statistics, attack, bn_decay, nesterov):
    """Weights, momentum, BN statistics, losses, errors and rates of five epochs."""
    model, seen, rates = tiny(), Seen(), [0.5 * factor for factor in RATES[shape]]
    l2 = partial(pgd, norm="L2", eps=1.0, iterations=1, step_size=STEP_SIZE, random_start=False, keep="last")
    recipe = replace(RECIPE, epochs=EPOCHS, batch_size=BATCH, lr=0.5, shape=SHAPES[shape], augmentation=seen)
    recipe = replace(recipe, nesterov=nesterov, weight_decay=5e-3, batchnorm_weight_decay=bn_decay)
    recipe = replace(recipe, attack=l2 if attack else None, attack_mode=attack or "eval")
    oracle = oracle_of(model, parameters, statistics, attack, bn_decay, nesterov)
    state = train(model, Freezing(model, [parameters], statistics), data, recipe, CPU, Keeper())
    found, clean_errors = [], []
    whole = data.x_train.double() / 255, data.y_train
    for number, rate in enumerate(rates):
        order = seen.orders[number // STEPS][number % STEPS * BATCH :][:BATCH]
        found.append(oracle.step(whole[0][order], whole[1][order], rate))
        clean_errors.append(100 * oracle.errors(*whole) / 13)
    close = partial(torch.testing.assert_close, rtol=1e-3, atol=2e-5)
    for name, value in oracle.values.items():
        close(model.state_dict()[name].double(), value.detach(), msg=name)
    assert set(state.velocity) == set(oracle.velocity)
    for name, value in oracle.velocity.items():
        close(state.velocity[name].double(), value, msg=name)
    losses, errors = np.reshape(found, (EPOCHS, STEPS, 2)).mean(1).T
    assert [line["loss"] for line in state.history] == pytest.approx(losses, rel=1e-4)
    assert [line["error"] for line in state.history] == pytest.approx(100 * errors / BATCH)
    assert [line["clean_error"] for line in state.history] == pytest.approx(clean_errors[STEPS - 1 :: STEPS])
    assert [line["lr"] for line in state.history] == pytest.approx(rates[STEPS - 1 :: STEPS])
    assert [line["images"] for line in state.history] == [STEPS * BATCH] * EPOCHS


def oracle_of(model, parameters, statistics, attack, bn_decay, nesterov) -> Oracle:
    values = {name: value.double() for name, value in model.state_dict().items() if "tracked" not in name}
    if statistics == "reset":
        values["bn.running_mean"], values["bn.running_var"] = torch.zeros(4).double(), torch.ones(4).double()
    decays = dict.fromkeys(("bn.weight", "bn.bias"), 5e-3 if bn_decay is None else bn_decay)
    if parameters == "all":
        decays |= dict.fromkeys(("conv.weight", "logits.weight", "logits.bias"), 5e-3)
    return Oracle(values, decays, nesterov, statistics == "frozen", attack)


def test_an_attack_that_changes_a_frozen_weight_is_an_error(data):
    def cheat(model, inputs, labels, generator):
        with torch.no_grad():
            net.conv.weight.add_(1e-3)
        return inputs

    net = tiny()
    recipe = replace(RECIPE, batch_size=BATCH, augmentation=none, attack=cheat)
    with pytest.raises(RuntimeError, match=r"frozen tensors changed.*conv\.weight"):
        train(net, Freezing(net, ["batchnorm"], "update"), data, recipe, CPU, Keeper())


@pytest.mark.parametrize("fill", ["mean", None])
def test_augmentation_fills_with_the_colour_of_the_recipe(data, fill):
    seen, model = Seen(), tiny()
    recipe = replace(RECIPE, epochs=1, batch_size=BATCH, augmentation=seen, attack=None, fill=fill)
    train(model, Freezing(model, ["all"], "update"), data, recipe, CPU, Keeper())
    assert seen.fills == [[round(data.mean[0] * 255)] if fill else None]


# random draws


@dataclass
class Draws:
    """An attack that changes nothing and keeps the seeds that it was given, and the seed of modules."""

    seeds: list[int] = field(default_factory=list)
    of_modules: list[int] = field(default_factory=list)

    def __call__(self, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, generator: torch.Generator):
        self.seeds.append(generator.initial_seed())
        self.of_modules.append(torch.initial_seed())
        return inputs


def drawn(data: Dataset, seed: int = 0) -> tuple[Seen, Draws]:
    seen, draws, model = Seen(), Draws(), tiny()
    recipe = replace(RECIPE, epochs=4, batch_size=BATCH, augmentation=seen, attack=draws, seed=seed)
    train(model, Freezing(model, ["all"], "update"), data, recipe, CPU, Keeper())
    return seen, draws


def test_each_epoch_shuffles_all_images_in_another_order(data):
    (seen, _), (other, _) = drawn(data), drawn(data, seed=1)
    assert all(sorted(order) == list(range(13)) for order in seen.orders)
    assert len({tuple(order) for order in (*seen.orders, *other.orders, range(13))}) == 9
    assert drawn(data)[0].orders == seen.orders


def test_each_epoch_step_and_purpose_has_draws_of_its_own(data):
    (seen, draws), (seen_other, draws_other) = drawn(data), drawn(data, seed=1)
    seeds = [*seen.draws, *draws.seeds, *draws.of_modules]
    assert len(seeds) == 4 + 4 * STEPS + 4 * STEPS
    others = [*seen_other.draws, *draws_other.seeds, *draws_other.of_modules]
    assert len({*seeds, *others}) == 2 * len(seeds)
    from_these = {tuple(torch.randperm(13, generator=torch.Generator().manual_seed(seed)).tolist()) for seed in seeds}
    assert not from_these & {tuple(order) for order in seen.orders}, "the order has draws of its own, too"


def test_the_random_start_differs_between_steps_and_epochs(data):
    model, images, labels = tiny(), data.pixels(data.x_train[:BATCH]), data.y_train[:BATCH]
    start = partial(pgd, eps=0.1, iterations=0, step_size=0.1)
    recipe = replace(RECIPE, batch_size=BATCH, augmentation=none, attack=start)
    training = TrainingStep(model, Freezing(model, ["all"], "update"), recipe, CPU, images, labels)
    starts = [training.attack(images, labels, epoch, step) for epoch in (0, 1, 2) for step in (0, 1, 2)]
    assert len({tuple(one.flatten().tolist()) for one in starts}) == 9
    assert torch.equal(starts[4], training.attack(images, labels, 1, 1))


def test_the_mode_of_the_network_during_the_attack_matters(data):
    images, labels = data.pixels(data.x_train[:BATCH]), data.y_train[:BATCH]
    attack = partial(pgd, eps=0.1, iterations=2, step_size=0.05, norm="L2")
    found = {}
    for mode in ("eval", "train"):
        model = tiny()
        recipe = replace(RECIPE, batch_size=BATCH, attack=attack, attack_mode=mode)
        training = TrainingStep(model, Freezing(model, ["all"], "update"), recipe, CPU, images, labels)
        assert (training.folded is not None) == (mode == "eval")
        found[mode] = training.attack(images, labels, 0, 0)
    assert (found["eval"] - found["train"]).abs().max() > 1e-3
