"""Transfer between linear models, for which it is known which adversarial images fool which model."""

import torch
from torch import nn

from bnft.evaluation.transfer import Attacked, transfer

CPU = torch.device("cpu")
IMAGES = torch.tensor([[0.8, 0.8], [0.7, 0.9], [0.9, 0.2], [0.6, 0.6]]).view(4, 1, 1, 2)
LABELS = torch.zeros(4, dtype=torch.long)


class Pixel(nn.Module):
    """Predicts class 0 if one pixel is above 0.5, and class 1 otherwise."""

    def __init__(self, pixel: int) -> None:
        super().__init__()
        self.pixel = pixel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x.flatten(1)[:, self.pixel] - 0.5
        return torch.stack([score, -score], 1)


def attacked(model: nn.Module, broken: list[bool], change: tuple[float, float]) -> Attacked:
    """Return a model, and images of which those that are broken have changed by this much in each pixel."""
    fell = torch.tensor(broken)
    adversarial = torch.where(fell[:, None, None, None], (IMAGES + torch.tensor(change)).clamp(0, 1), IMAGES)
    return Attacked(model.eval(), adversarial, fell, model(IMAGES).argmax(1) == LABELS)


def test_what_transfers_between_linear_models_is_known() -> None:
    """The attack on the first changes its pixel only. That on the second changes both, by 0.35 and 0.5."""
    first = attacked(Pixel(0), [True, True, True, False], (-0.5, 0.0))
    second = attacked(Pixel(1), [True, True, False, True], (-0.35, -0.5))
    assert second.correct.tolist() == [True, True, False, True], "the third image is misclassified by the second"
    ((own, across), (back, other)) = transfer([first, second], LABELS, CPU)
    assert own is not None and across is not None and back is not None and other is not None
    assert (own.errors, own.images) == (3, 3), "a model transfers to itself fully"
    assert (across.errors, across.images) == (0, 2), "of images that the target classifies correctly"
    assert (back.errors, back.images) == (3, 3)
    assert (other.errors, other.images) == (3, 3)


def test_a_smaller_change_fools_some_images() -> None:
    source = attacked(Pixel(1), [True, True, False, True], (-0.25, -0.5))
    target = attacked(Pixel(0), [False] * 4, (0.0, 0.0))
    ((_, error), (none, _)) = transfer([source, target], LABELS, CPU)
    assert error is not None and (error.errors, error.images) == (2, 3)
    assert none is None, "there are no adversarial images"
