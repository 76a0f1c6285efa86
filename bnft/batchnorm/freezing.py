"""Freeze policies: which parameters learn, and what the BN statistics do. The two axes of every row of Table 2.

BN layers are found by type, never by name. What is frozen, buffers included, is bit-identical before and after.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from bnft.batchnorm.counts import Counts
from bnft.batchnorm.layers import batchnorm_layers
from bnft.batchnorm.selectors import SELECTORS, STATISTICS
from bnft.common.errors import rejected

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Freezing:
    """A freeze policy applied to a model.

    `parameters` is a list of selectors: `all`, `batchnorm` (gamma and beta of every BN layer), `logits` (the last
    linear layer), `first_conv`, `none`, or a pattern of parameter names such as `network.stages.0.*`. `statistics` is
    `update`, `frozen`, or `reset` (start again from mean 0 and variance 1, then update).

    Raises InputError where a selector or the statistics ask for something that the model does not have.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[str], statistics: str) -> None:
        self.model = model
        self.statistics = statistics
        self.layers = batchnorm_layers(model)
        if statistics not in STATISTICS:
            raise rejected("freeze_policy.statistics", statistics, f"one of {', '.join(STATISTICS)}")
        learning = set(self._selected(parameters))
        self.learning = {name: value for name, value in model.named_parameters() if name in learning}
        if statistics == "reset" or (not self.learning and statistics == "update"):
            self._require_running_statistics()
        self.apply()

    def apply(self) -> None:
        """Let gradients flow to what learns and to nothing else."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.learning)

    def reset(self) -> None:
        """Forget the BN statistics where the policy says so. To be called once, before the first batch."""
        if self.statistics == "reset":
            for layer in self.layers.values():
                layer.reset_running_stats()

    def train_mode(self) -> None:
        """Train mode for the update step: BN layers use and update batch statistics unless these are frozen."""
        self.model.train()
        if self.statistics == "frozen":
            for layer in self.layers.values():
                layer.eval()

    def frozen_state(self) -> dict[str, torch.Tensor]:
        """Copies of every tensor of the model, buffers included, that training must not change."""
        moving = {id(parameter) for parameter in self.learning.values()}  # a shared tensor has several names
        if self.statistics != "frozen":
            moving |= {id(buffer) for layer in self.layers.values() for buffer in layer.buffers()}
        state = self.model.state_dict(keep_vars=True)
        return {name: value.detach().clone() for name, value in state.items() if id(value) not in moving}

    def check_unchanged(self, before: dict[str, torch.Tensor]) -> None:
        """Raise RuntimeError if a frozen tensor is not bit-identical to what `frozen_state` returned."""
        state = self.model.state_dict()
        changed = [name for name, value in before.items() if not torch.equal(value, state[name])]
        if changed:
            raise RuntimeError(f"frozen tensors changed in training: {', '.join(changed)}")

    def counts(self) -> Counts:
        """The numbers of Table 1 for this model and policy."""
        updating = self.statistics != "frozen"
        layers = self.layers.values()
        tracked = [layer.running_mean for layer in layers if layer.running_mean is not None]
        return Counts(
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            learning=sum(parameter.numel() for parameter in self.learning.values()),
            batchnorm=sum(parameter.numel() for layer in layers for parameter in layer.parameters(recurse=False)),
            statistics=2 * sum(mean.numel() for mean in tracked) if updating else 0,
        )

    def _selected(self, selectors: Sequence[str]) -> Iterator[str]:
        key = "freeze_policy.parameters"
        if not selectors:
            raise rejected(key, list(selectors), f"a list of {', '.join(SELECTORS)} or name patterns; [none] for none")
        if len(selectors) > 1 and "none" in selectors:
            raise rejected(key, list(selectors), "[none] alone, or without none")
        names = [name for name, _ in self.model.named_parameters()]
        for selector in selectors:
            if selector == "all":
                found = names
            elif selector == "none":
                continue
            elif selector == "batchnorm":
                found = self._batchnorm_parameters()
            elif selector == "logits":
                found = self._of_layer("logits", (nn.Linear,), last=True)
            elif selector == "first_conv":
                found = self._of_layer("first_conv", _CONVOLUTIONS, last=False)
            else:
                found = [name for name in names if fnmatchcase(name, selector)]
            if not found:
                example = f"such as {names[0]}" if names else "but this model has no parameters"
                raise rejected(
                    key, selector, f"one of {', '.join(SELECTORS)}, or a pattern that matches a parameter, {example}"
                )
            yield from found

    def _batchnorm_parameters(self) -> list[str]:
        key, kind = "freeze_policy.parameters", "batchnorm"
        if not self.layers:
            raise rejected(key, kind, "another selector, or a model with BN layers: this one has none")
        plain = [name for name, layer in self.layers.items() if not layer.affine]
        if plain:
            raise rejected(key, kind, f"another selector, or BN with affine parameters: {plain[0]} has none")
        return [f"{name}.{part}" for name in self.layers for part in ("weight", "bias")]

    def _of_layer(self, selector: str, kinds: tuple[type[nn.Module], ...], last: bool) -> list[str]:
        layers = [name for name, module in self.model.named_modules() if isinstance(module, kinds)]
        if not layers:
            what = " or ".join(kind.__name__ for kind in kinds)
            raise rejected("freeze_policy.parameters", selector, f"another selector: this model has no {what} layer")
        layer = layers[-1 if last else 0]
        return [f"{layer}.{name}" for name, _ in self.model.get_submodule(layer).named_parameters(recurse=False)]

    def _require_running_statistics(self) -> None:
        key = "freeze_policy.statistics"
        if not self.layers:
            raise rejected(key, self.statistics, "frozen, or the model one with BN layers: this one has none")
        missing = [name for name, layer in self.layers.items() if layer.running_mean is None]
        if missing:
            raise rejected(key, self.statistics, f"frozen, or BN with running statistics: {missing[0]} has none")
