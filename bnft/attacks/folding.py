"""A faster view of a model in eval mode, for attacks. Each BN layer is folded into the convolution before it.

In eval mode, BN is an affine map of its input (Equation 1 of the paper). A convolution and its BN layer are therefore
one convolution with other weights. It computes the same function up to rounding, with half as many layers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from bnft.attacks import small_convolutions
from bnft.attacks.base import no_trace
from bnft.batchnorm.layers import gamma
from bnft.batchnorm.record import normalized
from bnft.common.compat import is_batchnorm

if TYPE_CHECKING:
    from bnft.common.compat import BatchNorm

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
TOLERANCE = 1e-3  # relative error of logits, far above rounding errors and far below the effect of wrong tracing


@dataclass(frozen=True)
class _Pair:
    """A convolution, the BN layer after it, and the convolution with bias that replaces both."""

    conv: _Convolution
    layer: "BatchNorm"
    folded: _Convolution

    def refresh(self) -> None:
        layer, conv = self.layer, self.conv
        assert layer.running_mean is not None and layer.running_var is not None and self.folded.bias is not None
        scale = gamma(layer).to(layer.running_mean)
        beta = layer.bias if layer.affine else torch.zeros_like(layer.running_mean)
        weight, bias = normalized(scale, beta, layer.running_mean, layer.running_var, layer.eps)
        self.folded.weight.copy_(conv.weight * weight.view(-1, *[1] * (conv.weight.dim() - 1)))
        self.folded.bias.copy_(bias if conv.bias is None else bias + weight * conv.bias)


class _Tracer(fx.Tracer):
    """Traces a model, but not into its BN layers, which can be of any class."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_batchnorm(m) or super().is_leaf_module(m, module_qualified_name)


class Folded:
    """A view of a model in eval mode, with the weights that the model had at the last `refresh`.

    `view` has the same inputs and outputs as the model. Its own weights take no gradients. On a CPU, small convolutions
    are computed as matrix products (see `small_convolutions`). The view is the model itself if the model cannot be
    traced, for example because its control flow depends on data, or if there is nothing to fold.

    Args:
        model: the model.
        example: images (N, C, H, W) of the size of all later inputs.
    """

    def __init__(self, model: nn.Module, example: torch.Tensor) -> None:
        self.model = model
        self.view: nn.Module = model
        self._parts: list[_Pair | small_convolutions.AsProduct] = []
        with no_trace(model):
            self._fold(example[torch.arange(small_convolutions.FEW) % len(example)])

    def refresh(self) -> nn.Module:
        """Fold the current weights and statistics of the model, and return the view."""
        with torch.no_grad():
            for part in self._parts:
                part.refresh()
        return self.view

    def _fold(self, example: torch.Tensor) -> None:
        try:
            traced = fx.GraphModule(self.model, _Tracer().trace(self.model))
        except (fx.proxy.TraceError, TypeError, NotImplementedError, RuntimeError, AttributeError):
            return  # its control flow cannot be traced
        pairs = _fold_pairs(traced)
        if not pairs:
            return
        self._parts = [
            *pairs,
            *(small_convolutions.replace_small(traced, example) if example.device.type == "cpu" else ()),
        ]
        self.view = traced.eval()
        self.refresh()
        if not self._same(example):
            self.view, self._parts = self.model, []

    @torch.no_grad()
    def _same(self, example: torch.Tensor) -> bool:
        """Return whether the view gives the model's logits. Code that branches on its input can be traced wrongly."""
        expected = self.model(example)
        try:
            logits = self.view(example)
        except (RuntimeError, TypeError, AttributeError):
            return False
        return bool((logits - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1))


def _fold_pairs(traced: fx.GraphModule) -> list[_Pair]:
    """Replace every convolution with a BN layer after it in a traced model by one convolution."""
    modules = dict(traced.named_modules())
    pairs: list[_Pair] = []
    for node in list(traced.graph.nodes):
        layer = modules.get(node.target) if node.op == "call_module" else None
        if not is_batchnorm(layer) or layer.running_mean is None:
            continue
        source = node.args[0]
        conv = modules.get(source.target) if source.op == "call_module" else None
        if not isinstance(conv, _Convolution) or len(source.users) > 1:
            continue
        name = f"folded_{len(pairs)}"
        folded = _with_bias(conv)
        traced.add_submodule(name, folded)
        with traced.graph.inserting_after(node):
            replacement = traced.graph.call_module(name, source.args, source.kwargs)
        node.replace_all_uses_with(replacement)
        traced.graph.erase_node(node)
        traced.graph.erase_node(source)
        pairs.append(_Pair(conv, layer, folded))
    traced.recompile()
    return pairs


def _with_bias(conv: _Convolution) -> _Convolution:
    """Return a convolution like this one, but with a bias, whose parameters take no gradients."""
    folded = type(conv)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias=True,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
    )
    if isinstance(folded, nn.Conv2d):
        folded = folded.to(memory_format=torch.channels_last)
    return folded.requires_grad_(False)
