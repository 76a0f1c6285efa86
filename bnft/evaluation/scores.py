"""Measure the clean and robust error of any module on any images, without a run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bnft.common.errors import InputError, show
from bnft.common.stopping import steady
from bnft.evaluation.cascade import Attack, Cascade
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.settings import CLEAN, Evaluation

Interval = tuple[float, float]


@dataclass(frozen=True, repr=False)
class Scores:
    """The errors and outcomes of N attacked images.

    Attributes:
        clean_error: the clean error in percent.
        clean_interval: its 95 % interval (Wilson).
        robust_error: the robust error in percent.
        robust_interval: its 95 % interval (Wilson).
        images: the number of images, N.
        norm: the norm of the budget.
        eps: the size of the budget, in pixel units.
        attacks: the robust error after each attack, in their order.
        warnings: the warnings of AutoAttack.
        seconds: the duration of the attacks.
        misclassified: bool (N,), whether the model misclassifies the image without an attack.
        broken: bool (N,), whether an attack fooled the model.
        broken_by: the name of the attack that broke each image, or "".
        adversarial: images (N, C, H, W): the adversarial image if an attack broke the image, else the image itself.
        strongest_error: the robust error after a further attack too, in percent (`Evaluation.then`); None without one.
        strongest_interval: its 95 % interval (Wilson).
        beyond: bool (N,), whether only the further attack fooled the model. `broken` leaves these images out.
    """

    clean_error: float
    clean_interval: Interval
    robust_error: float
    robust_interval: Interval
    images: int
    norm: str
    eps: float
    attacks: Mapping[str, float]
    warnings: tuple[str, ...]
    seconds: float
    misclassified: NDArray[np.bool_] = field(compare=False)
    broken: NDArray[np.bool_] = field(compare=False)
    broken_by: NDArray[np.str_] = field(compare=False)
    adversarial: NDArray[np.float32] = field(compare=False)
    strongest_error: float | None
    strongest_interval: Interval | None
    beyond: NDArray[np.bool_] = field(compare=False)

    def __repr__(self) -> str:
        clean, robust = (
            f"{error:.2f} % [{low:.1f}, {high:.1f}]"
            for error, (low, high) in (
                (self.clean_error, self.clean_interval),
                (self.robust_error, self.robust_interval),
            )
        )
        lines = [
            f"clean error {clean}, robust error {robust} on {self.images} images, {self.norm} eps {show(self.eps)}"
        ]
        lines += [f"  robust error after {name}: {error:.2f} %" for name, error in self.attacks.items()]
        if self.strongest_error is not None:
            lines.append(f"  error after a further attack: {self.strongest_error:.2f} %")
        return "\n".join([*lines, *(f"  Note: {warning}" for warning in self.warnings)])


def scored(module: nn.Module, images: Any, labels: Any, config: Evaluation) -> Scores:
    """Measure the errors of a module.

    The module is evaluated in eval mode. Afterwards its modes and PyTorch's random generators are restored.

    Args:
        module: maps float images (N, C, H, W) in [0, 1] to logits (N, classes), in fp32.
        images: float tensor or array of shape (N, C, H, W) in [0, 1].
        labels: integer tensor or array of shape (N,).
        config: the settings. `config.n_images` must be N.

    Raises:
        InputError: if the module, the images or the labels are invalid.
    """
    device = _checked_module(module)
    x, y = _checked_images(images).to(device), _checked_labels(labels, len(images)).to(device)
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with undisturbed(device):
            _check_output(module, x, y)
            outcomes, summary = evaluate(module, x, y, config, _Silent())
    finally:
        for part, training in modes.items():
            part.training = training
    fallen_at, strongest = outcomes.fallen_at.numpy(), summary.strongest
    names = np.array(["", *(step.attack for step in summary.cascade)])
    return Scores(
        clean_error=summary.clean.error,
        clean_interval=summary.clean.interval,
        robust_error=summary.robust.error,
        robust_interval=summary.robust.interval,
        images=len(fallen_at),
        norm=config.norm,
        eps=config.eps,
        attacks={step.attack: step.error for step in summary.cascade},
        warnings=summary.warnings,
        seconds=summary.seconds,
        misclassified=fallen_at == CLEAN,
        broken=fallen_at > CLEAN,
        broken_by=names[np.maximum(fallen_at, CLEAN)],
        adversarial=outcomes.adversarial.numpy(),
        strongest_error=strongest.error if strongest is not None else None,
        strongest_interval=strongest.interval if strongest is not None else None,
        beyond=outcomes.beyond.numpy(),
    )


class _Silent:
    """Watches an evaluation that is neither saved nor stopped."""

    def attacked(self, cascade: Cascade, attacks: Sequence[Attack]) -> None: ...

    def pulse(self) -> None:
        steady()


def _checked_module(module: object) -> torch.device:
    """Return the device of the module. Raises InputError if the module cannot be evaluated."""
    if not isinstance(module, nn.Module):
        raise InputError(f"module: must be a torch.nn.Module, not {_kind(module)}")
    tensors = dict(chain(module.named_parameters(), module.named_buffers()))
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InputError(f"module: must be in fp32; its {name} is {_type(tensor)}")
    devices = {tensor.device for tensor in tensors.values()}
    if len(devices) > 1:
        raise InputError(f"module: must be on one device; this one is on {', '.join(sorted(map(str, devices)))}")
    return devices.pop() if devices else torch.device("cpu")


def _checked_images(images: object) -> torch.Tensor:
    found = _tensor("images", images)
    if not found.is_floating_point() or found.dim() != 4 or 0 in found.shape:
        shape = tuple(found.shape)
        raise InputError(f"images: must be floats of shape (N, C, H, W); these are {_type(found)} of shape {shape}")
    low, high = float(found.min()), float(found.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise InputError(f"images: must be in [0, 1]; these have values from {low:.4g} to {high:.4g}")
    return found.to(torch.float32).contiguous()  # AutoAttack fails with the layout of permuted images


def _checked_labels(labels: object, count: int) -> torch.Tensor:
    found = _tensor("labels", labels)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool or found.shape != (count,):
        shape = tuple(found.shape)
        raise InputError(f"labels: must be integers of shape ({count},); these are {_type(found)} of shape {shape}")
    return found.to(torch.int64)


def _tensor(name: str, values: object) -> torch.Tensor:
    try:
        return torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: must be a tensor or an array, not {_kind(values)} ({error})") from None


@torch.no_grad()
def _check_output(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    first = images[:2]
    try:
        logits = module(first)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"module: cannot take images of shape {tuple(first.shape[1:])} ({reason})") from error
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 2 or shape[0] != len(first) or shape[1] < 2:
        found = f"outputs of shape {shape}" if shape else _kind(logits)
        raise InputError(f"module: gives {found} for {len(first)} images; must give logits ({len(first)}, classes)")
    for wrong in (int(labels.min()), int(labels.max())):
        if not 0 <= wrong < shape[1]:
            raise InputError(
                f"labels: must be from 0 to {shape[1] - 1}, as the module has {shape[1]} logits, not {wrong}"
            )


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Compute in fp32 with deterministic kernels, and restore PyTorch's settings and random generators afterwards."""
    backends: Any = torch.backends
    operations = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    wanted: list[tuple[Any, str, Any]] = [(operation, "fp32_precision", "ieee") for operation in operations]
    wanted += [(backends.cudnn, "deterministic", True), (backends.cudnn, "benchmark", False)]
    before = [getattr(place, name) for place, name, _ in wanted]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            for place, name, value in wanted:
                setattr(place, name, value)
            yield
        finally:
            for (place, name, _), value in zip(wanted, before, strict=True):
                setattr(place, name, value)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
