"""Any classification model of torchvision, by name and without pretrained weights."""

import difflib
from typing import Any

import torch
import torchvision
from torch import nn

from bnft.common.errors import InputError, rejected


class Torchvision(nn.Module):
    """A model of `torchvision.models.get_model`. It maps images (N, channels, H, W) to logits (N, num_classes).

    These models expect three colour channels, so a grey image is repeated three times. Auxiliary heads are not used.

    Args:
        name: the name of the model.
        channels: the channels of an image, 1 or 3.
        num_classes: the number of classes.
        arguments: arguments of the model's constructor, such as `{image_size: 32}` for a vision transformer.
    """

    def __init__(self, name: str, channels: int, num_classes: int, arguments: dict[str, Any] | None = None) -> None:
        super().__init__()
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            close = difflib.get_close_matches(name, names, n=5, cutoff=0.3) or names[:5]
            raise rejected("model.name", name, f"a classification model of torchvision ({', '.join(close)}, ...)")
        if channels not in (1, 3):
            raise InputError(f"model.channels={channels}: must be 1 or 3 for a torchvision model")
        try:
            self.model = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **(arguments or {}))
        except (TypeError, ValueError) as error:
            raise rejected("model.arguments", arguments, f"arguments of torchvision's {name} ({error})") from None
        self.has_auxiliary = bool(getattr(self.model, "aux_logits", False))  # returns a named tuple in train mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = self.model(x.expand(-1, 3, -1, -1))
        return output.logits if self.training and self.has_auxiliary else output
