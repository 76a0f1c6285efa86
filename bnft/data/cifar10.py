"""CIFAR-10 through torchvision."""

from pathlib import Path

import numpy as np
from filelock import FileLock
from torchvision.datasets import CIFAR10

from bnft.common.errors import InputError
from bnft.data.dataset import Arrays


def load(root: str, download: bool = True) -> Arrays:
    """Load CIFAR-10 (Krizhevsky, 2009). A lock makes sure that only one of several processes downloads it.

    Args:
        root: the folder of the data.
        download: whether to download the data if the folder does not contain them.

    Raises:
        InputError: if the data are not in the folder and cannot be downloaded.
    """
    folder = Path(root).expanduser()
    try:
        if download and not _present(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "cifar10.lock"):
                CIFAR10(str(folder), train=True, download=True)
        train, test = (CIFAR10(str(folder), train=split) for split in (True, False))
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError for missing or damaged files
        way_out = "check the network" if download else "set data.download=true"
        raise InputError(
            f"data.root={root}: must be a folder with CIFAR-10 as torchvision unpacks it; {way_out} ({error})"
        ) from None
    labels = [np.asarray(split.targets, dtype=np.int64) for split in (train, test)]
    return Arrays(train.data, labels[0], test.data, labels[1])


def _present(folder: Path) -> bool:
    try:
        CIFAR10(str(folder), train=False)
    except RuntimeError:
        return False
    return True
