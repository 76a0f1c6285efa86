"""A user's own data set, from an .npz file of plain arrays."""

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bnft.common.errors import InputError, show
from bnft.data.dataset import Arrays

NAMES = ("x_train", "y_train", "x_test", "y_test")
HEADER_BYTES = 1 << 14  # more than the longest header that NumPy considers safe
COPIES = 4  # about how many copies of the arrays are in memory at the same time: arrays, tensors, intermediate results
BOMB_BYTES, BOMB_RATIO = 1 << 28, 500  # arrays above both limits are refused; deflate can reach a ratio of 1032

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of NumPy; others can unpack to gigabytes at once


@dataclass(frozen=True)
class Header:
    """The header of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """The size of the array in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def load(path: str) -> Arrays:
    """Load a data set from an .npz file.

    Args:
        path: a file with the uint8 images `x_train` and `x_test` of shape (N, H, W, C) and the integer labels `y_train`
            and `y_test` of shape (N,).

    Raises:
        InputError: if the file is not such an archive, if an array needs pickle, or if the arrays are too large for
            this machine's memory.
    """
    arrays = read(path, *NAMES)
    return Arrays(arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"])


def read(path: str, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of an .npz file.

    Raises InputError if the four arrays together do not fit into memory, or if an array is compressed so much that it
    cannot contain images.
    """
    with _Archive(path) as archive:
        needed = COPIES * sum(header.size for header in archive.headers.values())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > memory:
            raise InputError(
                f"data.path={path}: must be smaller; its arrays need {needed / 1e9:,.1f} GB of memory, and this machine"
                f" has {memory / 1e9:,.1f} GB"
            )
        for name in NAMES:
            archive.check_packing(name)
        return {name: archive.array(name) for name in names}


def num_classes(path: str) -> int:
    """Return the number of classes in an .npz file: its largest label plus one."""
    labels = read(path, "y_train", "y_test").values()
    largest = [int(part.max()) for part in labels if part.size and np.issubdtype(part.dtype, np.integer)]
    return max(largest, default=0) + 1


def channels(path: str) -> int:
    """Return the number of colour channels of the images in an .npz file."""
    with _Archive(path) as archive:
        shape = archive.headers["x_test"].shape
    return shape[-1] if len(shape) == 4 else 1


class _Archive:
    """An .npz file with checked headers: the size of each array equals the unpacked size that the archive gives.

    Raises InputError if the file is invalid. Only the headers are read before `array` is called.
    """

    def __init__(self, path: str) -> None:
        file = Path(path).expanduser()
        self._wanted = f"data.path={path}: must be an .npz file with the arrays {', '.join(NAMES)}"
        if not file.is_file():
            raise self._refusal("there is no such file")
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises many kinds of errors for a file that is not an archive
            with file.open("rb") as content:
                single = content.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX
            raise self._refusal(
                "this file holds a single array" if single else f"this file is not an archive ({_reason(error)})"
            ) from None
        self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}
        missing = [name for name in NAMES if name not in self._members]
        if missing:
            present = show(", ".join(self._members) or "none")
            raise self._refusal(f"this file holds {present}, not {', '.join(missing)}")
        self.headers = {name: self._header(name) for name in NAMES}

    def __enter__(self) -> "_Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def check_packing(self, name: str) -> None:
        packed, unpacked = self._members[name].compress_size, self._members[name].file_size
        if unpacked > max(BOMB_BYTES, BOMB_RATIO * packed):
            sizes = f"{packed / 1e6:,.1f} MB and unpacks to {unpacked / 1e6:,.1f} MB"
            raise self._refusal(f"the array {name} takes {sizes}; if this is correct, save it with np.savez")

    def array(self, name: str) -> NDArray[Any]:
        with self._opened(name) as member:
            array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
        return array

    def _header(self, name: str) -> Header:
        if self._members[name].compress_type not in _COMPRESSIONS:
            raise self._refusal(f"the array {name} is compressed by another method than np.savez_compressed uses")
        with self._opened(name) as member:
            start = io.BytesIO(member.read(HEADER_BYTES))
            if not start.getvalue().startswith(npy.MAGIC_PREFIX):
                raise self._refusal(f"{name} is not an array")
            version = npy.read_magic(start)
            if version not in _HEADERS:
                raise ValueError(f"its header has version {version[0]}.{version[1]}")
            shape, _, dtype = _HEADERS[version](start)
            header, unpacked = Header(shape, dtype), self._members[name].file_size - start.tell()
            if dtype.hasobject:
                raise self._refusal(f"the array {name} needs pickle, which is refused")
            if header.size != unpacked or min(shape, default=0) < 0:
                what = f"{show(shape)} of {show(dtype.str)}, {header.size} bytes"
                raise ValueError(f"its header says {what}, but it unpacks to {unpacked}")
        return header

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with self._zip.open(self._members[name]) as member:
                yield member
        except InputError:
            raise
        except Exception as error:  # zipfile and NumPy raise many kinds of errors for a damaged file
            raise self._refusal(f"the array {name} is damaged ({_reason(error)})") from None

    def _refusal(self, why: str) -> InputError:
        return InputError(f"{self._wanted}; {why}")


def _reason(error: Exception) -> str:
    return show(str(error) or type(error).__name__)
