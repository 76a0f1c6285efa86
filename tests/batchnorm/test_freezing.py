"""Freeze policies: what is frozen stays bit for bit, what learns moves, and what cannot be frozen is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from support.command import ROOT
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bnft.attacks.base import no_trace
from bnft.attacks.pgd import pgd
from bnft.batchnorm.counts import Counts
from bnft.batchnorm.freezing import Freezing
from bnft.batchnorm.layers import batchnorm_layers
from bnft.common.devices import Hardware
from bnft.common.errors import InputError
from bnft.data import augmentation
from bnft.data.dataset import Arrays, prepare
from bnft.models import build
from bnft.models.normalization import ReparametrizedBatchNorm2d
from bnft.models.resnet import ResNet
from bnft.models.torchvision import Torchvision
from bnft.training import shapes
from bnft.training.loop import train
from bnft.training.recipe import Recipe
from bnft.training.state import TrainingState

POLICIES = {  # of Table 2
    name: yaml.safe_load((ROOT / "conf" / "freeze_policy" / f"{name}.yaml").read_text())
    for name in (
        "all",
        "batchnorm",
        "batchnorm_frozen_statistics",
        "batchnorm_logits_conv1",
        "statistics",
        "statistics_no_reset",
    )
}
BATCH = 12
STEPS = 4
AGED = 7  # batches that the BN statistics have seen before training


class Volumes(nn.Module):
    """Somebody's model: its BN layers are 1d, 3d and synchronised, and no name gives them away."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.whiten = nn.SyncBatchNorm(4)
        self.scale = nn.BatchNorm3d(4, momentum=None)
        self.drop = nn.Dropout(0.1)
        self.hidden = nn.Linear(4, 6)
        self.rescale = nn.BatchNorm1d(6)
        self.answer = nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.whiten(self.stem(images)).relu()
        x = self.scale(x.unflatten(2, (2, -1))).relu().mean((2, 3, 4))
        return self.answer(self.rescale(self.hidden(self.drop(x))).relu())


@dataclass(frozen=True)
class Case:
    """A network and, written down by hand, what the selectors mean in it."""

    network: Callable[[], nn.Module]
    channels: int
    logits: str
    first_conv: str
    batchnorms: int


CASES = {
    "resnet": Case(partial(ResNet, 1, 3, width=16, blocks=[1, 1]), 1, "network.logits", "network.conv", 6),
    "resnet18": Case(partial(Torchvision, "resnet18", 3, 3), 3, "network.model.fc", "network.model.conv1", 20),
    "volumes": Case(Volumes, 1, "network.answer", "network.stem", 3),
}


