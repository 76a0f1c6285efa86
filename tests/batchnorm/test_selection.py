"""Selectors by role and at random: what each picks, written down by hand, and what is refused."""

from functools import partial

import pytest
import torch
from torch import nn

from bnft.batchnorm.counts import Counts
from bnft.batchnorm.freezing import Freezing
from bnft.batchnorm.layers import batchnorm_parameters
from bnft.batchnorm.selection import select
from bnft.common.errors import InputError
from bnft.models.resnet import ResNet
from bnft.models.torchvision import Torchvision

RESNET20 = partial(ResNet, 3, 10, width=2)
RESNET18 = partial(Torchvision, "resnet18", 3, 10)
VGG = partial(Torchvision, "vgg11_bn", 3, 10)


def picked(network, *selectors: str) -> list[str]:
    found = select(network(), selectors, seed=0)
    assert set(found.values()) == {None}
    return list(found)


def affine(*layers: str) -> list[str]:
    return [f"{layer}.{tensor}" for layer in layers for tensor in ("weight", "bias")]


def stage(number: int) -> list[str]:
    """The BN layers of a stage of ResNet-20; all but the first have a shortcut."""
    layers = [f"stages.{number - 1}.{block}.bn{place}" for block in range(3) for place in (1, 2)]
    return layers if number == 1 else [*layers[:2], f"stages.{number - 1}.0.shortcut.1", *layers[2:]]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_bn_of_a_stage_of_resnet20(number):
    """A pattern such as `stages.2.*bn*` would miss the shortcut."""
    assert picked(RESNET20, f"batchnorm@stage{number}") == affine(*stage(number))


def test_the_stages_and_the_stem_are_all_bn_layers_of_resnet20():
    parts = ["bn.*", *(f"batchnorm@stage{number}" for number in (3, 2, 1))]
    assert picked(RESNET20, *parts) == picked(RESNET20, "batchnorm") == affine("bn", *stage(1), *stage(2), *stage(3))


SHORTCUTS = ("stages.1.0.shortcut.1", "stages.2.0.shortcut.1")


@pytest.mark.parametrize(
    ("network", "selector", "names"),
    [
        (RESNET20, "batchnorm@shortcut", affine(*SHORTCUTS)),
        (RESNET20, "batchnorm.gamma@shortcut", [f"{name}.weight" for name in SHORTCUTS]),
        (RESNET20, "batchnorm.gamma", [f"{name}.weight" for name in ("bn", *stage(1), *stage(2), *stage(3))]),
        (RESNET20, "batchnorm.beta", [f"{name}.bias" for name in ("bn", *stage(1), *stage(2), *stage(3))]),
        (RESNET20, "logits", affine("logits")),
        (RESNET20, "first_conv", ["conv.weight"]),
        (RESNET20, "batchnorm.beta@stage2", [f"{name}.bias" for name in stage(2)]),
        (
            partial(ResNet, 3, 10, width=2, blocks=[1, 1]),
            "all@stage2",
            [
                "stages.1.0.conv1.weight",
                *affine("stages.1.0.bn1"),
                "stages.1.0.conv2.weight",
                *affine("stages.1.0.bn2"),
                "stages.1.0.shortcut.0.weight",
                *affine("stages.1.0.shortcut.1"),
            ],
        ),
        (RESNET18, "batchnorm@shortcut", affine(*(f"model.layer{number}.0.downsample.1" for number in (2, 3, 4)))),
        (
            RESNET18,
            "batchnorm@stage4",
            affine(*(f"model.layer4.{name}" for name in ("0.bn1", "0.bn2", "0.downsample.1", "1.bn1", "1.bn2"))),
        ),
        (VGG, "batchnorm.gamma", [f"model.features.{place}.weight" for place in (1, 5, 9, 12, 16, 19, 23, 26)]),
    ],
)
def test_selectors_by_role(network, selector, names):
    assert picked(network, selector) == names


def test_what_is_picked_of_the_papers_network():
    with torch.device("meta"):
        model = ResNet(3, 10)
    counts = [
        Freezing(model, [selector], "update").counts().learning
        for selector in ("batchnorm@stage1", "batchnorm@stage2", "batchnorm@stage3", "batchnorm@shortcut")
    ]
    assert counts == [6 * 2 * 64, 7 * 2 * 128, 7 * 2 * 256, 2 * 128 + 2 * 256]
    assert sum(counts[:3]) + 2 * 64 == 6_272
    halves = [Freezing(model, [f"batchnorm.{part}"], "update").counts().learning for part in ("gamma", "beta")]
    assert halves == [3_136, 3_136]


# random entries


