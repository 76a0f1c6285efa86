"""Where every random number comes from.

A draw is named by the run's seed, what it is for, and the epoch (and step). Nothing is drawn from a stream that
carries over, so a run that was killed and resumed draws what the undisturbed run would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_for(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """A 63-bit seed for one purpose; different purposes, epochs or steps give unrelated streams."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device, seed: int, purpose: str, epoch: int = 0, step: int = 0) -> torch.Generator:
    """A generator on `device` for one purpose."""
    return torch.Generator(device).manual_seed(seed_for(seed, purpose, epoch, step))


@contextmanager
def global_seed(seed: int, purpose: str) -> Iterator[None]:
    """PyTorch's global generators seeded for the block and put back after it (module initialisers use them)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, purpose))
        yield
