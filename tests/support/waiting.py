"""A check that code does not wait for a GPU, on a machine without one."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU would have to be waited for."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in _flat(args[1:2])
        )
        if masks or name.startswith(self.WAITING):
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


def _flat(values):
    for value in values:
        yield from _flat(value) if isinstance(value, (list, tuple)) else [value]