def model_of(case: Case) -> nn.Module:
    """The model as a base would leave it: BN parameters and statistics are no longer where they start."""
    model = build(case.network, [0.4] * case.channels, [0.3] * case.channels, seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.num_batches_tracked.fill_(AGED)
    return model


def of_batchnorm(model: nn.Module, tensors: str) -> set[str]:
    return {
        f"{name}.{tensor}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
        for tensor in tensors.split()
    }


def expected_learning(model: nn.Module, case: Case, selectors: list[str]) -> set[str]:
    everything = {name for name, _ in model.named_parameters()}
    parts = {
        "all": everything,
        "none": set(),
        "batchnorm": of_batchnorm(model, "weight bias"),
        "logits": {f"{case.logits}.weight", f"{case.logits}.bias"},
        "first_conv": {f"{case.first_conv}.weight", f"{case.first_conv}.bias"} & everything,
    }
    return set().union(*(parts[selector] for selector in selectors))


class Nobody:
    """Keeps nothing of a training."""

    def save(self, model: nn.Module, progress: TrainingState) -> None:
        pass

    def stepped(self, progress: TrainingState, steps: int) -> None:
        pass

    def pulse(self) -> None:
        pass


def trained(model: nn.Module, freezing: Freezing, channels: int, attack=None, mode: str = "eval") -> None:
    """A few steps on random images."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (STEPS * BATCH, 8, 8, channels)).astype(np.uint8)
    labels = np.arange(STEPS * BATCH) % 3
    recipe = Recipe(
        epochs=1,
        batch_size=BATCH,
        lr=0.1,
        shape=shapes.cosine,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        augmentation=augmentation.none,
        attack=attack,
        attack_mode=mode,
        seed=0,
    )
    dataset = prepare(Arrays(images, labels, images[:4], labels[:4]), 3)
    train(model, freezing, dataset, recipe, Hardware(torch.device("cpu"), "fp32", 1), Nobody())


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


# training


def test_the_rows_of_table_2_use_six_freeze_policies():
    assert {(*policy["parameters"], policy["statistics"]) for policy in POLICIES.values()} == {
        ("all", "update"),
        ("batchnorm", "update"),
        ("batchnorm", "logits", "first_conv", "update"),
        ("none", "update"),
        ("none", "reset"),
        ("batchnorm", "frozen"),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("policy", POLICIES)
def test_only_what_learns_moves(policy, case):
    """After training on adversarial examples, exactly the tensors that the policy names have other bits."""
    case, policy = CASES[case], POLICIES[policy]
    model = model_of(case)
    freezing = Freezing(model, policy["parameters"], policy["statistics"])
    before = copied(model)
    trained(model, freezing, case.channels, partial(pgd, eps=0.05, iterations=1, step_size=0.05))

    learning = expected_learning(model, case, policy["parameters"])
    statistics = of_batchnorm(model, "running_mean running_var num_batches_tracked")
    assert len(statistics) == 3 * case.batchnorms
    assert set(freezing.learning) == learning
    assert changed(before, model) == learning | (statistics if policy["statistics"] != "frozen" else set())
    assert {name for name, value in model.named_parameters() if value.requires_grad} == learning
    assert {name for name, value in model.named_parameters() if value.grad is not None} == learning
    seen = {"update": AGED + STEPS, "reset": STEPS, "frozen": AGED}[policy["statistics"]]
    assert {layer.num_batches_tracked.item() for layer in batchnorm_layers(model).values()} == {seen}


def test_an_attack_in_train_mode_moves_no_frozen_statistics():
    case = CASES["resnet"]
    model = model_of(case)
    before = copied(model)
    freezing = Freezing(model, ["batchnorm"], "frozen")
    trained(model, freezing, case.channels, partial(pgd, eps=0.05, iterations=1, step_size=0.05), mode="train")
    assert changed(before, model) == of_batchnorm(model, "weight bias")


def test_reset_forgets_where_the_statistics_came_from():
    """Two bases that differ in their statistics alone end alike after a reset, and only then."""
    case = CASES["resnet"]

    def end_of(statistics: str, shift: float) -> dict[str, torch.Tensor]:
        model = model_of(case)
        for layer in batchnorm_layers(model).values():
            layer.get_buffer("running_mean").add_(shift)
        trained(model, Freezing(model, ["none"], statistics), case.channels)
        return model.state_dict()

    first, second = end_of("reset", 0.0), end_of("reset", 1.0)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    first, second = end_of("update", 0.0), end_of("update", 1.0)
    assert not all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("statistics", ["update", "frozen", "reset"])
def test_reset_starts_from_mean_0_and_variance_1_where_the_policy_says_so(statistics):
    model = model_of(CASES["volumes"])
    before = copied(model)
    Freezing(model, ["batchnorm"], statistics).reset()
    if statistics != "reset":
        assert not changed(before, model)
        return
    for layer in batchnorm_layers(model).values():
        mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        assert torch.equal(mean, torch.zeros_like(mean)) and torch.equal(variance, torch.ones_like(variance))
        assert layer.num_batches_tracked == 0
    assert changed(before, model) == of_batchnorm(model, "running_mean running_var num_batches_tracked")


@pytest.mark.parametrize("statistics", ["update", "frozen"])
def test_train_mode(statistics):
    """Only BN layers with frozen statistics are in eval mode: dropout still drops."""
    model = model_of(CASES["volumes"]).eval()
    Freezing(model, ["all"], statistics).train_mode()
    in_eval = {name for name, module in model.named_modules() if not module.training}
    assert in_eval == (set(batchnorm_layers(model)) if statistics == "frozen" else set())


# the check that training ends with


@pytest.mark.parametrize(
    ("statistics", "tensor"),
    [
        ("update", "network.conv.weight"),
        ("update", "normalize.mean"),
        ("frozen", "network.bn.running_var"),
        ("frozen", "network.bn.num_batches_tracked"),
    ],
)
def test_check_unchanged_names_what_has_changed(statistics, tensor):
    model = model_of(CASES["resnet"])
    freezing = Freezing(model, ["batchnorm"], statistics)
    before = freezing.frozen_state()
    freezing.check_unchanged(before)
    model.state_dict()[tensor].add_(1)
    with pytest.raises(RuntimeError, match=tensor):
        freezing.check_unchanged(before)


def test_the_frozen_state_is_everything_but_what_moves():
    model = model_of(CASES["resnet"])
    everything = set(model.state_dict())
    moving = of_batchnorm(model, "weight bias")
    assert set(Freezing(model, ["batchnorm"], "frozen").frozen_state()) == everything - moving
    moving |= of_batchnorm(model, "running_mean running_var num_batches_tracked")
    assert set(Freezing(model, ["batchnorm"], "update").frozen_state()) == everything - moving


def test_what_is_shared_under_two_names_may_learn():
    """A state dict names a shared tensor twice, a list of parameters once."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1)
            self.bn = nn.BatchNorm2d(3)
            self.again = self.bn
            self.logits = nn.Linear(3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.logits(self.again(self.bn(self.conv(images)).relu()).relu().mean((2, 3)))

    model = build(Twice, [0.5], [0.5], seed=0)
    freezing = Freezing(model, ["batchnorm"], "update")
    trained(model, freezing, 1)
    assert list(freezing.learning) == ["network.bn.weight", "network.bn.bias"]


# selectors


def test_bn_layers_are_found_by_type_in_the_order_of_registration():
    names = ["network.whiten", "network.scale", "network.rescale"]
    assert list(batchnorm_layers(model_of(CASES["volumes"]))) == names


def test_normalisation_of_other_kinds_is_not_bn():
    model = nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.GroupNorm(1, 3), nn.LayerNorm(3))
    assert batchnorm_layers(model) == {}


@pytest.mark.parametrize(
    ("selectors", "learning"),
    [
        (["logits"], ["network.logits.weight", "network.logits.bias"]),
        (["first_conv"], ["network.conv.weight"]),
        (["logits", "first_conv"], ["network.conv.weight", "network.logits.weight", "network.logits.bias"]),
        (["network.bn.*"], ["network.bn.weight", "network.bn.bias"]),
        (["*.logits.bias", "logits", "*logits*"], ["network.logits.weight", "network.logits.bias"]),
        (["*.shortcut.1.*"], ["network.stages.1.0.shortcut.1.weight", "network.stages.1.0.shortcut.1.bias"]),
        (["none"], []),
    ],
)
def test_selectors(selectors, learning):
    """What learns is listed once each, in the order of the model, whatever the order of the selectors."""
    assert list(Freezing(model_of(CASES["resnet"]), selectors, "update").learning) == learning


def test_a_later_policy_replaces_an_earlier_one():
    model = model_of(CASES["resnet"])
    Freezing(model, ["first_conv"], "update")
    Freezing(model, ["logits"], "update")
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {"network.logits.weight", "network.logits.bias"}


# refusals

ALLOWED = "all, batchnorm, logits, first_conv, none"


def with_bn(**options) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, **options), nn.Flatten(), nn.Linear(2, 2))


