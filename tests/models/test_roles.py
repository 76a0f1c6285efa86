"""Roles of layers: found by type and place, in networks of our own, in torchvision's, and in somebody's."""

from functools import partial

import pytest
import torch
from torch import nn

from bnft.models.resnet import ResNet
from bnft.models.roles import layers_of
from bnft.models.torchvision import Torchvision


def roles(model: nn.Module) -> dict[str, tuple[str, int | None, bool]]:
    return {layer.name: (layer.role, layer.stage, layer.shortcut) for layer in layers_of(model)}


def test_roles_in_our_resnet():
    assert roles(ResNet(3, 10, width=2, blocks=[1, 1])) == {
        "conv": ("first_conv", None, False),
        "bn": ("batchnorm", None, False),
        "stages.0.0.conv1": ("conv", 1, False),
        "stages.0.0.bn1": ("batchnorm", 1, False),
        "stages.0.0.conv2": ("conv", 1, False),
        "stages.0.0.bn2": ("batchnorm", 1, False),
        "stages.1.0.conv1": ("conv", 2, False),
        "stages.1.0.bn1": ("batchnorm", 2, False),
        "stages.1.0.conv2": ("conv", 2, False),
        "stages.1.0.bn2": ("batchnorm", 2, False),
        "stages.1.0.shortcut.0": ("conv", 2, True),
        "stages.1.0.shortcut.1": ("batchnorm", 2, True),
        "logits": ("logits", None, False),
    }


def test_roles_in_torchvisions_resnet():
    found = roles(Torchvision("resnet18", 3, 10))
    assert found["model.conv1"] == ("first_conv", None, False)
    assert found["model.bn1"] == ("batchnorm", None, False)
    assert found["model.layer1.0.conv1"] == ("conv", 1, False)
    assert found["model.layer4.1.bn2"] == ("batchnorm", 4, False)
    assert found["model.layer3.0.downsample.1"] == ("batchnorm", 3, True)
    assert found["model.fc"] == ("logits", None, False)
    assert [sum(stage == number for _, stage, _ in found.values()) for number in (1, 2, 3, 4)] == [8, 10, 10, 10]
    assert sum(shortcut for *_, shortcut in found.values()) == 6


def test_a_layer_without_a_type_of_its_own_is_listed_if_it_has_parameters():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.norm = nn.BatchNorm1d(3, affine=False)
            self.hidden, self.act, self.out = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)

    found = roles(Scaled())
    assert {name: role for name, (role, *_) in found.items()} == {
        "": "other",
        "norm": "batchnorm",
        "hidden": "linear",
        "out": "logits",
    }


def block(**parts: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def stage() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize(
    "network",
    [
        partial(Torchvision, "vgg11_bn", 3, 10),
        lambda: block(layer1=nn.Linear(1, 1), layer2=nn.Linear(1, 1)),  # layers, no stages
        lambda: nn.Sequential(*(block(layer1=stage(), layer2=stage()) for _ in range(2))),  # no telling which
    ],
    ids=["vgg", "two linear layers", "two of them"],
)
def test_models_without_stages(network):
    assert {layer.stage for layer in layers_of(network())} == {None}


def test_the_outermost_stages_count():
    inner = block(stages=nn.Sequential(stage(), stage()))
    model = block(layer1=nn.Sequential(inner), layer2=stage(), layer10=stage())
    assert [layer.stage for layer in layers_of(model)] == [1, 1, 2, 10]
