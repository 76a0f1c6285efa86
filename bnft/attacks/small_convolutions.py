"""Convolutions on small maps as matrix products, which compute the same up to rounding and are faster on a CPU.

oneDNN's convolutions are optimised for large maps. On a map of a few pixels, most of the kernel lies on the padding. A
single input channel leaves most of a vector register empty. The gradient of a strided convolution takes two to four
times as long as its forward pass. In these cases, one product with the matrix of the convolution is faster.

The functions here return gradients in channels_last. Autograd's own gradients of slices and views have other memory
layouts, which would slow down every layer before.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from bnft.common.compat import note_shapes, noted_shape

VECTOR = 16  # channels that oneDNN computes at once with AVX-512
FEW = 8  # images; for smaller batches, the number of calls matters, and a convolution is a single call
STRIDED = 2  # a strided convolution with its gradient takes about this many times as long as another one


class Pointwise(nn.Module):
    """A strided 1x1 convolution, as the product of the selected pixels and the weights."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def refresh(self) -> None:
        """Do nothing. The weights of the convolution are used directly."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) < FEW:
            return self.conv(x)
        assert self.conv.bias is not None
        return _call(_Pointwise, *_cast(x, self.conv.weight.flatten(1), self.conv.bias), *self.conv.stride)


class Dense(nn.Module):
    """A convolution on maps of one size (C, H, W), as a matrix that maps all inputs to all outputs."""

    weight: torch.Tensor
    bias: torch.Tensor
    entries: torch.Tensor

    def __init__(self, conv: nn.Conv2d, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = conv
        channels, height, width = size
        # A convolution with the weights 1, 2, ... shows which weight each entry of the matrix is; 0 means none.
        numbers = torch.arange(1, conv.weight.numel() + 1, dtype=torch.float64).view_as(conv.weight)
        unit = torch.eye(height * width * channels, dtype=torch.float64)
        images = unit.view(-1, height, width, channels).permute(0, 3, 1, 2)
        outputs = functional.conv2d(images, numbers, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        self.shape = outputs.shape[1:]
        matrix = outputs.permute(2, 3, 1, 0).reshape(-1, len(unit))
        self.register_buffer("entries", matrix.round().long(), persistent=False)
        self.register_buffer("weight", torch.zeros(self.entries.shape), persistent=False)
        self.register_buffer("bias", torch.zeros(len(self.entries)), persistent=False)

    def refresh(self) -> None:
        """Copy the current weights of the convolution."""
        values = functional.pad(self.conv.weight.flatten(), (1, 0))
        torch.index_select(values, 0, self.entries.flatten(), out=self.weight.view(-1))
        assert self.conv.bias is not None
        self.bias.copy_(self.conv.bias.repeat(len(self.bias) // len(self.conv.bias)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) < FEW:
            return self.conv(x)
        return _call(_Dense, *_cast(x, self.weight, self.bias), self.shape)


class ChannelsLast(nn.Module):
    """Returns the maps unchanged, with a gradient in channels_last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _ChannelsLast.apply(x)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, down: int, right: int
    ) -> torch.Tensor:
        if ctx is not None:
            ctx.save_for_backward(weight)
            ctx.size, ctx.steps = x.shape, (down, right)
        pixels = x[:, :, ::down, ::right].permute(0, 2, 3, 1)
        rows, columns = pixels.shape[1:3]
        out = _empty(x, (len(weight), rows, columns))
        torch.addmm(bias, pixels.flatten(0, 2), weight.t(), out=out.permute(0, 2, 3, 1).flatten(0, 2))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,), (down, right) = ctx.saved_tensors, ctx.steps
        count, channels, height, width = ctx.size
        full = gradient.new_zeros(count, height, width, channels)
        pixels = gradient.permute(0, 2, 3, 1)
        full[:, ::down, ::right] = (pixels.flatten(0, 2) @ weight).view(*pixels.shape[:3], channels)
        return full.permute(0, 3, 1, 2), None, None, None, None


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        if ctx is not None:
            ctx.save_for_backward(weight)
            ctx.size = x.shape
        out = _empty(x, shape)
        inputs, outputs = (maps.permute(0, 2, 3, 1).flatten(1) for maps in (x, out))
        torch.addmm(bias, inputs, weight.t(), out=outputs)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (weight,), (count, channels, height, width) = ctx.saved_tensors, ctx.size
        full = gradient.permute(0, 2, 3, 1).flatten(1) @ weight
        return full.view(count, height, width, channels).permute(0, 3, 1, 2), None, None, None


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


def _call(function: type[torch.autograd.Function], *arguments: Any) -> torch.Tensor:
    """Call the function, without autograd if gradients are disabled."""
    return function.apply(*arguments) if torch.is_grad_enabled() else function.forward(None, *arguments)


def _cast(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors in the precision that autocast would use for a convolution."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors]


def _empty(x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return empty maps for as many images as `x` has, in channels_last. They are not a view, so can be written to."""
    return torch.empty((len(x), *shape), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


AsProduct = Pointwise | Dense


def replace_small(traced: fx.GraphModule, example: torch.Tensor) -> list[AsProduct]:
    """Replace small convolutions of a traced model by matrix products, in place.

    Args:
        traced: the model. The parameters of its convolutions must take no gradients.
        example: images (N, C, H, W) of the size of all later inputs.

    Returns:
        The products. They must be refreshed when the weights change.
    """
    note_shapes(traced, example)
    modules, made = dict(traced.named_modules()), []
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and calls[node.target] == 1:
            product = as_product(modules[node.target], noted_shape(node.args[0])[1:])
            if product is not None:
                traced.add_submodule(node.target, product)
                made.append(product)
        elif len(noted_shape(node)) != 4:  # the output is not a map
            for source in node.all_input_nodes:
                if len(noted_shape(source)) == 4:
                    _keep_channels_last(traced, source, node)
    traced.recompile()
    return made


def _keep_channels_last(traced: fx.GraphModule, source: fx.Node, user: fx.Node) -> None:
    name = f"channels_last_{source.name}"
    traced.add_submodule(name, ChannelsLast())
    with traced.graph.inserting_before(user):
        user.replace_input_with(source, traced.graph.call_module(name, (source,)))


def as_product(conv: nn.Module, size: tuple[int, ...]) -> AsProduct | None:
    """Return the matrix product that replaces a convolution, or None if the convolution is at least as fast.

    The choice depends on sizes only, not on measured times, so that it is the same on every machine.

    Args:
        conv: the convolution. For other modules, the result is None.
        size: the shape (C, H, W) of its inputs.
    """
    if not isinstance(conv, nn.Conv2d) or conv.bias is None or len(size) != 3:
        return None
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return None
    channels, height, width = size
    strided = max(conv.stride) > 1
    if conv.kernel_size == (1, 1) and strided and conv.padding == (0, 0) and conv.groups == 1:
        return Pointwise(conv)
    rows, columns = (
        (length + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for length, pad, dilation, kernel, stride in zip(
            (height, width), conv.padding, conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    )
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    direct = rows * columns * taps * _padded(conv.in_channels) * _padded(conv.out_channels) // conv.groups
    product = rows * columns * conv.out_channels * channels * height * width
    return Dense(conv, (channels, height, width)) if product <= direct * (STRIDED if strided else 1) else None


def _padded(channels: int) -> int:
    return -(-channels // VECTOR) * VECTOR
