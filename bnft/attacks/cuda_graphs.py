"""The attack on a batch as a CUDA graph, which starts thousands of kernels by one call.

The attack consists of many small kernels, and a CPU often needs more time to start a kernel than a GPU needs to run it.
The same kernels run with and without a graph, so the numbers are the same. The update is not a graph: the CPU has
enough time to start its kernels while the GPU computes the attack.
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

WARM_UP = 3  # calls before the captured one, because libraries initialise themselves in their first calls

Function = Callable[..., torch.Tensor]


def attack_graph(
    attack: Attack, folded: Folded, hardware: Hardware, inputs: torch.Tensor, labels: torch.Tensor
) -> Attack | None:
    """Capture `attack` on the folded view as one graph.

    Args:
        attack: the attack of a recipe.
        folded: the view of the model. Each call of the graph folds the current weights of the model.
        hardware: the precision of forward and backward passes.
        inputs: images (N, C, H, W) of the size of every batch.
        labels: their labels (N,).

    Returns:
        A function `graph(inputs, labels, generator=...)` with the same result as `attack`. The next call overwrites the
        result. None without a CUDA device, for attacks other than bnft's `pgd` (a graph cannot contain everything that
        another attack may do), for a model that cannot be traced (a graph would not execute its Python code again), and
        if capturing fails.
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
    """Return the options of a partially applied `pgd`, including defaults."""
    bound = inspect.signature(pgd).bind_partial(**attack.keywords)
    bound.apply_defaults()
    return bound.arguments


def captured(function: Function, *examples: torch.Tensor) -> Function | None:
    """Capture a function of tensors as a graph.

    Args:
        function: the function. It must have no side effects, because it is called several times here. Random generators
            are advanced.
        examples: tensors of the shapes and types of its arguments.

    Returns:
        The graph as a function. It copies its arguments, and the next call overwrites its result. None, with a warning,
        if capturing fails.
    """
    buffers = [example.clone() for example in examples]
    try:
        output, replay = _record(lambda: function(*buffers), buffers[0].device)
    except RuntimeError as error:  # includes a lack of memory
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"no CUDA graph (slower, with the same numbers): {reason}", RuntimeWarning, stacklevel=2)
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
    """Return the output of `function`, and a function that computes it again. Raises RuntimeError if this fails."""
    # In PyTorch 2.11, `torch.cuda.graph` leaves its own stream current if a capture fails. This block restores it.
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
    # Other threads may use the device at the same time. Their calls are not captured.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        output = function()
    return output, graph.replay


def _recover(stream: torch.cuda.Stream) -> None:
    """Make one capture succeed. After a failed one, PyTorch's random generator refuses to draw until then."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    with suppress(RuntimeError):
        _capture(lambda: torch.zeros(1, device="cuda"), stream)
