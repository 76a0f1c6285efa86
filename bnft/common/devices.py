"""Which device, which precision, how many threads: decided once, at a run's start, and recorded in the run."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from bnft.common.compat import cpu_multiplies_bf16
from bnft.common.errors import rejected


@dataclass(frozen=True)
class Hardware:
    """What a run computes on. `precision` is what the request became: `bf16` or `fp32`."""

    device: torch.device
    precision: str
    threads: int

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 autocast where the run trains in bf16; weights and BN statistics stay fp32 either way."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def settle(self) -> None:
        """Make PyTorch use the recorded threads, and kernels that give the same bits every time."""
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32

    def place(self, model: nn.Module) -> nn.Module:
        """Move the model to the device, in the memory format in which its convolutions are fastest."""
        model.to(self.device)
        if _channels_last_is_safe(model, self.device):
            model.to(memory_format=torch.channels_last)
        return model

    def describe(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return f"{name}, {self.precision}, {self.threads} thread{'s' if self.threads != 1 else ''}"


def check(device: str) -> None:
    """Raise InputError for a device that is not there. Begins nothing on it, as a launcher must not."""
    _device(device)


def choose(device: str, precision: str, threads: int | None) -> Hardware:
    """The hardware for a run.

    `device` is `auto`, `cpu`, `cuda` or `cuda:N`; `precision` is `auto`, `bf16` or `fp32`, where `auto` means bf16 on
    devices that multiply it fast; `threads` is the number of CPU threads, all available ones if None.
    Raises InputError for a device that is not there.
    """
    chosen = _device(device)
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(chosen) else "fp32"
    return Hardware(chosen, precision, threads or available_threads())


def _device(name: str) -> torch.device:
    gpus = torch.cuda.device_count()
    there = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{index}" for index in range(gpus))]
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name not in there:
        raise rejected("device", name, f"one of auto, {', '.join(there)} on this machine")
    return torch.device(name)


def _channels_last_is_safe(model: nn.Module, device: torch.device) -> bool:
    """Whether channels_last suits every convolution of the model.

    On the CPU, oneDNN's weight gradient of a strided 1x1 convolution writes past its buffer in that format where the
    input has fewer channels than a vector register (uxlfoundation/oneDNN#6035): 8 with AVX2, 16 with AVX-512.
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
    """Whether bf16 matrix products run in hardware: CUDA from compute capability 8.0, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return cpu_multiplies_bf16()


def available_threads() -> int:
    """The CPUs that this process may use: what SLURM gave to its task, else what the system allows."""
    if os.environ.get("SLURM_CPUS_PER_TASK", "").isdigit():
        return int(os.environ["SLURM_CPUS_PER_TASK"])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
