"""The private and undocumented parts of PyTorch, torchvision, scikit-learn and Python that bnft uses.

Any version may change them. Therefore each part is used through one function here, `pyproject.toml` has upper bounds
for the packages, and `tests/common/test_compat.py` checks each part. PyTorch is imported inside the functions, because
`--help` imports this module too. The parts of Hydra and OmegaConf are in `bnft.config.compat`, those of W&B in
`bnft.tracking.compat`, those of AutoAttack in `bnft.evaluation.compat`, and those of submitit in
`bnft.sweeps.slurm.submission`.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import torch
    from torch import fx, nn
    from torch.nn.modules.batchnorm import _BatchNorm

    BatchNorm = _BatchNorm
    Policy = tuple[tuple[str, float, int | None], tuple[str, float, int | None]]  # operation, chance, magnitude; twice

# PyTorch


def is_batchnorm(module: object) -> "TypeGuard[BatchNorm]":
    """Return whether a module is a BN layer: 1d, 2d, 3d, synchronised, or of a class derived from these.

    `_BatchNorm` is private. It is the only common base class of the public classes. Since PyTorch 1.0.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def cpu_multiplies_bf16() -> bool:
    """Return whether the CPU multiplies bf16 in hardware, with AMX or AVX512-BF16.

    The two functions are private. No public function exists in all supported versions of PyTorch. Since PyTorch 2.6.
    """
    import torch

    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def flops(model: "nn.Module", example: "torch.Tensor") -> int:
    """Count the floating-point operations of one forward pass, two for each multiply-accumulate.

    `FlopCounterMode` is undocumented. Since PyTorch 2.1.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    return int(counter.get_total_flops())


def note_shapes(traced: "fx.GraphModule", example: "torch.Tensor") -> None:
    """Note at each node of a traced model the shape of its output for the input `example`; see `noted_shape`.

    PyTorch's documentation mentions `ShapeProp`, but not its key in `meta`. Since PyTorch 1.10.
    """
    from torch.fx.passes.shape_prop import ShapeProp

    ShapeProp(traced).propagate(example)


def noted_shape(node: Any) -> tuple[int, ...]:
    """Return the shape that `note_shapes` noted at a node; empty if the output of the node is not a tensor."""
    from torch import fx

    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ())) if isinstance(node, fx.Node) else ()


# torchvision


def autoaugment_policies(height: int, width: int) -> "tuple[list[Policy], dict[str, tuple[torch.Tensor, bool]]]":
    """Return the sub-policies of AutoAugment for CIFAR-10, and the magnitudes of each operation and if they are signed.

    `policies` is undocumented, and `_augmentation_space` is private. torchvision's transform draws once for all images
    of a batch, but bnft draws for each image. Since torchvision 0.11.
    """
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes long to import

    transform = AutoAugment(AutoAugmentPolicy.CIFAR10)
    return transform.policies, transform._augmentation_space(10, (height, width))


def autoaugment_operation(
    images: "torch.Tensor", name: str, magnitude: float, fill: Sequence[int] | None = None
) -> "torch.Tensor":
    """Apply one operation of AutoAugment to uint8 images (N, C, H, W), and fill with a colour; None is black.

    `_apply_op` is private. It is the part of torchvision's transform that draws nothing. Since torchvision 0.11.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    colour = None if fill is None else [float(value) for value in fill]
    return _apply_op(images, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=colour)


# scikit-learn


def digits_file() -> Path:
    """Return the file from which scikit-learn's `load_digits` reads.

    Its place is undocumented. Importing `sklearn.datasets` would take a second. Since scikit-learn 0.9.
    """
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


# Python


def argparse_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser. Their `option_strings` and `choices` are the names to suggest.

    `_actions` is private. argparse has no public list. Since Python 3.2.
    """
    return parser._actions


def start_forkserver() -> None:
    """Start the server of the start method `forkserver` now, not with the first process.

    The server then imports the preloaded modules while this process does something else. `ensure_running` is
    undocumented. Since Python 3.4.
    """
    from multiprocessing.forkserver import ensure_running

    ensure_running()
