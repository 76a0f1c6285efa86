"""Apply the selectors of a freeze policy: they pick parameters, or some entries of them."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from bnft.batchnorm.layers import batchnorm_parameters
from bnft.batchnorm.selectors import SELECTORS
from bnft.common.errors import rejected
from bnft.common.randomness import generator
from bnft.models.roles import CONVOLUTIONS, Layer, layers_of

KEY = "freeze_policy.parameters"
RANDOM = "random:"

_WORDS = ", ".join(SELECTORS)

Picked = dict[str, torch.Tensor | None]
"""For each picked parameter, by name, the mask of its picked entries; None if all are picked."""

_KINDS = {  # role, and name of the tensor in the layer; None for any
    "all": (None, None),
    "batchnorm": ("batchnorm", None),
    "batchnorm.gamma": ("batchnorm", "weight"),
    "batchnorm.beta": ("batchnorm", "bias"),
    "logits": ("logits", None),
    "first_conv": ("first_conv", None),
}
_MISSING = {
    None: "parameters",
    "batchnorm": "BN layers",
    "logits": "Linear layer",
    "first_conv": f"{' or '.join(kind.__name__ for kind in CONVOLUTIONS)} layer",
}


def select(model: nn.Module, selectors: Sequence[str], seed: int) -> Picked:
    """Return everything that the selectors pick, in the order of the model. See `Freezing` for the selectors.

    Raises:
        InputError: if a selector requires something that the model does not have.
    """
    if not selectors:
        raise rejected(KEY, list(selectors), f"a list of {_WORDS} or name patterns; [none] for none")
    if len(selectors) > 1 and "none" in selectors:
        raise rejected(KEY, list(selectors), "[none] alone, or without none")
    picked: Picked = {}
    for selector in selectors:
        for name, mask in _picked(model, selector, seed).items():
            known = picked.get(name, mask)
            picked[name] = None if known is None or mask is None else known | mask
    return {name: picked[name] for name, _ in model.named_parameters() if name in picked}


def _picked(model: nn.Module, selector: str, seed: int) -> Picked:
    kind, at, place = selector.partition("@")
    if selector == "none":
        return {}
    if selector.startswith(RANDOM):
        return _random(model, selector, seed)
    if kind in _KINDS:
        return dict.fromkeys(_by_role(model, selector, kind, place if at else None))
    return dict.fromkeys(_by_name(model, selector))


def _by_name(model: nn.Module, pattern: str) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    matches = [name for name in names if fnmatchcase(name, pattern)]
    if not matches:
        example = f"such as {names[0]}" if names else "but this model has no parameters"
        raise rejected(KEY, pattern, f"one of {_WORDS}, or a pattern that matches a parameter, {example}")
    return matches


def _by_role(model: nn.Module, selector: str, kind: str, place: str | None) -> list[str]:
    role, tensor = _KINDS[kind]
    layers = layers_of(model) if place is None else _placed(layers_of(model), selector, place)
    layers = [layer for layer in layers if role in (None, layer.role)]
    if not layers:
        where = "" if place is None else f" in its {place}"
        raise rejected(KEY, selector, f"another selector: this model has no {_MISSING[role]}{where}")
    parameters = []
    for layer in layers:
        names = [name for name, _ in layer.module.named_parameters(recurse=False) if tensor in (None, name)]
        if role == "batchnorm" and not names:
            raise rejected(KEY, selector, f"another selector, or BN with affine parameters: {layer.name} has none")
        parameters += [f"{layer.name}.{name}".lstrip(".") for name in names]
    return parameters


def _placed(layers: list[Layer], selector: str, place: str) -> list[Layer]:
    """Return the layers in one place: a stage including its shortcuts, or all shortcuts."""
    if place == "shortcut":
        return [layer for layer in layers if layer.shortcut]
    number = re.fullmatch(r"stage(\d+)", place)
    if number is None:
        raise rejected(KEY, selector, f"{selector.partition('@')[0]}@stageN, with N from 1, or @shortcut")
    stages = sorted({layer.stage for layer in layers if layer.stage is not None})
    if not stages:
        raise rejected(KEY, selector, "a selector without a stage: this model has no stages")
    if int(number[1]) not in stages:
        raise rejected(KEY, selector, f"one of {', '.join(f'@stage{stage}' for stage in stages)} in this model")
    return [layer for layer in layers if layer.stage == int(number[1])]


def _random(model: nn.Module, selector: str, seed: int) -> Picked:
    """Pick random entries of the parameters outside BN layers, all with the same probability, from the run's seed."""
    normalising = batchnorm_parameters(model)
    excluded = {id(value) for value in normalising}
    others = {name: value for name, value in model.named_parameters() if id(value) not in excluded}
    number, entries = selector.removeprefix(RANDOM), sum(value.numel() for value in others.values())
    if number == "batchnorm":
        count = sum(value.numel() for value in normalising)
        if not count:
            raise rejected(KEY, selector, "another selector: this model has no BN parameters to take the number from")
    else:
        count = int(number) if re.fullmatch(r"\d{1,18}", number, re.ASCII) else 0
    if not 1 <= count <= entries:
        raise rejected(KEY, selector, f"random:N with N from 1 to {entries}, the number of entries outside BN layers")
    cpu = torch.device("cpu")  # the same draws on any device
    order = torch.randperm(entries, generator=generator(cpu, seed, "selection"), device=cpu)
    picked = torch.zeros(entries, dtype=torch.bool, device=cpu)
    picked[order[:count]] = True
    parts = picked.split([value.numel() for value in others.values()])
    masks = {name: part.view(value.shape) for (name, value), part in zip(others.items(), parts, strict=True)}
    return {name: mask for name, mask in masks.items() if mask.any()}