WITHOUT_BN = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2))
ONLY_BN = nn.Sequential(nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    ("model", "parameters", "statistics", "parts"),
    [
        (with_bn(), ["stages.*"], "update", ["freeze_policy.parameters=stages.*", ALLOWED, "such as 0.weight"]),
        (with_bn(), ["batchnorm", "bn"], "update", ["freeze_policy.parameters=bn:", ALLOWED]),
        (with_bn(), ["none", "batchnorm"], "update", ["freeze_policy.parameters=[none,batchnorm]", "[none] alone"]),
        (with_bn(), [], "update", ["freeze_policy.parameters=[]", ALLOWED, "[none]"]),
        (
            with_bn(affine=False),
            ["batchnorm"],
            "update",
            ["freeze_policy.parameters=batchnorm", "affine", "1 has none"],
        ),
        (WITHOUT_BN, ["batchnorm"], "update", ["freeze_policy.parameters=batchnorm", "BN layers"]),
        (ONLY_BN, ["logits"], "update", ["freeze_policy.parameters=logits", "no Linear layer"]),
        (ONLY_BN, ["first_conv"], "update", ["freeze_policy.parameters=first_conv", "no Conv1d or Conv2d or Conv3d"]),
        (nn.Flatten(), ["all"], "update", ["freeze_policy.parameters=all", "no parameters"]),
        (WITHOUT_BN, ["all"], "reset", ["freeze_policy.statistics=reset", "must be frozen", "BN layers"]),
        (WITHOUT_BN, ["none"], "update", ["freeze_policy.statistics=update", "must be frozen", "BN layers"]),
        (
            with_bn(track_running_stats=False),
            ["all"],
            "reset",
            ["freeze_policy.statistics=reset", "must be frozen", "running statistics", "1 has none"],
        ),
        (
            with_bn(track_running_stats=False),
            ["none"],
            "update",
            ["freeze_policy.statistics=update", "must be frozen", "running statistics", "1 has none"],
        ),
        (with_bn(), ["all"], "thaw", ["freeze_policy.statistics=thaw", "one of update, frozen, reset"]),
    ],
)
def test_what_the_model_does_not_have_is_refused(model, parameters, statistics, parts):
    with pytest.raises(InputError) as refusal:
        Freezing(model, parameters, statistics)
    message = str(refusal.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("model", "parameters", "statistics"),
    [
        (WITHOUT_BN, ["all"], "update"),
        (WITHOUT_BN, ["logits"], "frozen"),
        (with_bn(track_running_stats=False), ["batchnorm"], "update"),
        (with_bn(affine=False), ["logits"], "reset"),
    ],
)
def test_what_does_not_matter_to_the_policy_is_accepted(model, parameters, statistics):
    assert Freezing(model, parameters, statistics).learning


