"""What the tests share: the command line in this process, and data and models small enough to train in a moment."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from support.command import ROOT, Outcome
from support.composing import once

if TYPE_CHECKING:
    from support.on_slurm import Site
    from support.slurm_cluster import Cluster

sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]  # the latter for `_target_: mischief.attack`
os.environ["WANDB_MODE"] = "disabled"  # but in the tests of tracking: they need time and a folder each


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _composed_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bnft.config.compose.hydra_compose", once(compose))
        yield


@pytest.fixture
def launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """`python launch.py ARGUMENTS` in this process, with a folder of its own as working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)  # Hydra composes everything to look for hydra.mode

    def call(*arguments: str) -> Outcome:
        from bnft import hydra_app

        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "argv", [str(ROOT / "launch.py"), *arguments])
        capsys.readouterr()
        code = 0
        try:
            hydra_app.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    yield call
    GlobalHydra.instance().clear()


@pytest.fixture
def bnft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`bnft ARGUMENTS` in this process, with a folder of its own as working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")  # put back at the end, since `bnft sync` changes it

    def call(*arguments: str) -> Outcome:
        from bnft import cli

        capsys.readouterr()
        try:
            cli.main(arguments)
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        assert isinstance(code, int)
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def hydra() -> Iterator[None]:
    """Hydra initialised on conf/, for tests that compose without launching."""
    from bnft.config.compose import register

    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    """Random but valid arrays for data=npz: 3 classes, 8x8, 3 channels."""
    random = np.random.RandomState(0)
    return {
        "x_train": random.randint(0, 256, (60, 8, 8, 3)).astype(np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": random.randint(0, 256, (30, 8, 8, 3)).astype(np.uint8),
        "y_test": np.arange(30) % 3,
    }


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Cluster]":
    """A SLURM cluster for all tests of this process, of so few CPUs that jobs wait for each other."""
    from support.slurm_cluster import Cluster, missing

    if lacking := missing():
        pytest.skip(f"a SLURM cluster cannot run here without: {', '.join(lacking)}")
    with Cluster.start(tmp_path_factory.mktemp("cluster"), cpus=2, settings={"KillWait": 10}) as found:
        yield found


@pytest.fixture
def site(
    cluster: "Cluster", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch: Callable[..., Outcome]
) -> "Iterator[Site]":
    """A folder on the cluster to launch sweeps from."""
    from support.on_slurm import visiting

    yield from visiting(cluster, tmp_path, monkeypatch, launch)
