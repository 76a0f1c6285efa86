"""The rooms of the package import one way, and the linter says so when they do not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import ROOT

LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]


@pytest.mark.parametrize(
    ("file", "added", "contract"),
    [
        ("bnft/common/errors.py", "from bnft.report import rows", "A room imports only rooms below it"),
        ("bnft/training/loop.py", "def f():\n    import omegaconf", "The science is plain PyTorch"),
        ("bnft/sweeps/pool.py", "import hydra_plugins.bnft", "Hydra's plugins are above everything"),
    ],
)
def test_a_new_upward_import_is_found(tmp_path: Path, file: str, added: str, contract: str) -> None:
    for package in ("bnft", "hydra_plugins"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{added}\n")
    found = subprocess.run(LINT, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 1, found.stdout + found.stderr
    assert f"{contract} BROKEN" in found.stdout
