"""Seeds for all random draws.

A seed is derived from the seed of the run, the purpose of the draw, the epoch and the step. No random stream continues
from one step to the next. A run that was interrupted therefore draws the same numbers as an uninterrupted run.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_for(seed: int, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """Return a 63-bit seed. Different purposes, epochs or steps give independent streams."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device, seed: int, purpose: str, epoch: int = 0, step: int = 0) -> torch.Generator:
    """Return a generator on `device`, seeded with `seed_for`."""
    return torch.Generator(device).manual_seed(seed_for(seed, purpose, epoch, step))


@contextmanager
def global_seed(seed: int, purpose: str) -> Iterator[None]:
    """Seed PyTorch's global generators in this block, and restore them afterwards. Module initialisers use them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, purpose))
        yield
