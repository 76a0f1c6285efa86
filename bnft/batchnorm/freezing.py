"""Freeze policies: which parameters learn, and how BN statistics change. Each row of Table 2 has one.

BN layers are found by type, never by name. Frozen parameters and buffers are bit-identical before and after training.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from bnft.batchnorm.counts import Counts
from bnft.batchnorm.layers import batchnorm_layers, batchnorm_parameters
from bnft.batchnorm.selection import select
from bnft.batchnorm.selectors import CUMULATIVE, STATISTICS
from bnft.common.errors import rejected

if TYPE_CHECKING:
    from bnft.common.compat import BatchNorm


class Freezing:
    """A freeze policy applied to a model.

    Each selector in `parameters` is one of:

    - `all`, `batchnorm` (gamma and beta of every BN layer), `batchnorm.gamma`, `batchnorm.beta`, `logits` (the last
      linear layer), `first_conv`, `none`;
    - one of these in one place: `batchnorm@stage1` (including its shortcuts), `batchnorm.gamma@shortcut`;
    - `random:N` (N random entries of the parameters outside BN layers), `random:batchnorm` (the same with as many
      entries as BN layers have);
    - a pattern of parameter names, such as `network.stages.0.*`.

    Args:
        model: the model.
        parameters: selectors of the parameters that learn.
        statistics: `update`, `frozen`, or `reset` (start again from mean 0 and variance 1, then update).
        seed: the seed of random selectors.
        momentum: the weight of a batch in the running statistics, from 0 to 1. `cumulative` gives all batches the same
            weight. None is the layers' own momentum, usually 0.1, with which the statistics of the base soon vanish.

    Attributes:
        learning: the parameters that learn, by name.
        masks: the entries that learn, for parameters of which only some entries learn.

    Raises:
        InputError: if a selector or the statistics require something that the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[str],
        statistics: str,
        seed: int = 0,
        momentum: float | str | None = None,
    ) -> None:
        self.model = model
        self.statistics = statistics
        self.layers = batchnorm_layers(model)
        if momentum is not None:
            for layer in self.layers.values():
                layer.momentum = None if momentum == CUMULATIVE else float(momentum)
        if statistics not in STATISTICS:
            raise rejected("freeze_policy.statistics", statistics, f"one of {', '.join(STATISTICS)}")
        picked = select(model, parameters, seed)
        self.learning = {name: value for name, value in model.named_parameters() if name in picked}
        self.masks = {name: mask for name, mask in picked.items() if mask is not None}
        if statistics == "reset" or (not self.learning and statistics == "update"):
            self._require_running_statistics()
        self.apply()

    def apply(self) -> None:
        """Compute gradients only for the parameters that learn."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.learning)

    def reset(self) -> None:
        """Reset the BN statistics if the policy requires it. Call this once, before the first batch."""
        if self.statistics == "reset":
            for layer in self.layers.values():
                layer.reset_running_stats()

    @property
    def frozen_layers(self) -> "list[BatchNorm]":
        """The BN layers whose statistics are frozen. They are always in eval mode."""
        return list(self.layers.values()) if self.statistics == "frozen" else []

    def train_mode(self) -> None:
        """Set train mode for the update step. BN layers with frozen statistics stay in eval mode."""
        self.model.train()
        for layer in self.frozen_layers:
            layer.eval()

    def frozen_state(self) -> dict[str, torch.Tensor]:
        """Return copies of all parameters and buffers that training must not change.

        For a parameter of which only some entries learn, these are the other entries.
        """
        return {name: value.clone() for name, value in self._still()}

    def check_unchanged(self, before: dict[str, torch.Tensor]) -> None:
        """Raise RuntimeError if a frozen tensor is not bit-identical to what `frozen_state` returned."""
        state = dict(self._still())
        changed = [name for name, value in before.items() if not torch.equal(value, state[name])]
        if changed:
            raise RuntimeError(f"frozen tensors changed in training: {', '.join(changed)}")

    def learning_entries(self) -> dict[str, int]:
        """Return how many entries of each learned parameter learn."""
        return {
            name: int(self.masks[name].sum()) if name in self.masks else parameter.numel()
            for name, parameter in self.learning.items()
        }

    def counts(self) -> Counts:
        """Return the numbers of Table 1 for this model and policy."""
        updating = self.statistics != "frozen"
        layers = self.layers.values()
        tracked = [layer.running_mean for layer in layers if layer.running_mean is not None]
        return Counts(
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            learning=sum(self.learning_entries().values()),
            batchnorm=sum(parameter.numel() for parameter in batchnorm_parameters(self.model)),
            statistics=2 * sum(mean.numel() for mean in tracked) if updating else 0,
        )

    def _still(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the parameters and buffers that training must not change, or those of their entries."""
        moving = {id(value): self.masks.get(name) for name, value in self.learning.items()}
        if self.statistics != "frozen":
            moving |= {id(buffer): None for layer in self.layers.values() for buffer in layer.buffers()}
        for name, value in self.model.state_dict(keep_vars=True).items():  # a shared tensor has several names
            if id(value) not in moving:
                yield name, value.detach()
            elif (mask := moving[id(value)]) is not None:
                yield name, value.detach()[~mask.to(value.device)]

    def _require_running_statistics(self) -> None:
        key = "freeze_policy.statistics"
        if not self.layers:
            raise rejected(key, self.statistics, "frozen, or a model with BN layers: this one has none")
        missing = [name for name, layer in self.layers.items() if layer.running_mean is None]
        if missing:
            raise rejected(key, self.statistics, f"frozen, or BN with running statistics: {missing[0]} has none")
