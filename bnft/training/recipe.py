"""The settings of training, with built components."""

from dataclasses import dataclass

from bnft.attacks.base import Attack
from bnft.data.augmentation import Augmentation
from bnft.training.monitor import Monitoring
from bnft.training.shapes import Shape


@dataclass(frozen=True)
class Recipe:
    """How to train, with SGD.

    Attributes:
        epochs: the number of epochs.
        batch_size: images per batch.
        lr: the peak of the learning rate, which is `lr * shape(progress)`.
        shape: a function of the progress of training, from 0 to 1.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of SGD.
        augmentation: applied to the training images of each epoch.
        attack: makes the adversarial images to train on. None trains on the images themselves.
        attack_mode: the mode of the network during the attack, `eval` or `train`.
        seed: the seed of all random draws.
        fill: the colour that augmentation fills with: `mean` is that of the training images, None the usual one.
        batchnorm_weight_decay: the weight decay of BN parameters. None is `weight_decay`.
        monitoring: how to measure errors on held-out training images. None measures nothing.
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
    fill: str | None = None
    batchnorm_weight_decay: float | None = None
    monitoring: Monitoring | None = None

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate at `step` of `epoch`, both counted from 0, with `steps` steps per epoch."""
        return self.lr * self.shape((epoch + step / steps) / self.epochs)