# counts


@pytest.mark.parametrize(
    ("policy", "learning", "statistics", "text"),
    [
        ("all", 4_327_754, 6_272, "(100.000 %)"),
        ("batchnorm", 6_272, 6_272, "6,272 of 4,327,754 parameters learn (0.145 %), 6,272 BN statistics are updated"),
        ("batchnorm_frozen_statistics", 6_272, 0, "(0.145 %), 0 BN statistics are updated (0.000 %)"),
        ("statistics", 0, 6_272, "(0.000 %), 6,272 BN statistics are updated (0.145 %)"),
        ("batchnorm_logits_conv1", 6_272 + 2_570 + 1_728, 6_272, "(0.244 %)"),
    ],
)
def test_counts_of_the_papers_network(policy, learning, statistics, text):
    with torch.device("meta"):  # counting needs no weights
        model = ResNet(3, 10)
    freezing = Freezing(model, POLICIES[policy]["parameters"], POLICIES[policy]["statistics"])
    counts = freezing.counts()
    assert counts == Counts(parameters=4_327_754, learning=learning, batchnorm=6_272, statistics=statistics)
    assert text in str(counts)


def test_a_frozen_convolutions_weight_gradient_is_never_computed():
    """Neither the attack nor the update of a BN-only row spends time on it; the update needs none to the image."""

    class Masks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution_backward.default:
                masks.append(tuple(args[-1]))
            return func(*args, **(kwargs or {}))

    masks: list[tuple[bool, ...]] = []
    network = ResNet(3, 10, 16, [1, 1])
    freezing = Freezing(network, ["batchnorm"], "update")
    freezing.train_mode()
    with Masks():
        network(torch.rand(8, 3, 16, 16)).sum().backward()
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert len(masks) == convolutions - 1, "nothing behind the first BN layer is computed"
    assert {mask[:2] for mask in masks} == {(True, False)}


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, ReparametrizedBatchNorm2d])
def test_momentum_of_the_statistics(kind):
    batches = [torch.randn(16, 2, 3, 3) + number for number in range(4)]
    means = [batch.mean((0, 2, 3)) for batch in batches]

    def mean_after(momentum, statistics="reset"):
        model = nn.Sequential(kind(2))
        model(batches[3])  # what a base leaves
        freezing = Freezing(model, ["none"], statistics, momentum=momentum)
        freezing.reset()
        freezing.train_mode()
        for batch in batches[:3]:
            model(batch)
        return model[0].running_mean

    torch.testing.assert_close(mean_after("cumulative"), sum(means[:3]) / 3)
    torch.testing.assert_close(mean_after("cumulative", "update"), 0.1 * means[3] / 4 + sum(means[:3]) / 4)
    torch.testing.assert_close(mean_after(1.0), means[2])
    torch.testing.assert_close(mean_after(None), 0.1 * (0.81 * means[0] + 0.9 * means[1] + means[2]))


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, ReparametrizedBatchNorm2d])
def test_an_attack_in_train_mode_leaves_frozen_layers_in_eval_mode_and_updates_none(kind):
    model, x = nn.Sequential(kind(2)), torch.randn(16, 2, 3, 3) + 5
    for statistics, expected in (("frozen", x / (1 + 1e-5) ** 0.5), ("update", nn.BatchNorm2d(2)(x))):
        freezing = Freezing(model, ["batchnorm"], statistics)
        with no_trace(model, "train", freezing.frozen_layers):
            torch.testing.assert_close(model(x), expected)
        assert (model[0].running_mean == 0).all() and model[0].num_batches_tracked == 0
