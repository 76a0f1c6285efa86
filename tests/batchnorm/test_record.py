"""Equation 1 of the paper: a BN layer in eval mode as one affine map."""

import copy

import pytest
import torch
from torch import nn

from bnft.batchnorm.log import quantities
from bnft.batchnorm.record import RECORDED, normalized


def used(layer: nn.modules.batchnorm._BatchNorm) -> nn.modules.batchnorm._BatchNorm:
    """A BN layer whose every number differs from where it starts."""
    draws = torch.Generator().manual_seed(0)
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        if tensor is not None:
            nn.init.normal_(tensor, generator=draws)
    if layer.running_var is not None:
        layer.running_var.uniform_(1e-4, 3, generator=draws)
    return layer.eval()


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_equation_1(eps):
    """BN(z) = m z + b in eval mode, with m = gamma / sqrt(variance + eps) and b = beta - gamma mean / sqrt(...)."""
    layer, inputs = used(nn.BatchNorm2d(6, eps=eps)), torch.randn(4, 6, 3, 3)
    weight, bias = normalized(**quantities(layer), eps=eps)
    torch.testing.assert_close(weight[:, None, None] * inputs + bias[:, None, None], layer(inputs))


def test_equation_1_on_a_record_of_several_epochs():
    layers = [used(nn.BatchNorm2d(6)), nn.BatchNorm2d(6)]
    stacked = {name: torch.stack([quantities(layer)[name] for layer in layers]) for name in RECORDED}
    weight, bias = normalized(**stacked, eps=1e-5)
    assert weight.shape == bias.shape == (2, 6)
    for row, layer in enumerate(layers):
        one = normalized(**quantities(layer), eps=1e-5)
        assert torch.equal(weight[row], one[0]) and torch.equal(bias[row], one[1])


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_quantities_that_a_layer_does_not_have(options):
    layer = used(nn.BatchNorm2d(4, **options))
    found = quantities(layer)
    assert tuple(found) == RECORDED and all(value.shape == (4,) for value in found.values())
    defaults = {"gamma": 1.0, "beta": 0.0} if "affine" in options else {"mean": 0.0, "variance": 1.0}
    assert all((found[name] == value).all() for name, value in defaults.items())


def test_quantities_are_copies():
    layer = used(nn.BatchNorm2d(4))
    before = quantities(layer)
    kept = copy.deepcopy(before)
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor += 1
    assert all(torch.equal(before[name], kept[name]) for name in RECORDED)
    assert not any(value.requires_grad for value in before.values())
