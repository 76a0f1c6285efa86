"""Initial values and kinds of BN layers, chosen by configuration."""

import copy

import pytest
import torch
from torch import nn

from bnft.attacks.folding import Folded
from bnft.batchnorm.layers import batchnorm_layers, gamma
from bnft.batchnorm.log import quantities
from bnft.batchnorm.record import normalized
from bnft.models.normalization import ReparametrizedBatchNorm2d
from bnft.models.resnet import Block, ResNet


def network(initialization=None, normalization=None, width=16):
    torch.manual_seed(0)
    return ResNet(3, 10, width, [1, 1], initialization, normalization)


def spread(weight):
    return float(weight.detach().std())


def gammas(net):
    """gamma of the last BN layers of blocks, and of all others."""
    ends = {id(block.bn2) for block in net.modules() if isinstance(block, Block)}
    layers = batchnorm_layers(net).values()
    return tuple(
        torch.cat([gamma(layer).detach() for layer in layers if (id(layer) in ends) == last]) for last in (True, False)
    )


def test_the_default_is_that_of_version_0_1():
    net = network()
    last, others = gammas(net)
    assert (last == 0).all() and (others == 1).all()
    assert spread(net.conv.weight) == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1), "Kaiming, fan out"
    assert spread(net.logits.weight) == pytest.approx((1 / (3 * 32)) ** 0.5, rel=0.1), "PyTorch's own"
    assert net.logits.bias.abs().max() > 0
    assert all(
        torch.equal(one, other) for one, other in zip(net.parameters(), network({}, "batch").parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("part", "how", "expected"),
    [
        ("head", "kaiming_fan_in", (2 / 32) ** 0.5),
        ("head", "kaiming_fan_out", (2 / 10) ** 0.5),
        ("convolutions", "kaiming_fan_in", (2 / (3 * 9)) ** 0.5),
        ("convolutions", "pytorch", (1 / (3 * 3 * 9)) ** 0.5),
    ],
)
def test_layers_have_the_spread_that_their_initialisation_says(part, how, expected):
    net = network({part: how}, width=32 if part == "convolutions" else 16)
    layer = net.logits if part == "head" else net.conv
    assert spread(layer.weight) == pytest.approx(expected, rel=0.15)
    if part == "head":
        assert (net.logits.bias == 0).all()


@pytest.mark.parametrize("normalization", ["batch", "reparametrized"])
def test_gamma_starts_where_it_is_told_whatever_the_learned_parameter_is(normalization):
    last, others = gammas(network({"gamma": "uniform", "last_gamma": "ones"}, normalization))
    assert (last == 1).all() and 0 <= others.min() < 0.1 and 0.9 < others.max() <= 1 and len(others.unique()) > 20
    last, others = gammas(network({"gamma": "zeros", "last_gamma": "uniform"}, normalization))
    assert (others == 0).all() and last.std() > 0.2


def test_reparametrised_bn_computes_what_bn_with_that_gamma_computes():
    torch.manual_seed(0)
    ours, plain = ReparametrizedBatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, momentum=None)
    assert (ours.weight == 0).all(), "decay pulls gamma to 1"
    with torch.no_grad():
        ours.weight.copy_(torch.randn(4))
        plain.weight.copy_(1 + ours.weight)
        ours.bias.copy_(torch.randn(4))
        plain.bias.copy_(ours.bias)
    for _ in range(3):
        x = torch.randn(8, 4, 5, 5)
        torch.testing.assert_close(ours(x), plain(x))
    ours.eval(), plain.eval()
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(quantities(ours), quantities(plain))
    with pytest.raises(ValueError, match="4D"):
        ours(torch.zeros(2, 4))


def test_equation_1_and_folding_hold_for_reparametrised_layers():
    net = network({"gamma": "uniform", "last_gamma": "uniform"}, "reparametrized").train()
    net(torch.rand(32, 3, 8, 8))
    layer, z = net.eval().bn, torch.randn(2, 16, 4, 4)
    m, b = normalized(**quantities(layer), eps=layer.eps)
    torch.testing.assert_close(layer(z), m.view(-1, 1, 1) * z + b.view(-1, 1, 1))
    folded, images = Folded(net, torch.rand(2, 3, 8, 8)), torch.rand(4, 3, 8, 8)
    assert folded.view is not net
    called = [node.target for node in folded.view.graph.nodes if node.op == "call_module"]
    assert not any(isinstance(folded.view.get_submodule(name), nn.BatchNorm2d) for name in called)
    torch.testing.assert_close(folded.view(images), net(images), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        net.bn.weight.add_(0.5)
    torch.testing.assert_close(folded.refresh()(images), net(images), atol=1e-4, rtol=1e-4)
    assert copy.deepcopy(net).bn.weight.shape == (16,)
