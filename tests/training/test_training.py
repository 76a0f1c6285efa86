"""The one training loop: what it computes, and that going on from a checkpoint changes no bit of it."""

import copy
from dataclasses import replace
from statistics import fmean, stdev

import pytest
import torch
from support.recipes import CPU, RECIPE
from torch import nn
from torch.nn import functional

from bnft.attacks.pgd import pgd
from bnft.batchnorm.freezing import Freezing
from bnft.batchnorm.layers import batchnorm_parameters
from bnft.common.devices import Hardware
from bnft.common.stopping import Stopped
from bnft.data.augmentation import none
from bnft.data.dataset import Dataset, prepare
from bnft.data.digits import load
from bnft.models.resnet import ResNet
from bnft.training import loop, step
from bnft.training.loop import train
from bnft.training.state import TrainingState
from bnft.training.step import TrainingStep


class Kept:
    """Keeps every state that training saves, and counts the batches."""

    def __init__(self, stop_at_step: int | None = None, stop_at_pulse: int | None = None) -> None:
        self.saved: list[tuple[dict, TrainingState]] = []
        self.steps = self.pulses = 0
        self.stop_at_step, self.stop_at_pulse = stop_at_step, stop_at_pulse

    def save(self, model, progress):
        self.saved.append((copy.deepcopy(model.state_dict()), copy.deepcopy(progress)))

    def stepped(self, progress, steps):
        self.steps += 1
        if self.steps == self.stop_at_step:
            raise KeyboardInterrupt

    def pulse(self):
        self.pulses += 1
        if self.pulses == self.stop_at_pulse:
            raise Stopped


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = prepare(load(), 10)
    return replace(data, x_train=data.x_train[:300], y_train=data.y_train[:300])


def fresh(parameters=("all",), statistics="update", dropout=False) -> tuple[nn.Module, Freezing]:
    torch.manual_seed(0)
    model = ResNet(1, 10, 4, [1])
    if dropout:
        model.stages.append(nn.Dropout(0.3))
    return model, Freezing(model, list(parameters), statistics)


def trained(digits, recipe=RECIPE, keeper=None, **policy):
    model, freezing = fresh(**policy)
    progress = train(model, freezing, digits, recipe, CPU, keeper or Kept())
    return model, progress


