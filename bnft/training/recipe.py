"""How to train: the parts of a configuration that training needs, built."""

from dataclasses import dataclass

from bnft.attacks.base import Attack
from bnft.data.augmentation import Augmentation
from bnft.training.shapes import Shape


@dataclass(frozen=True)
class Recipe:
    """How to train.

    The learning rate is `lr * shape(progress)`, the optimizer SGD. `attack` makes the images that are trained on, with
    the network in `attack_mode` (`eval` or `train`); None trains on the images themselves. `seed` names every draw.
    """

    epochs: int
    batch_size: int
    lr: float
    shape: Shape
    momentum: float
    nesterov: bool
    weight_decay: float
    augmentation: Augmentation
    attack: Attack | None
    attack_mode: str
    seed: int

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step of an epoch, both from 0; `steps` is the number of steps per epoch."""
        return self.lr * self.shape((epoch + step / steps) / self.epochs)
