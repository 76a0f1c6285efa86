"""The device, the precision and the number of threads of a run. They are chosen at its start and recorded in it."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from bnft.common.compat import cpu_multiplies_bf16
from bnft.common.errors import rejected


@dataclass(frozen=True)
class Hardware:
    """The hardware of a run. `precision` is `bf16` or `fp32`."""

    device: torch.device
    precision: str
    threads: int

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context manager that enables bf16 autocast if the precision is bf16.

        Weights and BN statistics are fp32 in either case.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def settle(self) -> None:
        """Make PyTorch use the recorded number of threads and deterministic kernels."""
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32

    def place(self, model: nn.Module) -> nn.Module:
        """Move the model to the device, in place, in the memory format in which its convolutions are fastest."""
        model.to(self.device)
        if _channels_last_is_safe(model, self.device):
            model.to(memory_format=torch.channels_last)
        return model

    def describe(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return f"{name}, {self.precision}, {self.threads} thread{'s' if self.threads != 1 else ''}"


def check(device: str) -> None:
    """Raise InputError if the device does not exist. Does not initialise it, because a launcher must not."""
    _device(device)


def choose(device: str, precision: str, threads: int | None) -> Hardware:
    """Choose the hardware for a run.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is a GPU if there is one.
        precision: `auto`, `bf16` or `fp32`. `auto` is bf16 on devices with fast bf16; see `has_fast_bf16`.
        threads: the number of CPU threads. The default is all available ones.

    Raises:
        InputError: if the device does not exist.
    """
    chosen = _device(device)
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(chosen) else "fp32"
    return Hardware(chosen, precision, threads or available_threads())


def _device(name: str) -> torch.device:
    gpus = torch.cuda.device_count()
    names = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{index}" for index in range(gpus))]
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name not in names:
        raise rejected("device", name, f"one of auto, {', '.join(names)} on this machine")
    return torch.device(name)


def _channels_last_is_safe(model: nn.Module, device: torch.device) -> bool:
    """Return whether every convolution of the model supports the memory format channels_last.

    On the CPU, oneDNN's weight gradient of a strided 1x1 convolution writes past its buffer in this format if the input
    has fewer channels than a vector register has floats: 8 with AVX2, 16 with AVX-512 (uxlfoundation/oneDNN#6035).
    """
    if any(isinstance(module, (nn.Conv1d, nn.Conv3d)) for module in model.modules()):
        return False  # channels_last is for images
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    unsafe = [
        conv
        for conv in convolutions
        if conv.kernel_size == (1, 1) and max(conv.stride) > 1 and conv.in_channels // conv.groups < 16
    ]
    return device.type == "cuda" or not unsafe


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 matrices in hardware.

    This holds for CUDA devices from compute capability 8.0 and for CPUs with AMX or AVX512-BF16.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return cpu_multiplies_bf16()


def available_threads() -> int:
    """Return the number of CPUs that this process may use, from SLURM's task or else from the system."""
    if os.environ.get("SLURM_CPUS_PER_TASK", "").isdigit():
        return int(os.environ["SLURM_CPUS_PER_TASK"])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
