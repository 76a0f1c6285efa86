"""Data sets: uint8 images and labels, checked, named by their content, and kept as tensors on the device.

A data set is a function that returns `Arrays`; `conf/data/` names it by `_target_`. Everything else is the same for all
data sets and happens here: the checks, the hash of the content, and the split for choosing hyper-parameters.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bnft.common.errors import InputError, rejected
from bnft.common.randomness import generator

SPLITS = ("train", "test")
USUAL_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
MIN_SIDE = 8  # pixels


@dataclass(frozen=True)
class Arrays:
    """The arrays of a data set, as its function returns them.

    Images `x_*` are uint8 of shape (N, H, W, C), with values from 0 to `levels`. Labels `y_*` are integers of shape
    (N,), counted from 0.
    """

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    levels: int = 255


@dataclass(frozen=True)
class Dataset:
    """A checked data set.

    Images `x_*` are uint8 tensors of shape (N, C, H, W), with values from 0 to `levels`. Labels `y_*` are int64 tensors
    of shape (N,). `sha256` is a hash of the content. `mean` and `std` are those of the training images in [0, 1], per
    channel. `held_out` are images and labels like those for training that were taken out of these by `hold_out`.
    """

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    levels: int
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    held_out: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def channels(self) -> int:
        return self.x_train.shape[1]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.x_train.shape[1:]
        return channels, height, width

    @property
    def colour(self) -> list[int]:
        """The mean colour of the training images, from 0 to `levels`, per channel."""
        return [round(mean * self.levels) for mean in self.mean]

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Convert uint8 images of this data set to float32 in [0, 1]. The shape stays the same."""
        return images.to(torch.float32).div_(self.levels)

    @property
    def test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The test images as float32 (N, C, H, W) in [0, 1], and their labels (N,)."""
        return self.pixels(self.x_test), self.y_test

    def to(self, device: torch.device) -> "Dataset":
        moved = {name: getattr(self, name).to(device) for name in ("x_train", "y_train", "x_test", "y_test")}
        held_out = (self.held_out[0].to(device), self.held_out[1].to(device)) if self.held_out else None
        return replace(self, **moved, held_out=held_out)

    def hold_out(self, count: int) -> "Dataset":
        """Return the data set with `count` images taken out of the training images, as `held_out`.

        They are drawn at random, because the images of a file can be sorted by class. The draw is the same for all runs
        and seeds, and a larger one contains a smaller one. `sha256` stays the same, mean and std change.

        Raises InputError if no training image would be left.
        """
        total = len(self.x_train)
        if count >= total:
            raise rejected("monitor.images", count, f"below the {total} training images")
        order = torch.randperm(total, generator=generator(torch.device("cpu"), 0, "held-out images"))
        out, left = order[:count].sort().values, order[count:].sort().values
        images, labels = self.x_train[left], self.y_train[left]
        mean, std = _moments(images, self.levels)
        held_out = self.x_train[out], self.y_train[out]
        return replace(self, x_train=images, y_train=labels, mean=mean, std=std, held_out=held_out)


def prepare(
    arrays: Arrays, num_classes: int, validation: int | None = None, training_images: int | None = None
) -> Dataset:
    """Check the arrays of a data set and convert them to a `Dataset`.

    Args:
        arrays: the images and labels.
        num_classes: the number of classes. Labels must be below it.
        validation: the number of training images to hold out. They replace the test images, so that hyper-parameters
            can be chosen without the test images.
        training_images: the number of training images. The default is all that `validation` leaves.

    Raises:
        InputError: if an array, `validation` or `training_images` is invalid.
    """
    for split in SPLITS:
        _check_images(f"x_{split}", getattr(arrays, f"x_{split}"), arrays.levels)
        _check_labels(split, arrays, num_classes)
    if arrays.x_train.shape[1:] != arrays.x_test.shape[1:]:
        raise InputError(
            f"x_test has images of shape {arrays.x_test.shape[1:]}, x_train of {arrays.x_train.shape[1:]}:"
            " both must have the same height, width and channels"
        )
    if validation:
        if validation >= len(arrays.x_train):
            raise InputError(f"data.validation={validation}: must be below the {len(arrays.x_train)} training images")
        x, y = arrays.x_train, arrays.y_train
        arrays = Arrays(x[:-validation], y[:-validation], x[-validation:], y[-validation:], arrays.levels)
    if training_images:
        if training_images > (count := len(arrays.x_train)):
            raise rejected("data.training_images", training_images, f"at most the {count} training images, or null")
        x, y = arrays.x_train[:training_images], arrays.y_train[:training_images]
        arrays = replace(arrays, x_train=x, y_train=y)
    tensors: dict[str, Any] = {}
    for split in SPLITS:
        images = torch.from_numpy(np.ascontiguousarray(getattr(arrays, f"x_{split}").transpose(0, 3, 1, 2)))
        tensors[f"x_{split}"] = images
        tensors[f"y_{split}"] = torch.from_numpy(getattr(arrays, f"y_{split}").astype(np.int64))
    mean, std = _moments(tensors["x_train"], arrays.levels)
    return Dataset(**tensors, levels=arrays.levels, sha256=_content_hash(tensors, arrays.levels), mean=mean, std=std)


def _check_images(name: str, images: NDArray[Any], levels: int) -> None:
    if images.ndim != 4:
        raise InputError(f"{name} has shape {images.shape}: must be 4-dimensional (images, height, width, channels)")
    if len(images) == 0:
        raise InputError(f"{name} holds no images: must hold at least one")
    if 0 in images.shape:
        raise InputError(f"{name} has shape {images.shape}: height, width and channels must be at least 1")
    if _has_channels_first(images.shape):
        raise InputError(
            f"{name} has shape {images.shape}, which looks like (images, channels, height, width): must be (images,"
            f" height, width, channels); use {name}.transpose(0, 2, 3, 1)"
        )
    if np.issubdtype(images.dtype, np.floating) and np.isnan(images).any():
        raise InputError(f"{name} holds NaN ({images.dtype}): must be uint8 pixel values from 0 to 255")
    if images.dtype != np.uint8:
        raise InputError(f"{name} has dtype {images.dtype}: must be uint8, pixel values from 0 to 255")
    if int(images.max()) > levels:
        raise InputError(f"{name} holds the value {int(images.max())}: must be from 0 to {levels}")


def _has_channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether a shape looks like (N, C, H, W).

    It does if the second axis is a usual number of channels, the last axis is not, and the last two axes can be the
    sides of an image: both are at least MIN_SIDE, and neither is more than twice the other. An array (N, H, W, C) is
    mistaken for it only if its images have at most 4 rows, but many channels and about as many columns.
    """
    _, second, *sides = shape
    short, long = min(sides), max(sides)
    return second in USUAL_CHANNELS and sides[-1] not in USUAL_CHANNELS and short >= MIN_SIDE and long <= 2 * short


