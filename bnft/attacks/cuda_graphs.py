"""The attack on a batch as a CUDA graph: thousands of kernels started by one call.

A batch's attack is many small kernels, and a CPU often needs longer to start one than a GPU to run it. The same kernels
run either way, so that the numbers are the same. The update is no graph: while a GPU is busy with an attack, there is
time enough to start what comes after it.
"""

import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from bnft.attacks.base import Attack, no_trace
from bnft.attacks.folding import Folded
from bnft.attacks.pgd import climb, pgd, start
from bnft.common.devices import Hardware

WARM_UP = 3  # calls before the one that is captured: libraries prepare themselves in the first ones

Function = Callable[..., torch.Tensor]


def attack_graph(
    attack: Attack, folded: Folded, hardware: Hardware, inputs: torch.Tensor, labels: torch.Tensor
) -> Attack | None:
    """`attack` on the folded view as one graph, for batches of the size of `inputs` (N, C, H, W) and `labels` (N,).

    It is called as `graph(inputs, labels, generator=...)`, folds the model's weights as they are then, and gives what
    `attack` gives; the result is overwritten by the next call. None where there is no CUDA device, where the attack is
    not our own `pgd` (another may do what no graph can), where the model could not be traced (its Python code would not
    run again), and where capturing fails.
    """
    if not _possible(hardware.device) or folded.view is folded.model:
        return None
    if not isinstance(attack, partial) or attack.func is not pgd or attack.args:
        return None
    options = _options(attack)

    def search(begin: torch.Tensor, images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        view = folded.refresh()
        with no_trace(folded.model), hardware.autocast():
            return climb(view, begin, images, truth, **{name: options[name] for name in _CLIMB})

    replay = captured(search, inputs, inputs, labels)
    if replay is None:
        return None

    def graph(images: torch.Tensor, truth: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        begin = start(images, generator=generator, **{name: options[name] for name in _START})
        return replay(begin, images, truth)

    return graph


_START = ("eps", "norm", "random_start")
_CLIMB = ("eps", "iterations", "step_size", "norm", "keep")


def _options(attack: "partial[torch.Tensor]") -> dict[str, Any]:
    """The options of a `pgd` that is partly applied, defaults included."""
    bound = inspect.signature(pgd).bind_partial(**attack.keywords)
    bound.apply_defaults()
    return bound.arguments


def captured(function: Function, *examples: torch.Tensor) -> Function | None:
    """`function` of tensors as a graph, for tensors of the shapes and types of `examples`.

    It runs on copies of its arguments, and its result is overwritten by the next call. The function must leave nothing
    behind, since it is called some times here; random generators move. None, with a warning, where capturing fails.
    """
    buffers = [example.clone() for example in examples]
    try:
        output, replay = _record(lambda: function(*buffers), buffers[0].device)
    except RuntimeError as error:  # no memory is one, too
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"no CUDA graph, which is slower and otherwise the same: {reason}", RuntimeWarning, stacklevel=2)
        return None

    def call(*arguments: torch.Tensor) -> torch.Tensor:
        for buffer, argument in zip(buffers, arguments, strict=True):
            buffer.copy_(argument)
        replay()
        return output

    return call


def _possible(device: torch.device) -> bool:
    return device.type == "cuda"


def _record(function: Callable[[], torch.Tensor], device: torch.device) -> tuple[torch.Tensor, Callable[[], None]]:
    """The tensor that `function` gives, and a call that computes it anew. Raises RuntimeError where that cannot be."""
    # `torch.cuda.graph` leaves its own stream current where a capture fails, in PyTorch 2.11; hence the stream around.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    function()
            torch.cuda.current_stream().wait_stream(side)
            graph = _capture(function, side)
        except RuntimeError:
            _recover(side)
            raise
    return graph


def _capture(
    function: Callable[[], torch.Tensor], stream: torch.cuda.Stream
) -> tuple[torch.Tensor, Callable[[], None]]:
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile: it is not their calls that are captured.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        output = function()
    return output, graph.replay


def _recover(stream: torch.cuda.Stream) -> None:
    """After a failed capture, PyTorch's random generator refuses to draw until a capture succeeds."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    with suppress(RuntimeError):
        _capture(lambda: torch.zeros(1, device="cuda"), stream)
