"""A small model and the digits that it is evaluated on."""

import pytest
import torch
from torch import nn

from bnft.data.dataset import Dataset, prepare
from bnft.data.digits import load


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return prepare(load(), 10)


@pytest.fixture(scope="module")
def model(digits: Dataset) -> nn.Module:
    """A small network, trained with noise until some images withstand a small perturbation and some do not."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        x = digits.pixels(digits.x_train)
        loss = nn.functional.cross_entropy(net((x + 0.3 * torch.randn_like(x)).clamp(0, 1)), digits.y_train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()
