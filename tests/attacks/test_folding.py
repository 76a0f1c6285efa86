"""The folded view must compute what the model computes, for any model, at any time."""

import pytest
import torch
from torch import nn

from bnft.attacks.folding import Folded
from bnft.models.resnet import ResNet
from bnft.models.torchvision import Torchvision

EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def trained(model: nn.Module) -> nn.Module:
    """The model with BN statistics and parameters that are not the initial ones."""
    torch.manual_seed(1)
    model.train()
    for _ in range(3):
        model(torch.rand(8, 3, 8, 8))
    for name, parameter in model.named_parameters():
        if "bn" in name:
            nn.init.normal_(parameter)
    return model.eval()


class Branching(nn.Module):
    """Control flow that depends on data cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))


class Shared(nn.Module):
    """The convolution's output is used twice, so its BN must not be folded; the second convolution has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.bn2(self.conv2(self.bn(y) + y)).mean((2, 3))


@pytest.mark.parametrize(
    "build",
    [lambda: ResNet(3, 5, 4, [1, 1, 1]), lambda: Torchvision("resnet18", 3, 5), Shared],
    ids=["resnet", "torchvision", "shared"],
)
def test_view_equals_the_model_and_is_another(build):
    model = trained(build())
    folded = Folded(model, EXAMPLE)
    assert folded.view is not model
    for count in (1, 40):  # a few images go another way than many
        x = torch.rand(count, 3, 8, 8)
        torch.testing.assert_close(folded.view(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 40])
def test_gradient_to_the_image_equals_the_models(count):
    model = trained(ResNet(3, 5, 4, [1, 1, 1])).requires_grad_(False)
    images, gradients = torch.rand(count, 3, 8, 8), []
    for module in (model, Folded(model, EXAMPLE).view):
        x = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad(module(x)[:, 0].sum(), x)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_refresh_follows_the_model():
    model = trained(ResNet(3, 5, 4, [1, 1, 1]))
    folded = Folded(model, EXAMPLE)
    before = folded.view(EXAMPLE)
    trained(model)
    with torch.no_grad():
        model.get_parameter("bn.weight").mul_(2)
        model.get_parameter("conv.weight").mul_(0.5)
    assert torch.equal(folded.view(EXAMPLE), before)
    torch.testing.assert_close(folded.refresh()(EXAMPLE), model(EXAMPLE), rtol=1e-4, atol=1e-4)


class ByType(nn.Module):
    """Computes something else where its input is no tensor, as while it is traced."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        z = self.bn(self.conv(x)).mean((2, 3))
        return z if isinstance(x, torch.Tensor) else 2 * z


@pytest.mark.parametrize(
    "model",
    [Branching(), ByType(), nn.Sequential(nn.Flatten(), nn.Linear(192, 3))],
    ids=["branching", "traced wrongly", "no BN"],
)
def test_what_cannot_be_folded_is_used_as_it_is(model):
    model.eval()
    assert Folded(model, EXAMPLE).view is model


def test_the_model_is_left_as_it_was():
    model = ResNet(3, 5, 4, [1, 1, 1]).train()
    model.bn.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Folded(model, EXAMPLE)
    assert model.training and not model.bn.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
