"""A convolution and the product in its place must be one function, with gradients in the layout that is fast."""

import pytest
import torch
from torch import nn

from bnft.attacks.folding import Folded
from bnft.attacks.small_convolutions import Dense, Pointwise, as_product
from bnft.models.resnet import ResNet

CONVOLUTIONS = {
    "kernel larger than the map": (nn.Conv2d(64, 64, 3, padding=1), (64, 2, 2), Dense),
    "one channel": (nn.Conv2d(1, 16, 3, padding=1), (1, 8, 8), Dense),
    "strided": (nn.Conv2d(32, 64, 3, 2, padding=1), (32, 4, 4), Dense),
    "uneven": (nn.Conv2d(2, 16, (3, 2), (1, 2), (2, 1), (1, 2)), (2, 5, 6), Dense),
    "strided 1x1": (nn.Conv2d(16, 32, 1, 2), (16, 8, 8), Pointwise),
    "strided 1x1, odd map": (nn.Conv2d(16, 32, 1, (3, 2)), (16, 7, 5), Pointwise),
}
LEFT = {
    "large map": (nn.Conv2d(16, 16, 3, padding=1), (16, 8, 8)),
    "grouped": (nn.Conv2d(32, 32, 1, 2, groups=32), (32, 8, 8)),
    "other padding": (nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"), (64, 2, 2)),
    "no bias": (nn.Conv2d(64, 64, 3, padding=1, bias=False), (64, 2, 2)),
    "not 2d": (nn.Conv1d(1, 16, 3), (1, 8)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("count", [3, 20])
def test_product_equals_its_convolution(name, count):
    conv, size, kind = CONVOLUTIONS[name]
    conv.requires_grad_(False)
    product = as_product(conv, size)
    assert product is not None and isinstance(product, kind)
    with torch.no_grad():
        conv.weight.mul_(1.5)  # it takes over weights as they are at refresh, not as they were when it was made
    product.refresh()
    images = torch.rand(count, *size).to(memory_format=torch.channels_last)
    outputs, gradients = [], []
    for module in (conv, product):
        x = images.clone().requires_grad_()
        y = module(x)
        y.relu_()  # in place, as ReLUs are
        (gradient,) = torch.autograd.grad((y * torch.arange(y.numel()).view_as(y)).sum(), x)
        outputs.append(y.detach())
        gradients.append(gradient)
        with torch.no_grad():
            torch.testing.assert_close(module(images).relu(), y.detach())
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-2)
    assert gradients[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", LEFT)
def test_other_convolutions_are_left_alone(name):
    assert as_product(*LEFT[name]) is None


def test_autocast_computes_products_in_bf16_as_it_does_convolutions():
    conv, size, _ = CONVOLUTIONS["one channel"]
    product = as_product(conv.requires_grad_(False), size)
    assert product is not None
    product.refresh()
    with torch.autocast("cpu", torch.bfloat16):
        for count in (3, 20):
            found = product(torch.rand(count, *size))
            assert found.dtype == torch.bfloat16


def test_digits_network_has_products_and_the_papers_first_stage_has_none():
    small = Folded(ResNet(1, 10, 16, [1, 1, 1]).eval(), torch.rand(2, 1, 8, 8))
    products = {type(part) for part in small._parts if isinstance(part, (Dense, Pointwise))}
    assert products == {Dense, Pointwise}
    large = Folded(ResNet(3, 10, 16, [1, 1]).eval(), torch.rand(2, 3, 32, 32))
    assert not any(isinstance(part, Dense) for part in large._parts)