def gone_on(digits, keeper, **policy):
    """The model after going on from what `keeper` saved last, and the keeper of that rest."""
    state, progress = keeper.saved[-1]
    model, freezing = fresh(**policy)
    model.load_state_dict(state)
    rest = Kept()
    train(model, freezing, digits, RECIPE, CPU, rest, progress)
    return model, rest


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("parameters", "statistics"),
    [("all", "update"), ("all", "frozen"), ("all", "reset"), ("random:batchnorm", "update")],
)
def test_resumed_from_any_checkpoint_equals_undisturbed(digits, monkeypatch, parameters, statistics):
    """Mid-epoch checkpoints too: here one is due after every batch."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    policy = {"parameters": [parameters], "statistics": statistics, "dropout": True}
    keeper = Kept()
    expected, done = trained(digits, keeper=keeper, **policy)
    assert len(keeper.saved) == 8  # 4 whole batches an epoch
    for state, progress in keeper.saved[::3]:
        model, freezing = fresh(**policy)
        model.load_state_dict(state)
        resumed = train(model, freezing, digits, RECIPE, CPU, Kept(), copy.deepcopy(progress))
        assert same(model, expected)
        assert [{**line, "seconds": 0} for line in resumed.history] == [{**line, "seconds": 0} for line in done.history]
        assert resumed.batchnorm.epochs == [0, 1, 2]


@pytest.mark.parametrize("moment", [1, 2, 5, 9, 17])
def test_stopped_in_mid_batch_it_goes_on_from_there(digits, moment):
    """Pulses come before each batch and in the attack on it; whichever one stops, no whole batch is lost."""
    expected, _ = trained(digits, parameters=["batchnorm"])
    keeper = Kept(stop_at_pulse=moment)
    with pytest.raises(Stopped):
        trained(digits, keeper=keeper, parameters=["batchnorm"])
    _, progress = keeper.saved[-1]
    assert progress.epoch * 4 + progress.step == keeper.steps
    model, rest = gone_on(digits, keeper, parameters=["batchnorm"])
    assert same(model, expected) and rest.steps == 8 - keeper.steps


def test_resuming_repeats_no_finished_epoch(digits):
    keeper = Kept(stop_at_step=6)
    with pytest.raises(KeyboardInterrupt):
        trained(digits, keeper=keeper)
    _, progress = keeper.saved[-1]
    assert (progress.epoch, progress.step) == (1, 0)
    _, rest = gone_on(digits, keeper)
    assert rest.steps == 4


def test_a_checkpoint_is_due_in_mid_epoch_after_five_minutes(digits):
    class Clock:
        now = 0.0

        def __call__(self):
            self.now += 100.0
            return self.now

    model, freezing = fresh()
    keeper = Kept()
    train(model, freezing, digits, RECIPE, CPU, keeper, clock=Clock())
    assert any(progress.step for _, progress in keeper.saved)


def test_no_parameter_learns_but_statistics_move(digits):
    model, freezing = fresh(["none"], "update")
    before = copy.deepcopy(model)
    train(model, freezing, digits, RECIPE, CPU, Kept())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name))
    assert not torch.equal(model.get_buffer("bn.running_mean"), before.get_buffer("bn.running_mean"))
    assert int(model.get_buffer("bn.num_batches_tracked")) == 8, "attacks must not count as batches"


def test_statistics_see_the_adversarial_batch(digits):
    """Forwarding adversarial examples moves the statistics elsewhere than forwarding clean ones."""
    adversarial, _ = trained(digits, parameters=["none"])
    clean, _ = trained(digits, replace(RECIPE, attack=None), parameters=["none"])
    assert not torch.equal(adversarial.bn.running_mean, clean.bn.running_mean)


def test_learning_rate_follows_the_shape(digits):
    rates = []
    recipe = replace(RECIPE, attack=None, shape=lambda progress: rates.append(progress) or 1.0)
    trained(digits, recipe)
    assert list(dict.fromkeys(rates)) == [index / 8 for index in range(8)]


def test_training_learns(digits):
    recipe = replace(RECIPE, attack=None, epochs=6, augmentation=none, batch_size=16, lr=0.1)
    torch.manual_seed(0)
    model = ResNet(1, 10, 16, [1, 1, 1])
    progress = train(model, Freezing(model, ["all"], "update"), digits, recipe, CPU, Kept())
    assert progress.history[-1]["clean_error"] < 10 < progress.history[0]["clean_error"]
    assert [line["epoch"] for line in progress.history] == list(range(1, 7))


def test_train_mode_attack_leaves_the_statistics_to_the_update(digits):
    recipe = replace(RECIPE, attack_mode="train")
    model, _ = trained(digits, recipe)
    assert int(model.bn.num_batches_tracked) == 8


def test_folded_attack_equals_the_plain_one(digits, monkeypatch):
    """The fast path: one epoch against the folded view and against the model itself, but for rounding."""
    folded, _ = trained(digits, replace(RECIPE, epochs=1))

    class Plain:
        def __init__(self, model, example):
            self.model = model

        def refresh(self):
            return self.model

    monkeypatch.setattr(step, "Folded", Plain)
    plain, _ = trained(digits, replace(RECIPE, epochs=1))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[name], value, rtol=1e-3, atol=1e-3)


# what learns in part


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_the_picked_entries_move(digits, precision):
    """Eight steps with weight decay and momentum; BN parameters are not among what can be picked."""
    model, freezing = fresh(["random:20"])
    before = copy.deepcopy(model.state_dict())
    train(model, freezing, digits, replace(RECIPE, weight_decay=0.1), replace(CPU, precision=precision), Kept())
    moved = 0
    for name, parameter in model.named_parameters():
        mask = freezing.masks.get(name, torch.zeros_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter.view(torch.int32)[~mask], before[name].view(torch.int32)[~mask]), name
        moved += int((parameter != before[name])[mask].sum())
    assert moved == 20
    assert not torch.equal(model.get_buffer("bn.running_mean"), before["bn.running_mean"])


def test_the_picked_entries_move_as_in_sgd_on_them_alone(digits):
    """Three updates, beside SGD written out: momentum, Nesterov and weight decay on the picked entries."""
    model, freezing = fresh(["random:30"])
    reference, learning = fresh(["all"])
    images, labels = digits.pixels(digits.x_train[:64]), digits.y_train[:64]
    ours = TrainingStep(model, freezing, replace(RECIPE, attack=None), CPU, images, labels)
    velocity = {name: torch.zeros_like(value) for name, value in reference.named_parameters()}
    rate, momentum, decay = 0.3, RECIPE.momentum, RECIPE.weight_decay
    for _ in range(3):
        ours.update(images, labels, rate)
        learning.train_mode()
        functional.cross_entropy(reference(images), labels).backward()
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                if (mask := freezing.masks.get(name)) is not None:
                    assert parameter.grad is not None
                    gradient = parameter.grad + decay * parameter
                    velocity[name] = momentum * velocity[name] + gradient
                    parameter.sub_(rate * (gradient + momentum * velocity[name]) * mask)
                parameter.grad = None
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter)
    assert {name: value.shape for name, value in ours.velocity().items()} == {
        name: (int(mask.sum()),) for name, mask in freezing.masks.items()
    }


def test_sgd_is_that_of_pytorch_without_its_class(digits, monkeypatch):
    """To the bit, with two weight decays, and with the momentum of a checkpoint. The class is slow to import."""
    (model, freezing), (reference, learning) = fresh(), fresh()
    layers = {id(value) for value in batchnorm_parameters(reference)}
    groups = [[value for value in reference.parameters() if (id(value) in layers) == own] for own in (True, False)]
    decays = ({"params": groups[0], "weight_decay": 0.0}, {"params": groups[1], "weight_decay": 0.1})
    optimizer = torch.optim.SGD(decays, momentum=RECIPE.momentum, nesterov=True)
    monkeypatch.setattr(torch.optim.Optimizer, "__init__", None)
    recipe = replace(RECIPE, attack=None, weight_decay=0.1, batchnorm_weight_decay=0.0)
    images, labels = digits.pixels(digits.x_train[:64]), digits.y_train[:64]
    velocity: dict[str, torch.Tensor] = {}
    for rate in (0.3, 0.2, 0.1):
        ours = TrainingStep(model, freezing, recipe, CPU, images, labels, velocity)
        ours.update(images, labels, rate)
        velocity = ours.velocity()
        learning.train_mode()
        optimizer.zero_grad()
        functional.cross_entropy(reference(images), labels).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for name, parameter in reference.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name
        assert torch.equal(velocity[name], optimizer.state[parameter]["momentum_buffer"]), name


def test_a_parameter_that_is_one_number_can_be_picked(digits):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.scale * images.flatten(1)[:, :10]

    model = Scaled()
    freezing = Freezing(model, ["random:1"], "frozen")
    train(model, freezing, digits, replace(RECIPE, attack=None), CPU, Kept())
    assert freezing.counts().learning == 1 and model.scale != 2


def test_an_entry_that_moves_though_it_was_not_picked_is_an_error(digits):
    model, freezing = fresh(["random:20"])
    before = freezing.frozen_state()
    name, mask = next((name, mask) for name, mask in freezing.masks.items() if not mask.all())
    with torch.no_grad():
        model.get_parameter(name)[mask] += 1
    freezing.check_unchanged(before)
    with torch.no_grad():
        model.get_parameter(name)[~mask] += 1
    with pytest.raises(RuntimeError, match=name):
        freezing.check_unchanged(before)


# weight decay


class Idle(nn.Module):
    """Its logits depend on no parameter, so that all gradients are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.logits = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 0 * self.logits(self.bn(self.conv(images)).mean((2, 3)))


