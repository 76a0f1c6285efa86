"""The environment that `make` builds fits together."""

import subprocess
import sys
from pathlib import Path

import torch


def test_torch_and_torchvision_match():
    """A torchvision built for another torch fails here: "operator torchvision::nms does not exist"."""
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


def test_the_command_is_installed():
    done = subprocess.run([Path(sys.executable).parent / "bnft", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip()


def test_hydra_finds_the_plugins():
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()
    assert "bnft.yaml" in ConfigStore.instance().list("hydra/sweeper")
    assert "local.yaml" in ConfigStore.instance().list("hydra/launcher")
