"""Attacks: against linear models, whose worst case is known in closed form, and what they leave behind."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from bnft.attacks.base import no_trace, perturbation_size
from bnft.attacks.pgd import pgd
from bnft.models.resnet import ResNet

SHAPE = (3, 4, 4)
NORMS = ("Linf", "L2")


class Linear(nn.Module):
    """Two classes: the logit of class 1 is <weight, x> + bias, that of class 0 is 0."""

    def __init__(self, weight: torch.Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def margin(self, images: torch.Tensor) -> torch.Tensor:
        return (images * self.weight).flatten(1).sum(1) + self.bias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        margin = self.margin(images)
        return torch.stack([torch.zeros_like(margin), margin], 1)


class Mixed(nn.Module):
    """BN and dropout, in front of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.bn = nn.BatchNorm2d(5)
        self.untracked = nn.BatchNorm2d(5, track_running_stats=False)
        self.dropout = nn.Dropout(0.5)
        self.logits = nn.Linear(5, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits(self.dropout(self.untracked(self.bn(self.conv(images)))).mean((2, 3)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(scale: float = 1.0) -> Linear:
    return Linear(scale * torch.randn(SHAPE, generator=seeded(1)))


def worst_l2(inputs: torch.Tensor, direction: torch.Tensor, eps: float) -> torch.Tensor:
    """The image within eps of each input that goes furthest along `direction`: clamp(x + t direction) of length eps."""
    result = []
    for image in inputs:
        low, high = 0.0, 1e4
        for _ in range(100):
            middle = (low + high) / 2
            point = (image + middle * direction).clamp(0, 1)
            low, high = (middle, high) if (point - image).norm() < eps else (low, middle)
        result.append(point)
    return torch.stack(result)


def small_resnet() -> ResNet:
    torch.manual_seed(0)
    return ResNet(3, 4, width=4, blocks=[1, 1])


def losses(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return functional.cross_entropy(model(images), labels, reduction="none")


# the optimum


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("eps", [0.1, 0.4])
def test_linf_reaches_the_optimum_of_a_linear_model(eps, label):
    """With inputs all over [0, 1], the larger eps meets the box almost everywhere."""
    model, inputs = linear(), torch.rand(5, *SHAPE, generator=seeded())
    towards_error = model.weight.sign() * (1 if label == 0 else -1)
    adversarial = pgd(
        model, inputs, torch.full((5,), label), generator=seeded(), eps=eps, iterations=12, step_size=eps / 4
    )
    torch.testing.assert_close(adversarial, (inputs + eps * towards_error).clamp(0, 1))


@pytest.mark.parametrize("label", [0, 1])
def test_l2_reaches_the_optimum_of_a_linear_model_inside_the_box(label):
    model, inputs, eps = linear(), torch.full((4, *SHAPE), 0.5), 0.4
    towards_error = model.weight / model.weight.norm() * (1 if label == 0 else -1)
    adversarial = pgd(
        model, inputs, torch.full((4,), label), generator=seeded(), eps=eps, iterations=200, step_size=0.1, norm="L2"
    )
    torch.testing.assert_close(adversarial, inputs + eps * towards_error, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("eps", "share"), [(0.5, 0.98), (1.5, 0.95)])
def test_l2_comes_close_to_the_optimum_where_the_box_is_active(eps, share):
    model, inputs = linear(0.3), torch.rand(6, *SHAPE, generator=seeded())
    best = worst_l2(inputs, model.weight, eps)
    assert ((best == 0) | (best == 1)).any(), "the box must be active"
    adversarial = pgd(
        model,
        inputs,
        torch.zeros(6, dtype=torch.long),
        generator=seeded(),
        eps=eps,
        iterations=100,
        step_size=eps / 20,
        norm="L2",
    )
    before, after, possible = model.margin(inputs), model.margin(adversarial), model.margin(best)
    assert (after <= possible + 1e-4).all()
    assert (after - before >= share * (possible - before)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_confident_model_is_attacked_as_well_as_any(norm):
    """A logit gap of 50 leaves gradients of 1e-22, which have a direction like any other."""
    model, inputs = linear(30), torch.full((1, *SHAPE), 0.5)
    model.bias = -50 - float(model.margin(inputs))
    eps = 0.1 if norm == "Linf" else 0.5
    adversarial = pgd(
        model,
        inputs,
        torch.zeros(1, dtype=torch.long),
        generator=seeded(),
        eps=eps,
        iterations=10,
        step_size=eps / 4,
        norm=norm,
        random_start=False,
    )
    length = model.weight.abs().sum() if norm == "Linf" else model.weight.norm()
    torch.testing.assert_close(model.margin(adversarial), -50 + eps * length.view(1), atol=0.01, rtol=0)


# the constraints


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("keep", ["worst", "last"])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize(("eps", "step_size", "iterations"), [(8 / 255, 2 / 255, 3), (0.7, 1.0, 3), (2.0, 0.5, 0)])
def test_stays_in_the_ball_and_in_the_box(norm, keep, random_start, eps, step_size, iterations):
    model = small_resnet().eval()
    inputs = torch.rand(6, 3, 8, 8, generator=seeded()).mul(1.4).sub(0.2).clamp(0, 1)  # with many zeros and ones
    adversarial = pgd(
        model,
        inputs,
        torch.arange(6) % 4,
        generator=seeded(),
        eps=eps,
        iterations=iterations,
        step_size=step_size,
        norm=norm,
        random_start=random_start,
        keep=keep,
    )
    assert adversarial.shape == inputs.shape and not adversarial.requires_grad
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert (perturbation_size(adversarial, inputs, norm) <= eps + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_start_is_uniform_in_the_ball(norm):
    """In three dimensions, half of an L2 ball lies within eps * 0.5 ** (1/3); every coordinate is centred."""
    inputs, eps = torch.full((4000, 3, 1, 1), 0.5), 0.2
    start = pgd(
        linear(),
        inputs,
        torch.zeros(4000, dtype=torch.long),
        generator=seeded(),
        eps=eps,
        iterations=0,
        step_size=1.0,
        norm=norm,
        keep="last",
    )
    median = eps * 0.5 ** (1 / 3)
    assert (perturbation_size(start, inputs, norm) < median).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert (start - inputs).mean(0).abs().max() < 0.01


@pytest.mark.parametrize("keep", ["worst", "last"])
def test_no_iterations_and_no_random_start_give_the_inputs(keep):
    inputs = torch.rand(3, *SHAPE, generator=seeded())
    labels = torch.zeros(3, dtype=torch.long)
    result = pgd(
        linear(),
        inputs,
        labels,
        generator=seeded(),
        eps=0.1,
        iterations=0,
        step_size=0.1,
        random_start=False,
        keep=keep,
    )
    assert torch.equal(result, inputs)
    assert result is not inputs


# what is kept, and what it depends on


@pytest.mark.parametrize("norm", NORMS)
def test_keep_worst_returns_the_worst_of_all_iterates_image_by_image(norm):
    """`keep=last` after 0, 1, ... iterations gives every iterate; steps far too long make the last rarely the worst."""
    model, iterations = small_resnet().eval(), 6
    nn.init.normal_(model.logits.weight, std=3.0, generator=seeded())
    inputs, labels = torch.rand(12, 3, 8, 8, generator=seeded()), torch.arange(12) % 4

    def attack(**options):
        eps = 0.3 if norm == "Linf" else 3.0
        return pgd(model, inputs, labels, generator=seeded(), eps=eps, step_size=1.5 * eps, norm=norm, **options)

    iterates = [attack(iterations=count, keep="last") for count in range(iterations + 1)]
    every = torch.stack([losses(model, images, labels) for images in iterates])
    kept = losses(model, attack(iterations=iterations, keep="worst"), labels)
    torch.testing.assert_close(kept, every.amax(0))
    assert (kept > every[-1]).any() and len(every.argmax(0).unique()) > 1, "the test must have something to choose"


@pytest.mark.parametrize("norm", NORMS)
def test_draws_come_from_the_generator_alone(norm):
    model, inputs, labels = small_resnet().eval(), torch.full((4, 3, 8, 8), 0.5), torch.arange(4)

    def attack(seed):
        return pgd(model, inputs, labels, generator=seeded(seed), eps=0.1, iterations=2, step_size=0.01, norm=norm)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = attack(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(attack(0), first)
    assert not torch.equal(attack(1), first)


def test_each_image_is_attacked_by_itself():
    model, inputs, labels = small_resnet().eval(), torch.rand(4, 3, 8, 8, generator=seeded()), torch.arange(4)
    attack = partial(pgd, eps=1.0, iterations=3, step_size=0.3, norm="L2", random_start=False)
    together = attack(model, inputs, labels, generator=seeded())
    alone = attack(model, inputs[2:3], labels[2:3], generator=seeded())
    torch.testing.assert_close(together[2:3], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("norm", "sizes"), [("Linf", [0.5, 0.0, 0.25]), ("L2", [math.sqrt(0.5), 0.0, 0.25])])
def test_perturbation_size(norm, sizes):
    inputs = torch.full((3, 1, 2, 2), 0.5)
    adversarial = inputs.clone()
    adversarial[0, 0, 0] += torch.tensor([0.5, -0.5])
    adversarial[2, 0, 1, 1] -= 0.25
    torch.testing.assert_close(perturbation_size(adversarial, inputs, norm), torch.tensor(sizes))


# no trace


def state_of(model: nn.Module) -> dict[str, object]:
    """Everything that an attack must leave as it was."""
    return {
        "tensors": {name: value.clone() for name, value in model.state_dict().items()},
        "training": {name: module.training for name, module in model.named_modules()},
        "tracking": {name: getattr(module, "track_running_stats", None) for name, module in model.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "grad": {name: parameter.grad for name, parameter in model.named_parameters()},
    }


def assert_same_state(before, after):
    tensors, others = before.pop("tensors"), after.pop("tensors")
    assert before == after
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())


def mixed() -> Mixed:
    """A model as a freeze policy leaves it: some layers in eval mode, some parameters frozen, statistics moved."""
    torch.manual_seed(0)
    model = Mixed().train()
    model(torch.rand(8, 3, 6, 6))
    model.dropout.eval()
    model.conv.requires_grad_(False)
    return model


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_no_trace_leaves_the_model_as_it_was(mode):
    model = mixed()
    before = state_of(model)
    with no_trace(model, mode):
        assert {module.training for module in model.modules()} == {mode == "train"}
        assert not any(parameter.requires_grad for parameter in model.parameters())
        inputs, labels = torch.rand(4, 3, 6, 6, generator=seeded()), torch.arange(4)
        pgd(model, inputs, labels, generator=seeded(), eps=0.1, iterations=3, step_size=0.05)
    assert_same_state(before, state_of(model))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_no_trace_restores_after_an_exception(mode):
    model = mixed()
    before = state_of(model)

    def attack():
        model(torch.rand(4, 3, 6, 6))
        raise RuntimeError("the attack failed")

    with pytest.raises(RuntimeError, match="the attack failed"), no_trace(model, mode):
        attack()
    assert_same_state(before, state_of(model))


def test_no_trace_in_train_mode_normalises_by_the_batch():
    """It must be the function that the update step will see, and another one than in eval mode."""
    torch.manual_seed(0)
    model, inputs = small_resnet(), torch.rand(8, 3, 8, 8, generator=seeded())
    nn.init.ones_(model.get_parameter("stages.0.0.bn2.weight"))
    expected = copy.deepcopy(model).train()(inputs)
    with no_trace(model.eval(), "train"):
        found = model(inputs)
    with no_trace(model.train(), "eval"):
        other = model(inputs)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(other, expected, atol=1e-3)


def test_no_gradient_reaches_the_parameters_even_without_no_trace():
    model = small_resnet().eval()
    earlier = torch.full_like(model.logits.bias, 3.0)
    model.logits.bias.grad = earlier.clone()
    inputs, labels = torch.rand(4, 3, 8, 8, generator=seeded()), torch.arange(4)
    pgd(model, inputs, labels, generator=seeded(), eps=0.1, iterations=2, step_size=0.05)
    assert torch.equal(model.logits.bias.grad, earlier)
    assert all(value.grad is None for name, value in model.named_parameters() if name != "logits.bias")


def test_an_attack_that_calls_backward_leaves_no_gradient_either():
    model = mixed()
    with no_trace(model):
        inputs = torch.rand(4, 3, 6, 6, requires_grad=True)
        model(inputs).sum().backward()
    assert inputs.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attack_works_where_gradients_are_switched_off():
    model, inputs = linear(), torch.full((2, *SHAPE), 0.5)
    with torch.no_grad():
        adversarial = pgd(
            model, inputs, torch.zeros(2, dtype=torch.long), generator=seeded(), eps=0.1, iterations=9, step_size=0.05
        )
    torch.testing.assert_close(adversarial, inputs + 0.1 * model.weight.sign())
