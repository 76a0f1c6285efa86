"""What bnft uses of PyTorch, torchvision and Python that is private or undocumented there.

Any version may change it. So each part is used through one function here, `pyproject.toml` has upper bounds for the
packages, and `tests/common/test_compat.py` checks each part. PyTorch is imported where it is needed, since `--help`
imports this module too. The same for Hydra and OmegaConf is in `bnft.config.compat`, for W&B in
`bnft.tracking.compat`, for AutoAttack in `bnft.evaluation.compat`, and for submitit in `bnft.sweeps.slurm.submission`.
"""

import argparse
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import torch
    from torch import fx, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    BatchNorm = _BatchNorm
    Policy = tuple[tuple[str, float, int | None], tuple[str, float, int | None]]  # operation, chance, magnitude; twice

LOADED_LATE = ("torch._dynamo",)
"""Modules of PyTorch that its first optimizer loads, in about a second. Since PyTorch 2.0."""


# PyTorch


def is_batchnorm(module: object) -> "TypeGuard[BatchNorm]":
    """Whether a module is a BN layer: 1d, 2d, 3d or synchronised, or a class of somebody else derived from these.

    `_BatchNorm` is private. It is the only common class of the public ones. Since PyTorch 1.0.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware, with AMX or AVX512-BF16.

    The two functions are private. PyTorch has no public one in all versions that we allow. Since PyTorch 2.6.
    """
    import torch

    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def flops(model: "nn.Module", example: "torch.Tensor") -> int:
    """The floating-point operations of one forward pass, two for each multiply-accumulate.

    `FlopCounterMode` is undocumented. Since PyTorch 2.1.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    return int(counter.get_total_flops())


def note_shapes(traced: "fx.GraphModule", example: "torch.Tensor") -> None:
    """Note at each node of a traced model the shape of what it computes of `example`; see `noted_shape`.

    `ShapeProp` is only mentioned in PyTorch's documentation, and its key in `meta` is not. Since PyTorch 1.10.
    """
    from torch.fx.passes.shape_prop import ShapeProp

    ShapeProp(traced).propagate(example)


def noted_shape(node: Any) -> tuple[int, ...]:
    """The shape of what a node computes, once `note_shapes` noted it; empty for all but tensors."""
    from torch import fx

    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ())) if isinstance(node, fx.Node) else ()


# torchvision


def autoaugment_policies(height: int, width: int) -> "tuple[list[Policy], dict[str, tuple[torch.Tensor, bool]]]":
    """The sub-policies of AutoAugment for CIFAR-10; and the magnitudes of each operation, and if they have a sign.

    `policies` is undocumented and `_augmentation_space` private. torchvision's transform draws once for all images of
    a batch, and we once for each image. Since torchvision 0.11.
    """
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes long to import

    transform = AutoAugment(AutoAugmentPolicy.CIFAR10)
    return transform.policies, transform._augmentation_space(10, (height, width))


def autoaugment_operation(images: "torch.Tensor", name: str, magnitude: float) -> "torch.Tensor":
    """One operation of AutoAugment on uint8 images (N, C, H, W).

    `_apply_op` is private; it is the part of torchvision's transform that draws nothing. Since torchvision 0.11.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    return _apply_op(images, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=None)


# Python


def argparse_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments of a parser, with `option_strings` and `choices`: what a person could have meant.

    `_actions` is private; argparse has no public list. Since Python 3.2.
    """
    return parser._actions


def start_forkserver() -> None:
    """Start the server of the start method `forkserver` now, and not with the first process.

    `ensure_running` is undocumented. It imports what is to be preloaded while this process does something else. Since
    Python 3.4.
    """
    from multiprocessing.forkserver import ensure_running

    ensure_running()
