"""Augmentation of training images, drawn for each image, on the device of the images.

Each augmentation is a function of uint8 images (N, C, H, W) and a generator. It returns images of the same shape and
type. A whole epoch is augmented at once, so that images that drew the same operation are processed together.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch

from bnft.common.compat import autoaugment_operation, autoaugment_policies
from bnft.common.errors import rejected
from bnft.data.dataset import Dataset

Colour = Sequence[int] | None


class Augmentation(Protocol):
    """Augments uint8 images (N, C, H, W). `fill` has one value per channel; None is black, and mid-grey for cutout."""

    def __call__(self, images: torch.Tensor, generator: torch.Generator, fill: Colour = None) -> torch.Tensor: ...


CUTOUT = 16  # pixels of 32 (DeVries and Taylor, 2017); also used for the CIFAR-10 results of AutoAugment
BLACK, GREY = (0,), (128,)  # for all channels
MEMORY_CHUNK = 8192  # images that AutoAugment processes at once, to limit the size of temporary tensors


def none(images: torch.Tensor, generator: torch.Generator, fill: Colour = None) -> torch.Tensor:
    """Return the images unchanged."""
    return images


def crop(images: torch.Tensor, generator: torch.Generator, fill: Colour = None) -> torch.Tensor:
    """Pad the images by an eighth of their height and width on each side, and crop them at random.

    The shape stays the same. The padding is 4 pixels for 32x32 images, and 1 pixel for 8x8 images.
    """
    count, _, height, width = images.shape
    pad_h, pad_w = math.ceil(height / 8), math.ceil(width / 8)
    padded = _filled(images, fill).repeat(1, 1, height + 2 * pad_h, width + 2 * pad_w)
    padded[:, :, pad_h : pad_h + height, pad_w : pad_w + width] = images
    top = torch.randint(2 * pad_h + 1, (count,), generator=generator, device=images.device)
    left = torch.randint(2 * pad_w + 1, (count,), generator=generator, device=images.device)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left].contiguous()


def flip(images: torch.Tensor, generator: torch.Generator, fill: Colour = None) -> torch.Tensor:
    """Flip each image horizontally with probability 0.5."""
    flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def crop_flip(images: torch.Tensor, generator: torch.Generator, fill: Colour = None) -> torch.Tensor:
    """Apply `crop`, then `flip`, as in adversarial training (Madry et al., 2018; section 3.2 of the paper)."""
    return flip(crop(images, generator, fill), generator)


def autoaugment(
    images: torch.Tensor, generator: torch.Generator, fill: Colour = None, interpolation: str | None = None
) -> torch.Tensor:
    """Apply `crop_flip`, AutoAugment's CIFAR-10 policy (Cubuk et al., 2019) and `cutout`.

    The paper uses AutoAugment for the NORMAL model (section 3.2). The cutout follows the second author's public code.
    So does the bicubic `interpolation` of shears. None takes the nearest pixel, as torchvision does.
    """
    images = crop_flip(images, generator, fill)
    parts = [_cifar10_policy(part, generator, fill, interpolation) for part in images.split(MEMORY_CHUNK)]
    return cutout(torch.cat(parts), generator, fill)


def cutout(images: torch.Tensor, generator: torch.Generator, fill: Colour = None) -> torch.Tensor:
    """Set a rectangle with a random centre and half the sides of the image to one colour. It can cross the border."""
    count, _, height, width = images.shape
    side_h, side_w = height * CUTOUT // 32, width * CUTOUT // 32
    top = torch.randint(height, (count, 1), generator=generator, device=images.device) - side_h // 2
    left = torch.randint(width, (count, 1), generator=generator, device=images.device) - side_w // 2
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    hit = ((rows >= top) & (rows < top + side_h))[:, :, None] & ((columns >= left) & (columns < left + side_w))[:, None]
    return torch.where(hit[:, None], _filled(images, fill or GREY), images)


def _filled(images: torch.Tensor, fill: Colour) -> torch.Tensor:
    """Return one pixel of the colour for each image, of shape (N, C, 1, 1)."""
    count, channels = images.shape[:2]
    return images.new_tensor(fill or BLACK).expand(channels).view(1, -1, 1, 1).repeat(count, 1, 1, 1)


def shear_bicubic(images: torch.Tensor, magnitude: float, fill: Colour = None) -> torch.Tensor:
    """Shear images along x with bicubic interpolation: an output pixel at (x, y) is the input at x + magnitude * y.

    The result has the same bits as that of PIL: `image.transform(image.size, AFFINE, (1, magnitude, 0, 0, 1, 0),
    BICUBIC, fillcolor=...)`. PIL's cubic kernel for transformations has a = -1 (`grid_sample` has -0.75), columns
    beyond the border repeat it, and values are rounded down. Each row shifts by one distance, so only four pixels of
    the same row count.
    """
    height, width = images.shape[-2:]
    y, x = (torch.arange(side, device=images.device, dtype=torch.float64) + 0.5 for side in (height, width))
    place = x + magnitude * y[:, None]  # in the input, of shape (H, W)
    inside, place = (place >= 0) & (place < width), place - 0.5
    left = place.floor()
    part = place - left
    columns = ((left + tap).long().clamp(0, width - 1).expand(images.shape) for tap in (-1, 0, 1, 2))
    p, q, r, s = (images.gather(-1, column).double() for column in columns)
    values = q + part * ((r - p) + part * ((2 * (p - q) + r - s) + part * (q - p + s - r)))
    return torch.where(inside, values.clamp(0, 255).to(images.dtype), _filled(images, fill))


def _operation(
    images: torch.Tensor, name: str, magnitude: float, fill: Colour, interpolation: str | None
) -> torch.Tensor:
    if interpolation == "bicubic" and name == "ShearX":
        return shear_bicubic(images, magnitude, fill)
    if interpolation == "bicubic" and name == "ShearY":
        return shear_bicubic(images.mT, magnitude, fill).mT
    return autoaugment_operation(images, name, magnitude, fill)


def _cifar10_policy(
    images: torch.Tensor, generator: torch.Generator, fill: Colour, interpolation: str | None = None
) -> torch.Tensor:
    """Apply AutoAugment's CIFAR-10 policy, with one sub-policy drawn per image.

    The policy, its magnitudes and its operations are those of torchvision. torchvision's transform would draw once for
    all images. Here, each image draws, and images that drew the same operation are processed as one batch.
    """
    policies, space = autoaugment_policies(images.shape[-2], images.shape[-1])
    device, count = images.device, len(images)
    chosen = torch.randint(len(policies), (count,), generator=generator, device=device)
    chances = torch.rand((2, count), generator=generator, device=device)
    negative = torch.randint(2, (2, count), generator=generator, device=device).bool()
    images = images.clone()
    for stage in range(2):
        groups: dict[tuple[str, float], list[torch.Tensor]] = {}
        for index, policy in enumerate(policies):
            name, chance, magnitude_index = policy[stage]
            magnitudes, signed = space[name]
            magnitude = float(magnitudes[magnitude_index]) if magnitude_index is not None else 0.0
            drawn = (chosen == index) & (chances[stage] < chance)
            for sign, side in ((1.0, ~negative[stage]), (-1.0, negative[stage])) if signed else ((1.0, drawn),):
                groups.setdefault((name, sign * magnitude), []).append(drawn & side)
        for (name, magnitude), masks in groups.items():
            where = torch.stack(masks).any(0).nonzero().squeeze(1)
            if len(where):
                images[where] = _operation(images[where], name, magnitude, fill, interpolation)
    return images


NAMES: dict[str, Augmentation] = {
    "none": none,
    "crop": crop,
    "crop_flip": crop_flip,
    "autoaugment": autoaugment,
}


def named(name: str, interpolation: str | None = None) -> Augmentation:
    """Return one of NAMES. `interpolation` changes how AutoAugment shears, and nothing in the others."""
    changed = name == "autoaugment" and interpolation is not None
    return partial(autoaugment, interpolation=interpolation) if changed else NAMES[name]


def fits(name: str, dataset: Dataset) -> None:
    """Raise InputError if the augmentation does not exist or does not support these images."""
    if name not in NAMES:
        raise rejected("data.augmentation", name, f"one of {', '.join(NAMES)}")
    if name == "autoaugment" and (dataset.levels != 255 or dataset.channels not in (1, 3)):
        raise rejected("data.augmentation", name, "one of none, crop, crop_flip for images without 256 grey values")
