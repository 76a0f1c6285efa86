"""The environment that `make` builds fits together."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from support.command import ROOT, TINY


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


def test_a_wheel_works_in_a_folder_far_from_the_code(tmp_path: Path):
    """Built with the installed hatchling, so that no network is needed; dependencies are those of this environment."""
    installed, folder = tmp_path / "installed", tmp_path / "elsewhere"
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *offline, f"--wheel-dir={tmp_path}", str(ROOT)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("bnft-*.whl")
    subprocess.run([*pip, "install", *offline, f"--target={installed}", str(wheel)], check=True, timeout=120)
    assert (installed / "bnft" / "py.typed").exists() and (installed / "bnft" / "report" / "templates").is_dir()

    def call(*line: str) -> str:
        path = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(line, cwd=folder, env=path, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done
        return done.stdout

    where = "import bnft, hydra_plugins.bnft as plugin; print(bnft.__file__, plugin.__file__)"
    assert all(Path(file).is_relative_to(installed) for file in call(sys.executable, "-c", where).split())
    command = str(installed / "bin" / "bnft")
    assert str(installed / "bnft" / "conf") in call(command, "run", "--info", "searchpath")
    call(command, "run", "policy=adv", *TINY)
    assert "ADV" in call(command, "table") and {path.name for path in folder.iterdir()} == {"multirun"}
