"""The layers of a model, with their role, their stage, and whether they are on a shortcut.

BN layers, convolutions and linear layers are found by type. Stages and shortcuts have no type of their own, so they
are found by name. Stages are the children of a module called `stages`, as in `resnet`, or modules called `layer1`,
`layer2` and so on, as in torchvision's ResNets. Layers inside a module called `shortcut` or `downsample` are on a
shortcut.
"""

import re
from dataclasses import dataclass

from torch import nn

from bnft.common.compat import is_batchnorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SHORTCUTS = {"shortcut", "downsample"}


@dataclass(frozen=True)
class Layer:
    """A module with its own parameters, or a BN layer.

    Attributes:
        name: the name of the module.
        module: the module.
        role: `batchnorm`, `first_conv`, `conv`, `logits` (the last linear layer), `linear` or `other`.
        stage: the number of the stage, from 1; None outside of stages.
        shortcut: whether the layer is on a shortcut.
    """

    name: str
    module: nn.Module
    role: str
    stage: int | None
    shortcut: bool


def layers_of(model: nn.Module) -> list[Layer]:
    """Return the layers of a model, in the order in which they are registered."""
    modules = dict(model.named_modules())
    roles = {name: _role(module) for name, module in modules.items()}
    convolutions = [name for name, role in roles.items() if role == "conv"]
    linear = [name for name, role in roles.items() if role == "linear"]
    roles |= dict.fromkeys(convolutions[:1], "first_conv") | dict.fromkeys(linear[-1:], "logits")
    stages = _stages(model)
    return [
        Layer(name, module, roles[name], _stage(name, stages), not SHORTCUTS.isdisjoint(name.split(".")))
        for name, module in modules.items()
        if roles[name] != "other" or next(module.parameters(recurse=False), None) is not None
    ]


def _role(module: nn.Module) -> str:
    if is_batchnorm(module):
        return "batchnorm"
    if isinstance(module, CONVOLUTIONS):
        return "conv"
    return "linear" if isinstance(module, nn.Linear) else "other"


def _stages(model: nn.Module) -> dict[str, int]:
    """Return the numbers of the stages, by name. Return {} if there are none, or several sets of them side by side."""
    candidates = [stages for name, module in model.named_modules() if (stages := _stages_in(name, module))]
    depths = [next(iter(stages)).count(".") for stages in candidates]
    outermost = [stages for stages, depth in zip(candidates, depths, strict=True) if depth == min(depths)]
    return outermost[0] if len(outermost) == 1 else {}


def _stages_in(name: str, module: nn.Module) -> dict[str, int]:
    """The stages among the children of one module."""
    children = [child for child, part in module.named_children() if next(part.children(), None) is not None]
    if name.rpartition(".")[2] == "stages":
        numbers = {child: number for number, child in enumerate(children, 1)}
    else:
        numbers = {child: int(child[5:]) for child in children if re.fullmatch(r"layer[1-9]\d*", child)}
    return {f"{name}.{child}".lstrip("."): number for child, number in numbers.items()}


def _stage(layer: str, stages: dict[str, int]) -> int | None:
    return next((number for name, number in stages.items() if f"{layer}.".startswith(f"{name}.")), None)
