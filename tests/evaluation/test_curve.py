"""Robust error over eps: known for a linear model, monotone, resumable, and each image is within its own budget."""

from dataclasses import replace

import pytest
import torch
from support.evaluating import Watched
from torch import nn

from bnft.attacks.ball import Norm
from bnft.attacks.quick import quick_attack
from bnft.common.randomness import generator
from bnft.evaluation.cascade import Attack, Cascade, EvaluationError
from bnft.evaluation.evaluate import confirm, evaluate
from bnft.evaluation.settings import CLEAN, STANDS, Evaluation

EPS, BUDGETS = 0.1, [0.05, 0.1, 0.2]
CURVE = Evaluation(attack="quick", norm="Linf", eps=EPS, n_images=5, batch_size=2, restarts=1, budgets=BUDGETS)
DISTANCES = (-0.03, 0.03, 0.08, 0.15, 0.3)  # of the images from the boundary of `Linear`, in the Linf norm
NUMBERS = [CLEAN, 1, 2, 3, STANDS]  # of the smallest budgets that break them


class Linear(nn.Module):
    """Two logits, m and -m, where m is the mean of an image, minus 0.5."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x.flatten(1).mean(1) - 0.5
        return torch.stack([score, -score], 1)


def at(distances: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one image of class 0 at each distance from the boundary."""
    images = (0.5 + torch.tensor(distances))[:, None, None, None].expand(-1, 1, 8, 8).clone()
    return images, torch.zeros(len(images), dtype=torch.long)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("restarts", [1, 2])
def test_the_curve_of_a_linear_model_is_known(norm: str, restarts: int) -> None:
    scale = 1.0 if norm == "Linf" else 8.0  # the L2 distance of an image of 64 pixels
    budgets = [scale * eps for eps in BUDGETS]
    config = replace(CURVE, norm=norm, eps=budgets[1], budgets=budgets, restarts=restarts)
    outcomes, summary = evaluate(Linear().eval(), *at(DISTANCES), config, Watched())
    assert summary.curve is not None and outcomes.fallen_within is not None
    assert [(point.eps, point.errors, point.images) for point in summary.curve] == [
        *zip([0.0, *budgets], [1, 2, 3, 4], [5] * 4, strict=True)
    ]
    assert outcomes.fallen_within.tolist() == NUMBERS
    assert summary.robust.errors == 3, "the error within eps"
    assert (outcomes.fallen_at == STANDS).tolist() == [False, False, False, True, True]
    assert outcomes.beyond.tolist() == [False, False, False, True, False]
    assert summary.strongest is None and summary.passes is not None and summary.passes.forward > 0
    sizes = (outcomes.adversarial - at(DISTANCES)[0]).flatten(1).norm(dim=1, p=2 if norm == "L2" else torch.inf)
    assert (sizes <= torch.tensor([0.0, *budgets, 0.0]) + 1e-5).all(), "the smallest budget that broke the image"


def test_the_error_at_eps_equals_that_of_the_quick_attack_there() -> None:
    images, labels = at(DISTANCES)
    outcomes, summary = evaluate(Linear().eval(), images, labels, CURVE, Watched())
    alone, quick = evaluate(Linear().eval(), images, labels, replace(CURVE, budgets=None), Watched())
    assert summary.robust == quick.robust
    assert torch.equal(outcomes.fallen_at == STANDS, alone.fallen_at == STANDS)
    assert quick.curve is None and "fallen_within" not in alone.tensors()


def test_a_curve_that_is_interrupted_goes_on_to_the_same_outcomes() -> None:
    images, labels = at((0.03, 0.08, 0.15, 0.3) * 3)
    config, undisturbed = replace(CURVE, n_images=12, batch_size=5), Watched()
    expected, summary = evaluate(Linear().eval(), images, labels, config, undisturbed)
    assert len(undisturbed.states) == 3 + 2 + 2, "each budget attacks what is left"
    for stop_after in (2, 3, 6):
        first, second = Watched(stop_after), Watched()
        with pytest.raises(KeyboardInterrupt):
            evaluate(Linear().eval(), images, labels, config, first)
        found, again = evaluate(Linear().eval(), images, labels, config, second, first.states[-1])
        assert all(torch.equal(value, found.tensors()[name]) for name, value in expected.tensors().items())
        assert (again.curve, again.passes) == (summary.curve, summary.passes)


def test_each_image_is_checked_against_its_own_budget() -> None:
    """An image within the largest budget is refused if a smaller one is said to have broken it."""
    images, _ = at((0.3, 0.3))
    cascade = Cascade.start(images, torch.ones(2, dtype=torch.bool))
    attacks = [Attack(f"{eps}", lambda x, y, batch: x, eps) for eps in BUDGETS]
    cascade.adversarial = images - torch.tensor([0.05, 0.2])[:, None, None, None]
    cascade.fallen_at[:] = torch.tensor([1, 3])
    assert confirm(cascade, images, torch.tensor([True, True]), attacks, CURVE) == 0
    cascade.fallen_at[1] = 2
    with pytest.raises(EvaluationError, match=r"Linf 0\.[12]\d* with eps 0\.1"):
        confirm(cascade, images, torch.tensor([True, True]), attacks, CURVE)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_quick_attack_ends_when_all_images_are_broken(norm: Norm) -> None:
    images, labels = at((0.01, 0.02))
    draws = generator(images.device, 0, "test")
    found = quick_attack(Linear(), images, labels, generator=draws, eps=1.0, norm=norm).found
    assert found.broken.all()