@pytest.mark.parametrize(("own", "factor"), [(None, 0.96**8), (0.0, 1.0), (0.5, 0.9**8)])
def test_bn_parameters_have_a_weight_decay_of_their_own(digits, own, factor):
    """Eight steps at rate 0.2, with decay 0.2 on the others: 1 - 0.2 * 0.2 each."""
    model = Idle()
    before = copy.deepcopy(model)
    recipe = replace(RECIPE, attack=None, lr=0.2, shape=lambda progress: 1.0, momentum=0.0, nesterov=False)
    recipe = replace(recipe, weight_decay=0.2, batchnorm_weight_decay=own)
    train(model, Freezing(model, ["all"], "update"), digits, recipe, CPU, Kept())
    torch.testing.assert_close(model.bn.weight, torch.full((4,), factor))
    if own == 0:
        assert torch.equal(model.bn.weight, before.bn.weight)
    for name in ("conv.weight", "logits.weight", "logits.bias"):
        torch.testing.assert_close(model.get_parameter(name), before.get_parameter(name) * 0.96**8)


def test_resumed_with_a_weight_decay_of_its_own_equals_undisturbed(digits, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    recipe, keeper = replace(RECIPE, weight_decay=0.1, batchnorm_weight_decay=0.0), Kept()
    expected, _ = trained(digits, recipe, keeper)
    state, progress = keeper.saved[4]
    model, freezing = fresh()
    model.load_state_dict(state)
    train(model, freezing, digits, recipe, CPU, Kept(), progress)
    assert same(model, expected)
    assert not same(trained(digits, replace(recipe, batchnorm_weight_decay=None))[0], expected)


def test_a_diverging_loss_is_an_error(digits):
    recipe = replace(RECIPE, attack=None, lr=1e30, shape=lambda progress: 1.0, nesterov=False, momentum=0.0)
    with pytest.raises(RuntimeError, match=r"lower schedule\.lr"):
        trained(digits, recipe)


def test_a_frozen_tensor_that_moves_is_an_error(digits):
    model, freezing = fresh(["batchnorm"])
    before = freezing.frozen_state()
    with torch.no_grad():
        model.get_parameter("conv.weight").add_(1)
    with pytest.raises(RuntimeError, match=r"conv\.weight"):
        freezing.check_unchanged(before)


@pytest.mark.long
def test_bf16_trains_as_well_as_fp32():
    """Clean and robust errors of eight trainings each, paired by seed, differ by less than their noise allows."""
    data, count = prepare(load(), 10), 300
    inputs, labels = data.x_test.float() / 255, data.y_test
    differences: dict[str, list[float]] = {"clean": [], "robust": []}
    for seed in range(8):
        errors = {}
        for precision in ("fp32", "bf16"):
            torch.manual_seed(seed)
            model = ResNet(1, 10, 8, [1, 1])
            recipe = replace(RECIPE, epochs=4, lr=0.2, augmentation=none, seed=seed)
            train(model, Freezing(model, ["all"], "update"), data, recipe, replace(CPU, precision=precision), Kept())
            model.eval()
            fooled = pgd(
                model,
                inputs[:count],
                labels[:count],
                generator=torch.Generator().manual_seed(0),
                eps=0.1,
                iterations=10,
                step_size=0.025,
            )
            errors[precision] = [
                100 * float((model(images).argmax(1) != labels[: len(images)]).float().mean())
                for images in (inputs, fooled)
            ]
        for name, one, other in zip(differences, errors["bf16"], errors["fp32"], strict=True):
            differences[name].append(one - other)
    for name, found in differences.items():
        mean, spread = fmean(found), stdev(found) / len(found) ** 0.5
        assert abs(mean) < 4, f"{name}: {found}"
        assert abs(mean) < 3.5 * max(spread, 0.3), f"{name}: {found}"  # t at 99 %, for seven degrees of freedom


def test_bf16_keeps_weights_and_statistics_in_fp32(digits):
    model, freezing = fresh()
    train(model, freezing, digits, replace(RECIPE, epochs=1), Hardware(torch.device("cpu"), "bf16", 1), Kept())
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