def _check_labels(split: str, arrays: Arrays, num_classes: int) -> None:
    name, labels, images = f"y_{split}", getattr(arrays, f"y_{split}"), getattr(arrays, f"x_{split}")
    if labels.shape != (len(images),):
        raise InputError(f"{name} has shape {labels.shape}: must be ({len(images)},), one label for each image")
    if np.issubdtype(labels.dtype, np.floating) and np.isnan(labels).any():
        raise InputError(f"{name} holds NaN ({labels.dtype}): must be integers from 0 to {num_classes - 1}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{name} has dtype {labels.dtype}: must be integers from 0 to {num_classes - 1}")
    least = int(labels.min())
    if split == "train" and least > 0:
        raise InputError(
            f"{name} holds labels from {least} to {int(labels.max())}: must contain 0, as classes are counted from 0;"
            f" subtract {least} from the labels"
        )
    for wrong in (least, int(labels.max())):
        if not 0 <= wrong < num_classes:
            raise InputError(f"{name} holds the label {wrong}: must be from 0 to {num_classes - 1} (data.num_classes)")


def _moments(images: torch.Tensor, levels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel.

    They are computed from counts of pixel values, so that they are exact and do not depend on the number of threads.
    """
    values = torch.arange(levels + 1, dtype=torch.float64) / levels
    mean, std = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten().long(), minlength=levels + 1).double() / channel.numel()
        centre = float((share * values).sum())
        mean.append(centre)
        std.append(max(float((share * (values - centre) ** 2).sum()) ** 0.5, 1.0 / levels))
    return tuple(mean), tuple(std)


def _content_hash(tensors: dict[str, torch.Tensor], levels: int) -> str:
    digest = hashlib.sha256(f"levels={levels}".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
