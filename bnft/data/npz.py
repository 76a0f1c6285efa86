"""Data sets that people bring: an .npz file of plain arrays."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.common.errors import InputError
from bnft.data.dataset import Arrays

NAMES = ("x_train", "y_train", "x_test", "y_test")

# What NumPy and zipfile raise for what is not an archive, or is a damaged, encrypted or oddly compressed one.
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def load(path: str) -> Arrays:
    """`x_train, y_train, x_test, y_test` from an .npz file: uint8 images (N, H, W, C) and integer labels (N,).

    Arrays that would need pickle are refused. Raises InputError for a file that is not such an archive.
    """
    arrays = read(path, *NAMES)
    return Arrays(arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"])


def read(path: str, *names: str) -> dict[str, NDArray[Any]]:
    """Some of the arrays of the .npz file at `path`, by name."""
    file = Path(path).expanduser()
    wanted = f"data.path={path}: must be an .npz file with the arrays {', '.join(NAMES)}"
    if not file.is_file():
        raise InputError(f"{wanted}; there is no such file")
    try:
        archive = np.load(file, allow_pickle=False)
    except _UNREADABLE as error:
        raise InputError(f"{wanted}; this file is not one ({error})") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{wanted}; this file holds a single array")
    with archive:
        missing = [name for name in NAMES if name not in archive.files]
        if missing:
            raise InputError(f"{wanted}; this one holds {', '.join(archive.files) or 'none'}, not {', '.join(missing)}")
        arrays = {}
        for name in names:
            try:
                arrays[name] = archive[name]
            except _UNREADABLE as error:
                reason = "needs pickle, which is refused" if "allow_pickle" in str(error) else f"is damaged ({error})"
                raise InputError(f"{wanted}; the array {name} {reason}") from None
            if not isinstance(arrays[name], np.ndarray):  # NumPy hands out the bytes of what is not one
                raise InputError(f"{wanted}; {name} is not an array")
    return arrays


def num_classes(path: str) -> int:
    """The number of classes in the file: its largest label plus one."""
    labels = read(path, "y_train", "y_test").values()
    largest = [int(part.max()) for part in labels if part.size and np.issubdtype(part.dtype, np.integer)]
    return max(largest, default=0) + 1


def channels(path: str) -> int:
    """The number of colour channels of the file's images: the last axis."""
    images = read(path, "x_test")["x_test"]
    return int(images.shape[-1]) if images.ndim == 4 else 1