def masks(model: nn.Module, *selectors: str, seed: int = 0) -> dict[str, torch.Tensor]:
    found = Freezing(model, selectors, "update", seed).masks
    assert all(mask.shape == model.get_parameter(name).shape for name, mask in found.items())
    return found


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(mask, second[name]) for name, mask in first.items())


@pytest.mark.parametrize(
    ("selector", "count"), [("random:batchnorm", 6_272), ("random:1", 1), ("random:4321482", None)]
)
def test_as_many_random_entries_as_asked_and_none_of_bn(selector, count):
    with torch.device("meta"):
        model = ResNet(3, 10)
    freezing = Freezing(model, [selector], "update")
    expected = 4_321_482 if count is None else count
    assert freezing.counts() == Counts(parameters=4_327_754, learning=expected, batchnorm=6_272, statistics=6_272)
    assert sum(int(mask.sum()) for mask in freezing.masks.values()) == expected
    assert freezing.masks.keys() == freezing.learning.keys()
    batchnorm = {id(parameter) for parameter in batchnorm_parameters(model)}
    assert not {id(parameter) for parameter in freezing.learning.values()} & batchnorm


def test_random_entries_are_those_of_the_seed():
    model = RESNET20()
    first = masks(model, "random:batchnorm", seed=3)
    torch.manual_seed(1)
    assert same(first, masks(RESNET20(), "random:batchnorm", seed=3))
    assert not same(first, masks(model, "random:batchnorm", seed=4))


def test_random_entries_are_spread_evenly():
    """Each parameter has its share of them, within five standard deviations, and the same at both of its ends."""
    model = partial(ResNet, 3, 10, width=16)()
    others = sum(value.numel() for value in model.parameters()) - 1_568
    found = masks(model, f"random:{others // 2}")
    for mask in found.values():
        for half in mask.flatten().split(-(-mask.numel() // 2)):
            assert abs(int(half.sum()) - len(half) / 2) <= 2.5 * len(half) ** 0.5


def test_random_entries_beside_other_selectors():
    found = select(RESNET20(), ["random:50", "logits", "batchnorm.beta"], seed=0)
    assert found["logits.weight"] is None and found["bn.bias"] is None and "bn.weight" not in found
    alone = masks(RESNET20(), "random:50")
    assert {name for name, mask in found.items() if mask is not None} == alone.keys() - {"logits.weight", "logits.bias"}
    more = masks(RESNET20(), "random:80")
    for both in (("random:50", "random:80"), ("random:80", "random:50")):
        assert same(masks(RESNET20(), *both), more), "fewer are among more"


# refusals


@pytest.mark.parametrize(
    ("network", "selector", "must"),
    [
        (VGG, "batchnorm@stage1", "a selector without a stage: this model has no stages"),
        (RESNET20, "batchnorm@stage4", "one of @stage1, @stage2, @stage3 in this model"),
        (RESNET20, "batchnorm@stage0", "one of @stage1, @stage2, @stage3 in this model"),
        (RESNET20, "batchnorm@stem", "batchnorm@stageN, with N from 1, or @shortcut"),
        (RESNET20, "batchnorm@", "batchnorm@stageN, with N from 1, or @shortcut"),
        (RESNET20, "logits@stage1", "another selector: this model has no Linear layer in its stage1"),
        (VGG, "batchnorm@shortcut", "another selector: this model has no BN layers in its shortcut"),
        (partial(nn.Linear, 2, 2), "batchnorm.gamma", "another selector: this model has no BN layers"),
        (partial(nn.BatchNorm1d, 2, affine=False), "batchnorm.beta", "another selector, or BN with affine parameters"),
        (RESNET20, "random:0", "random:N with N from 1 to"),
        (partial(nn.Linear, 2, 2), "random:7", "random:N with N from 1 to 6, the number of entries outside BN layers"),
        (RESNET20, "random:-1", "random:N with N from 1 to"),
        (RESNET20, "random:", "random:N with N from 1 to"),
        (partial(nn.Linear, 2, 2), "random:batchnorm", "another selector: this model has no BN parameters to take"),
        (partial(nn.BatchNorm1d, 2), "random:batchnorm", "random:N with N from 1 to 0,"),
        (RESNET20, "batchnorm.delta", "one of all, batchnorm, logits, first_conv, none, batchnorm.gamma,"),
    ],
)
def test_what_the_model_does_not_have_is_refused(network, selector, must):
    with pytest.raises(InputError) as refusal:
        Freezing(network(), [selector], "frozen")
    message = str(refusal.value)
    assert message.startswith(f"freeze_policy.parameters={selector}: must be {must}"), message
    assert "\n" not in message
