"""A user's own training attack: PGD that also does what the file `mischief/NAME` says, such as killing its process.

The file can be written, changed and removed while runs work. Without it, the attack is PGD.
"""

import ctypes
import os
import resource
import signal
import time
from pathlib import Path

import torch

from bnft.attacks.pgd import pgd


def attack(model, inputs, labels, *, generator, name: str = "", **keywords) -> torch.Tensor:
    happens(name)

    def slowed(images: torch.Tensor) -> torch.Tensor:
        happens(name)
        return model(images)

    return pgd(slowed, inputs, labels, generator=generator, **keywords)  # type: ignore[arg-type]


def happens(name: str) -> None:
    file = Path("mischief") / name
    what, _, how = file.read_text().partition(" ") if name and file.exists() else ("", "", "")
    if what == "raise":
        raise ValueError("mischief was made")
    if what == "segfault":
        ctypes.string_at(0)
    if what == "exit":
        os._exit(3)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**36, resource.RLIM_INFINITY))
        bytearray(2**37)
    if what == "tell":
        with Path(how).open("a") as told:
            told.write(f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}\n")
    if what == "sleep":
        file.with_name(f"{name}-sleeps").touch()
        time.sleep(float(how))


def make(folder: Path, name: str, what: str) -> None:
    (folder / "mischief").mkdir(exist_ok=True)
    (folder / "mischief" / name).write_text(what)


def unmake(folder: Path) -> None:
    for file in (folder / "mischief").iterdir():
        file.unlink()
