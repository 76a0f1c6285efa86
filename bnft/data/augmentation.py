"""Augmentation of training images, drawn per image, on the images' device.

Each augmentation is a function of uint8 images (N, C, H, W) and a generator, and returns the same shape and dtype.
A whole epoch is augmented at once, which lets images that drew the same operation be processed together.
"""

import math
from collections.abc import Callable

import torch

from bnft.common.compat import autoaugment_operation, autoaugment_policies
from bnft.common.errors import rejected
from bnft.data.dataset import Dataset

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

CUTOUT = 16  # pixels of 32, after DeVries and Taylor (2017); AutoAugment's own CIFAR-10 results use it too
MEMORY_CHUNK = 8192  # images augmented at once by AutoAugment: bounds its temporary tensors


def none(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The images as they are."""
    return images


def crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random crop of the image's own size after zero padding of an eighth of it (4 pixels of 32, 1 of 8)."""
    count, _, height, width = images.shape
    pad_h, pad_w = math.ceil(height / 8), math.ceil(width / 8)
    padded = torch.nn.functional.pad(images, (pad_w, pad_w, pad_h, pad_h))
    top = torch.randint(2 * pad_h + 1, (count,), generator=generator, device=images.device)
    left = torch.randint(2 * pad_w + 1, (count,), generator=generator, device=images.device)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left].contiguous()


def flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A horizontal flip of half of the images."""
    flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def crop_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random crop, then flip: what adversarial training uses (Madry et al., 2018; section 3.2 of the paper)."""
    return flip(crop(images, generator), generator)


def autoaugment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Crop, flip, AutoAugment's CIFAR-10 policy (Cubuk et al., 2019), and a 16-pixel cutout (8 by 8 of 16, and so on).

    Section 3.2 of the paper uses it for the NORMAL model; the cutout follows the second author's public code.
    """
    images = crop_flip(images, generator)
    parts = [_cifar10_policy(part, generator) for part in images.split(MEMORY_CHUNK)]
    return cutout(torch.cat(parts), generator)


def cutout(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A square, half the image's size, set to mid-grey around a random centre; it may reach over the border."""
    count, _, height, width = images.shape
    side_h, side_w = height * CUTOUT // 32, width * CUTOUT // 32
    top = torch.randint(height, (count, 1), generator=generator, device=images.device) - side_h // 2
    left = torch.randint(width, (count, 1), generator=generator, device=images.device) - side_w // 2
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    hit = ((rows >= top) & (rows < top + side_h))[:, :, None] & ((columns >= left) & (columns < left + side_w))[:, None]
    return torch.where(hit[:, None], torch.full_like(images, 128), images)


def _cifar10_policy(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """AutoAugment's CIFAR-10 policy, one sub-policy drawn per image.

    The policy, its magnitudes and its operations are torchvision's own; images that drew the same operation go through
    it as one batch, since torchvision's transform would draw once for all of them.
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
                images[where] = autoaugment_operation(images[where], name, magnitude)
    return images


NAMES: dict[str, Augmentation] = {
    "none": none,
    "crop": crop,
    "crop_flip": crop_flip,
    "autoaugment": autoaugment,
}


def fits(name: str, dataset: Dataset) -> None:
    """Raise InputError if there is no such augmentation, or if it cannot be used on these images."""
    if name not in NAMES:
        raise rejected("data.augmentation", name, f"one of {', '.join(NAMES)}")
    if name == "autoaugment" and (dataset.levels != 255 or dataset.channels not in (1, 3)):
        raise rejected("data.augmentation", name, "one of none, crop, crop_flip for images without 256 grey values")
